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


class DenoisingPowers(NamedTuple):
    """The powers of each sample whose means are a `DenoisingMap`, float64 on the CPU."""

    timesteps: Tensor  # [L], times of the objective
    log_snr: Tensor  # [L]
    size: Tensor  # [K], coefficients of the full spectrum in each band
    signal: Tensor  # [N, K], of x0, per coefficient of an orthonormal DFT
    error: Tensor  # [L, N, K], of x0_hat − x0
    energy: Tensor  # [L, N, K], of x0_hat
    cross: Tensor  # [L, N, K], Re(X̂·conj X)
    base: Tensor | None  # [L, N, K], of the gradient of N times the base loss with respect to the output
    term: Tensor | None  # [L, N, K], of that of N times the term, λ included

    def mean(self) -> DenoisingMap:
        """Return the mean over the samples."""
        pull = None
        if self.base is not None and self.term is not None:
            base, term = self.base.mean(1), self.term.mean(1)
            pull = torch.where(term == 0, term, term / base)  # a gate may leave nothing of the term
        powers = (self.error.mean(1), self.energy.mean(1), self.cross.mean(1))
        return DenoisingMap(self.timesteps, self.log_snr, self.size, self.signal.mean(0), *powers, pull)


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
    """Return how a network denoises real data `x0` `[N, C, *space]`: the mean of `denoising_powers` of one batch."""
    return denoising_powers(
        objective, model, x0, condition=condition, levels=levels, bands=bands, seed=seed, batch_size=len(x0)
    ).mean()


def denoising_powers(
    objective: Objective,
    model: nn.Module,
    x0: Tensor,
    *,
    condition: Condition | None = None,
    levels: int = 12,
    bands: int | None = None,
    seed: int = 0,
    batch_size: int = 64,
) -> DenoisingPowers:
    """Return how a network denoises real data `x0` `[N, C, *space]` at `levels` levels spread evenly over training.

    The noise of sample i comes from `seed` + i, the same for every network and batch size. `bands` are equal in
    frequency, and as in `radial.band_index` the last one holds the corners; None takes an even number, about one for
    every four samples of the shorter side, at most 16. The pull of the objective's regularizer is measured with λ as it
    stands.
    """
    shape = x0.shape[2:]
    bands = bands or 2 * max(1, min(8, min(shape) // 8))
    timesteps = objective.time.grid(levels)
    regularizer = objective.regularizer
    learning = regularizer is not None and regularizer.training
    if regularizer is not None:
        regularizer.eval()
    parts = []
    for start in range(0, len(x0), batch_size):
        these = slice(start, start + batch_size)
        given = None if condition is None else {name: values[these] for name, values in condition.items()}
        parts.append(_of_batch(objective, model, x0[these], given, timesteps, bands, seed + start))
    if regularizer is not None:
        regularizer.train(learning)
    joined: Any = [None if parts[0][i] is None else torch.cat([part[i] for part in parts], dim) for i, dim in _SAMPLES]
    return DenoisingPowers(
        timesteps,
        _checks.in_float64(objective.level(timesteps.to(x0.device)).log_snr).cpu(),
        radial.band_sizes(shape, bands),
        *joined,
    )


_SAMPLES = ((0, 0), (1, 1), (2, 1), (3, 1), (4, 1), (5, 1))
"""The axis of samples of what `_of_batch` returns."""


def _of_batch(
    objective: Objective,
    model: nn.Module,
    x0: Tensor,
    condition: Condition | None,
    timesteps: Tensor,
    bands: int,
    seed: int,
) -> tuple[Any, ...]:
    """Return signal `[N, K]`, error, energy, cross, and the gradients of base loss and term, `[L, N, K]` or None."""
    shape, regularizer = x0.shape[2:], objective.regularizer
    generator = StackedGenerator(range(seed, seed + len(x0)), x0.device)
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
        return radial.band_mean(values, shape, bands).cpu()

    def power(x: Tensor) -> Tensor:
        return banded(spectrum(x).abs().square())

    truth = spectrum(x0)
    found: list[list[Tensor]] = [[], [], [], [], []]
    error, energy, cross, base, term = found
    for timestep in timesteps.tolist():
        t = torch.full((len(x0),), timestep, device=x0.device)
        terms = objective(network, x0, t, generator.randn(x0.shape), condition)
        x0_hat = terms.x0_hat.detach()
        error.append(power(x0_hat - x0))
        estimate = spectrum(x0_hat)
        energy.append(banded(estimate.abs().square()))
        cross.append(banded((estimate * truth.conj()).real))
        if terms.spectral is not None and terms.spectral.loss.requires_grad:
            # Times the size of the batch, since both losses are means over it.
            for loss, powers in ((terms.base.mean(), base), (terms.spectral.loss, term)):
                (gradient,) = torch.autograd.grad(len(x0) * loss, outputs[0], retain_graph=powers is base)
                powers.append(power(gradient))
        outputs.clear()
    return (power(x0), *(torch.stack(rows) if rows else None for rows in found))


def _db(ratio: Tensor) -> Tensor:
    """Return decibels between −200 and 200; NaN stays NaN, or a diverged network could look like a perfect one."""
    return 10 * ratio.clamp(1e-20, 1e20).log10()
