"""One-step denoising of real data by noise level and frequency band: error, calibration, and the pull of the term."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from specreg import _checks
from specreg.diffusion import StackedGenerator
from specreg.objectives import Condition, Objective
from specreg.transforms import fourier, radial

Rows = list[list[float]]


class DenoisingMap(NamedTuple):
    """Mean powers on a grid of noise levels (rows) and frequency bands (columns), float64 on the CPU."""

    timesteps: Tensor  # [L], times of the objective
    log_snr: Tensor  # [L]
    size: Tensor  # [K], coefficients of the full spectrum in each band
    signal: Tensor  # [K], of x0, per coefficient of an orthonormal DFT
    error: Tensor  # [L, K], of x0_hat − x0
    energy: Tensor  # [L, K], of x0_hat
    cross: Tensor  # [L, K], Re(X̂·conj X): real part of the cross spectrum of x0_hat and x0
    pull: Tensor | None  # [L, K], of the term's gradient at the output, λ included, relative to the base loss's

    @property
    def gain(self) -> Tensor:
        """Calibration of the denoiser, [L, K]: Σ Re(X̂·conj X)/Σ |X̂|², the factor on x0_hat of least squared error.

        The posterior mean has 1 in every band, however smooth it is. Below 1 the network adds what the data do not
        have, above 1 it withholds what it knows.
        """
        return self.cross / self.energy

    def error_db(self, *, low: float = 0.0) -> float:
        """Return the energy of the error relative to that of the signal in the bands from `low` cycles per sample up.

        In dB, mean over noise levels.
        """
        inside = torch.arange(len(self.size)) * (0.5 / len(self.size)) >= low
        energy = self.size * inside
        return float(_db((self.error * energy).sum(1) / (self.signal * energy).sum()).mean())

    def record(self) -> dict[str, Any]:
        """Return the map as results.json has it; a gain that is not finite is null."""
        bands = len(self.signal)
        return {
            "timesteps": self.timesteps.tolist(),
            "log_snr": self.log_snr.tolist(),
            "edges": [0.5 * k / bands for k in range(bands + 1)],
            "signal_power": self.signal.tolist(),
            "error_db": _db(self.error / self.signal).tolist(),
            "energy_db": _db(self.energy / self.signal).tolist(),
            "gain": [[value if math.isfinite(value) else None for value in row] for row in self.gain.tolist()],
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
    """Return how a network denoises real data `x0` `[N, C, *space]` at `levels` levels spread evenly over training.

    The noise of sample i comes from `seed` + i, the same for every network. `bands` are equal in frequency, and as in
    `radial.band_index` the last one holds the corners; None takes an even number, about one for every four samples of
    the shorter side, at most 16. The pull of the objective's regularizer is measured with λ as it stands.
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
        """Call the model; its first output is a leaf of the graph, which runs through the calls of further updates."""
        if outputs and regularizer is not None:
            later: Tensor = model(x_t, t, **condition).float()
            return later
        with torch.no_grad():
            outputs.append(model(x_t, t, **condition).float())
        return outputs[-1].requires_grad_()

    def spectrum(x: Tensor) -> Tensor:
        return fourier.half_spectrum(_checks.in_float64(x), ndim=len(shape))

    def banded(values: Tensor) -> Tensor:
        return radial.band_mean(values, shape, bands).mean(0).cpu()

    def power(x: Tensor) -> Tensor:
        return banded(spectrum(x).abs().square())

    truth = spectrum(x0)
    error, energy, cross, pull = [], [], [], []
    for timestep in timesteps.tolist():
        t = torch.full((len(x0),), timestep, device=x0.device)
        terms = objective(network, x0, t, generator.randn(x0.shape), condition)
        x0_hat = terms.x0_hat.detach()
        error.append(power(x0_hat - x0))
        estimate = spectrum(x0_hat)
        energy.append(banded(estimate.abs().square()))
        cross.append(banded((estimate * truth.conj()).real))
        if terms.spectral is not None and terms.spectral.loss.requires_grad:
            output = outputs[0]
            (base,) = torch.autograd.grad(terms.base.mean(), output, retain_graph=True)
            (spectral,) = torch.autograd.grad(terms.spectral.loss, output)
            pulled = power(spectral)
            pull.append(torch.where(pulled == 0, pulled, pulled / power(base)))  # a gate may leave nothing of the term
        outputs.clear()
    if regularizer is not None:
        regularizer.train(learning)
    return DenoisingMap(
        timesteps,
        _checks.in_float64(objective.level(timesteps.to(x0.device)).log_snr).cpu(),
        radial.band_sizes(shape, bands),
        power(x0),
        torch.stack(error),
        torch.stack(energy),
        torch.stack(cross),
        torch.stack(pull) if pull else None,
    )


def _db(ratio: Tensor) -> Tensor:
    """Return decibels between −200 and 200; NaN stays NaN, or a diverged network could look like a perfect one."""
    return 10 * ratio.clamp(1e-20, 1e20).log10()
