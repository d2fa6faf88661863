"""The teacher's side of a comparison: how well a network denoises real images, by noise level and frequency band."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from specreg.diffusion import StackedGenerator
from specreg.objectives import Condition, Objective
from specreg.transforms import fourier, radial

Rows = list[list[float]]


class DenoisingMap(NamedTuple):
    """Mean powers on a grid of noise levels (rows) and frequency bands (columns), float64 on the CPU."""

    timesteps: Tensor  # [L], timesteps (int64) or σ
    log_snr: Tensor  # [L]
    size: Tensor  # [K], coefficients of the full spectrum in each band
    signal: Tensor  # [K], of x0, per coefficient of an orthonormal DFT
    error: Tensor  # [L, K], of x0_hat − x0
    energy: Tensor  # [L, K], of x0_hat
    pull: Tensor | None  # [L, K], of the term's gradient at the output, λ included, relative to the base loss's

    def error_db(self, *, low: float = 0.0) -> float:
        """Energy of the error relative to the signal's in the bands from `low` cycles per pixel up.

        In dB, mean over noise levels.
        """
        inside = torch.arange(len(self.size)) * (0.5 / len(self.size)) >= low
        energy = self.size * inside
        return float(_db((self.error * energy).sum(1) / (self.signal * energy).sum()).mean())

    def record(self) -> dict[str, Any]:
        """The map as it stands in results.json."""
        bands = len(self.signal)
        return {
            "timesteps": self.timesteps.tolist(),
            "log_snr": self.log_snr.tolist(),
            "edges": [0.5 * k / bands for k in range(bands + 1)],
            "signal_power": self.signal.tolist(),
            "error_db": _db(self.error / self.signal).tolist(),
            "energy_db": _db(self.energy / self.signal).tolist(),
            "pull_db": None if self.pull is None else _db(self.pull).tolist(),
        }


def denoising_map(
    objective: Objective,
    model: nn.Module,
    x0: Tensor,
    *,
    condition: Condition | None = None,
    levels: int = 12,
    bands: int | None = None,
    seed: int = 0,
) -> DenoisingMap:
    """Noise `x0` `[N, C, H, W]` at `levels` times spread evenly over those of training, denoise it, and measure.

    Noise of image i comes from `seed` + i, the same for every network. `bands` are equal in frequency, and as in
    `radial.band_index` the last one holds the corners; None gives an even number, about one for every four pixels of
    the shorter side, at most 16. A regularizer of the objective is asked for its pull as it stands.
    """
    shape = x0.shape[2:]
    bands = bands or 2 * max(1, min(8, min(shape) // 8))
    timesteps = objective.time.grid(levels)
    generator = StackedGenerator(range(seed, seed + len(x0)), x0.device)
    regularizer = objective.regularizer
    learning = regularizer is not None and regularizer.training
    if regularizer is not None:
        regularizer.eval()
    outputs: list[Tensor] = []

    def network(x_t: Tensor, t: Tensor, **condition: Tensor) -> Tensor:
        """The model, its output a leaf of the graph that the losses are computed in."""
        with torch.no_grad():
            outputs.append(model(x_t, t, **condition).float())
        return outputs[-1].requires_grad_()

    def power(x: Tensor) -> Tensor:
        squared = fourier.half_spectrum(x.double(), ndim=len(shape)).abs().square()
        return radial.band_mean(squared, shape, bands).mean(0).cpu()

    error, energy, pull = [], [], []
    for timestep in timesteps.tolist():
        t = torch.full((len(x0),), timestep, device=x0.device)
        terms = objective(network, x0, t, generator.randn(x0.shape), condition)
        x0_hat = terms.x0_hat.detach()
        error.append(power(x0_hat - x0))
        energy.append(power(x0_hat))
        if terms.spectral is not None and terms.spectral.loss.requires_grad:
            output = outputs[-1]
            (base,) = torch.autograd.grad(terms.base.mean(), output, retain_graph=True)
            (spectral,) = torch.autograd.grad(terms.spectral.loss, output)
            pulled = power(spectral)
            pull.append(torch.where(pulled == 0, pulled, pulled / power(base)))  # a gate may leave nothing of the term
        outputs.clear()
    if regularizer is not None:
        regularizer.train(learning)
    return DenoisingMap(
        timesteps,
        objective.level(timesteps.to(x0.device)).log_snr.double().cpu(),
        radial.band_sizes(shape, bands),
        power(x0),
        torch.stack(error),
        torch.stack(energy),
        torch.stack(pull) if pull else None,
    )


def _db(ratio: Tensor) -> Tensor:
    """Decibels, between −200 and 200; NaN stays NaN, so that a diverged network never looks like a perfect one."""
    return 10 * ratio.clamp(1e-20, 1e20).log10()
