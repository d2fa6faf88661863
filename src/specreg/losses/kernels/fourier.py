"""Value and gradient of the Fourier losses with one pass over both spectra, for float32 on a CPU.

Between the transforms, the loops of `fourier_loops` go over both spectra once. The adjoint transform is computed by one
more *forward* transform, because torch's inverse real transform of several axes takes two to three times as long on a
CPU: it is a complex transform, a real one, and copies. With F the spectrum of a real signal, H = cas(F) = Re F − Im F
on all frequencies is real and determines F, and Σ_k F_k e^{+2πi k·n/N} = cas(DFT[H])_n (R. N. Bracewell, The Hartley
Transform, 1986). A half spectrum determines H, because −Im F is Im F at the negative frequency.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from specreg.losses.kernels.fourier_loops import BACK, KERNELS, SCORE, Array, Work
from specreg.losses.kernels.runtime import run
from specreg.transforms.fourier import bin_weights

PIECE = 1024
"""Number of bins in a piece, which the loops keep in the fastest cache."""


def evaluate(
    x0_hat: Tensor,
    x0: Tensor,
    weights: Tensor | None,
    *,
    coupling: str | None,
    wants_gradient: bool,
    scale: float,
    least_amplitude: float,
    phase_gradient_limit: float,
    out: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Return `scale` · Σ over the unnormalized full spectrum, `[b]`, and the gradient of Σ, `[b, r, *space]`.

    Args:
        x0_hat: `[b, r, *space]`, float32 on the CPU.
        x0: the same.
        weights: weights by frequency, `[b or 1, *half]`, or None.
        coupling: None, "frequency" or "projection", see `functional`.
        wants_gradient: whether to compute the gradient.
        scale: factor of the values, not of the gradient.
        least_amplitude: amplitude below which the direction of a coefficient fades to 0.
        phase_gradient_limit: upper bound of the gradient of a phase factor, in units of an amplitude's gradient.
        out: contiguous memory that the gradient may be written to.
    """
    shape = x0.shape
    transform, each = _TRANSFORMS[len(shape) - 2], weights is not None and len(weights) > 1
    plan = _plan(shape, least_amplitude, phase_gradient_limit)
    F_0, F_hat = _flat(transform(x0)), _flat(transform(x0_hat))
    back = wants_gradient and plan.mirrors.size > 0
    H = np.ndarray(shape, np.float32, F_0) if back else _NONE  # reuses the memory of F_0
    values, bins = np.empty(shape[0], np.float32), F_0.size
    work = Work(
        F_0, F_hat, H.reshape(-1), _NONE if weights is None else _flat(weights), plan.rows if each else 0,
        wants_gradient, scale, values, np.empty(plan.units, np.float32), *plan,
    )  # fmt: skip
    run(*KERNELS[coupling], work, SCORE, plan.units, bins)
    value = torch.from_numpy(values)
    if not wants_gradient:
        return value, None
    del work, F_0  # frees their memory before the next transform
    if not back:
        half = torch.from_numpy(F_hat.reshape(*shape[:-1], -1))
        return value, torch.fft.irfft(half, n=shape[-1], norm="forward")
    del F_hat
    gradient = torch.from_numpy(H)
    spectrum = _flat(transform(gradient))
    if out is not None:
        gradient, H = out, out.numpy()
    work = Work(_NO_BINS, spectrum, H.reshape(-1), _NONE, 0, True, scale, _NONE, _NONE, *plan)
    run(*KERNELS[coupling], work, BACK, plan.units, bins)
    return value, gradient


def _flat(x: Tensor) -> Array:
    """Return the values of a tensor as a flat array, without a copy if it is contiguous."""
    values: Array = x.contiguous().numpy().reshape(-1)
    return values


_TRANSFORMS: dict[int, Callable[[Tensor], Tensor]] = {
    1: torch.fft.rfft, 2: torch.fft.rfft2, 3: partial(torch.fft.rfftn, dim=(-3, -2, -1))
}  # fmt: skip
"""Half spectra by the number of trailing axes to transform."""


class _Plan(NamedTuple):
    """The fields of `Work` that follow from a shape and the thresholds."""

    counts: Array
    mirrors: Array
    width: int
    bins: int
    length: int
    piece: int
    pieces: int
    units: int
    rows: int
    rows_of_sample: int
    least: Any
    limit: Any


_NONE, _NO_BINS = np.empty(0, np.float32), np.empty(0, np.complex64)


@lru_cache(64)
def _plan(shape: torch.Size, least_amplitude: float, phase_gradient_limit: float) -> _Plan:
    batch, channels, *lines, width = shape
    bins = width // 2 + 1
    plane = math.prod(lines) * bins
    length, piece = (plane, PIECE // bins * bins) if bins <= PIECE else (bins, PIECE)
    piece = min(piece, length)
    rows, pieces = plane // length, -(-length // piece)
    counts: Array = bin_weights(width, dtype=torch.float32, device=torch.device("cpu")).numpy()
    least, limit = np.float32(least_amplitude), np.float32(phase_gradient_limit)
    return _Plan(
        np.tile(counts, -(-piece // bins)), _mirrors(lines), width, bins, length, piece, pieces,
        batch * channels * rows * pieces, rows, rows * channels, least, limit,
    )  # fmt: skip


def _mirrors(size: list[int]) -> Array:
    """Return, for each line along the last axis, the index of the line with the negative frequencies; empty in 1-D."""
    places = np.arange(math.prod(size) if size else 0, dtype=np.uint64).reshape(size or 0)
    found: Array = places[np.ix_(*(-np.arange(n) % n for n in size))].ravel() if size else places
    return found
