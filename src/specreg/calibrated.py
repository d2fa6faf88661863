"""A trained network with its own gain applied: what can be had without training, so what a term must beat.

The gain of `denoising_map` is the factor on each frequency band of x0_hat that makes its squared error least. Measured
on training images and applied to every prediction, it corrects what a network holds back or adds in a band. It adds
nothing that the network does not know.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from specreg import _checks
from specreg.denoising import DenoisingMap, denoising_map
from specreg.diffusion import coefficients, recover_x0
from specreg.objectives import Condition, Objective
from specreg.transforms import fourier, radial

LEVELS = 25
"""Noise levels at which the gain is measured."""


class Calibrated(nn.Module):
    """A network whose outputs imply x0_hat multiplied by a gain, by noise level and band; called as the network is.

    Args:
        network: called as `network(x_t, time, **condition)`, with what `objective.time` tells it.
        objective: what the network predicts, and its times.
        measured: the map whose gain is applied. Between its noise levels the gain is interpolated in what the network
            is told, beyond them it is that of the last one; where it is not finite it is 1.
    """

    told: Tensor  # [L], rising
    gain: Tensor  # [L, K]

    def __init__(self, network: nn.Module, objective: Objective, measured: DenoisingMap):
        super().__init__()
        self.network, self.objective = network, objective
        told, order = objective.time.network_time(measured.timesteps).double().sort()
        gain = measured.gain[order].float()
        self.register_buffer("told", told, persistent=False)
        self.register_buffer("gain", torch.where(gain.isfinite(), gain, 1.0), persistent=False)

    def __getattr__(self, name: str) -> Any:
        """Return what this module does not have from the network: its preconditioning, its conditioning."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("network"), name)

    def forward(self, x_t: Tensor, time: Tensor, **condition: Tensor) -> Tensor:
        """Return the output `[B, C, *space]` that implies the calibrated x0_hat."""
        output = self.network(x_t, time, **condition)
        level, prediction = self.objective.level(self.objective.time.told(time)), self.objective.prediction
        x0_hat = recover_x0(output, x_t, level, prediction=prediction)
        _, b = coefficients(level, prediction)
        changed: Tensor = output + (self.apply_gain(x0_hat, time) - x0_hat) / _checks.append_dims(b, output.ndim)
        return changed.to(output)

    def apply_gain(self, x0_hat: Tensor, time: Tensor) -> Tensor:
        """Return x0_hat `[B, C, *space]` with each band multiplied by its gain at the times `[B]`."""
        shape = x0_hat.shape[2:]
        bands = radial.band_index(shape, self.gain.shape[1], device=x0_hat.device)
        factor = self._gain_at(time)[:, bands].unsqueeze(1)
        spectrum = fourier.half_spectrum(x0_hat, ndim=len(shape)) * factor
        filtered: Tensor = torch.fft.irfftn(spectrum, s=shape, dim=tuple(range(-len(shape), 0)), norm="ortho")
        return filtered

    def _gain_at(self, time: Tensor) -> Tensor:
        """Return the gain at times `[B]`, `[B, K]`."""
        time = time.to(self.told.device, self.told.dtype).clamp(self.told[0], self.told[-1])
        high = torch.searchsorted(self.told, time).clamp(1, len(self.told) - 1)
        low = high - 1
        share = (time - self.told[low]) / (self.told[high] - self.told[low])
        return torch.lerp(self.gain[low], self.gain[high], share.to(self.gain)[:, None])


def calibrate(
    objective: Objective, network: nn.Module, x0: Tensor, *, condition: Condition | None = None, seed: int = 0
) -> Calibrated:
    """Return `network` with the gain that it has on real data `x0` `[N, C, *space]`, which no result is measured on."""
    return Calibrated(
        network, objective, denoising_map(objective, network, x0, condition=condition, levels=LEVELS, seed=seed)
    )
