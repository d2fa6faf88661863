"""The Fourier losses between their transforms, in one look at both spectra: values, and F̂ turned into its gradient.

The formulas are those of `fourier_l1`, which is the oracle for these. Compiled by Numba on first use. Spectra are
rows of bins; a kernel takes a piece of a row at a time, small enough for the fastest cache.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from numba import prange
from torch import Tensor

from specreg._numba import jit, parallel, run
from specreg.transforms.fourier import bin_weights

Array = np.ndarray[Any, Any]

PIECE = 1024
ATAN = tuple(
    np.float32(c)
    for c in (
        1.0,
        -0.33333072,
        0.19992620,
        -0.14203644,
        0.10640933,
        -0.07504294,
        0.04269151,
        -0.01606862,
        0.00284989,
    )
)
"""atan(t)/t as a polynomial in t² on [0, 1]: least largest relative error, 1.5e-8, by reweighted least squares."""
HALF_PI, PI, TINY = np.float32(math.pi / 2), np.float32(math.pi), np.finfo(np.float32).tiny


def evaluate(
    coupling: str | None,
    F_0: Tensor,
    F_hat: Tensor,
    weights: Tensor | None,
    shape: torch.Size,
    limits: tuple[float, float],
    wants_gradient: bool,
) -> Tensor:
    """Σ over the full spectrum, `[b]`; F̂ becomes the gradient on the half spectrum, weights applied, if wanted.

    Args:
        coupling: None, "frequency" or "projection", see `functional`.
        F_0: spectrum of x0, `[b, r, *half]`, contiguous complex64, unnormalized.
        F_hat: spectrum of x0_hat, the same, overwritten.
        weights: `[b or 1, *half]`, or None.
        shape: of x0, `[b, r, *space]`.
        limits: amplitude below which the direction of a coefficient fades to 0, and the most that the gradient of a
            phase factor may be, in gradients of an amplitude.
        wants_gradient: whether F_hat is to be overwritten.
    """
    each = weights is not None and len(weights) > 1
    plan = _plan(shape, limits)
    work = _Work(
        F_0.numpy().reshape(-1), F_hat.numpy().reshape(-1),
        _ONES if weights is None else weights.contiguous().numpy().reshape(-1), weights is not None,
        plan.rows if each else 0, wants_gradient, np.empty(plan.units, np.float32), *plan[:-1],
    )  # fmt: skip
    run(*_KERNELS[coupling], plan.units, F_0.numel(), work)
    return torch.from_numpy(np.add.reduce(work.totals.reshape(len(F_0), -1), axis=1))


class _Plan(NamedTuple):
    """How spectra of one shape are gone through: as rows, a piece of a row at a time."""

    counts: Array  # how many bins of the full spectrum each bin of a piece stands for
    bins: int  # of the last axis
    length: int  # bins of a row: short lines are taken several at a time, so that loops are long
    piece: int  # bins taken at a time
    pieces: int  # of a row
    rows: int  # of a channel
    rows_of_sample: int
    least: Any
    limit: Any
    units: int  # pieces of all rows; the last, and not for kernels


@lru_cache(64)
def _plan(shape: torch.Size, limits: tuple[float, float]) -> _Plan:
    batch, channels, *lines, width = shape
    bins = width // 2 + 1
    plane = math.prod(lines) * bins
    length, piece = (plane, PIECE // bins * bins) if bins <= PIECE else (bins, PIECE)
    piece = min(piece, length)
    rows, pieces = plane // length, -(-length // piece)
    counts: Array = bin_weights(width, dtype=torch.float32, device=torch.device("cpu")).numpy()
    units = batch * channels * rows * pieces
    least, limit = map(np.float32, limits)
    return _Plan(
        np.tile(counts, -(-piece // bins)), bins, length, piece, pieces, rows, rows * channels, least, limit, units
    )


class _Work(NamedTuple):
    """What a kernel is to do: arrays in memory's order, and the fields of the plan."""

    F_0: Array
    F_hat: Array
    weights: Array
    weighted: bool
    rows_of_weights: int  # that a sample has to itself
    wants_gradient: bool
    totals: Array  # [units]
    counts: Array
    bins: int
    length: int
    piece: int
    pieces: int
    rows: int
    rows_of_sample: int
    least: Any
    limit: Any


_ONES = np.ones(1, np.float32)


# The loops of these are many and small: LLVM gives up on vectors where more than a few arrays could overlap.


@jit
def _modulus(F: Array, out: Array) -> None:
    for k in range(out.size):
        re, im = F[k].real, F[k].imag
        out[k] = math.sqrt(re * re + im * im)


@jit
def _multiply(x: Array, by: Array) -> None:
    for k in range(x.size):
        x[k] *= by[k]


@jit
def _sign(x: Any) -> Any:
    return np.float32(np.int32(x > 0) - np.int32(x < 0))


@jit
def _angle(y: Array, x: Array, t: Array) -> None:
    """Turn y into atan2(y, x), which is 0 at (0, 0) and fades to it below 1e-38. `t` is for work."""
    for k in range(t.size):
        a, b = abs(x[k]), abs(y[k])
        t[k] = min(a, b) / max(max(a, b), TINY)
    for k in range(t.size):
        s = t[k] * t[k]
        p = ATAN[8]
        p = p * s + ATAN[7]
        p = p * s + ATAN[6]
        p = p * s + ATAN[5]
        p = p * s + ATAN[4]
        p = p * s + ATAN[3]
        p = p * s + ATAN[2]
        p = p * s + ATAN[1]
        p = p * s + ATAN[0]
        t[k] *= p
    for k in range(t.size):
        p = HALF_PI - t[k] if abs(y[k]) > abs(x[k]) else t[k]
        p = PI - p if x[k] < 0 else p
        y[k] = math.copysign(p, y[k])


@jit
def _piece(u: int, work: Any, room: Array) -> Any:
    """Of piece u of the spectra: F, F̂, how much each bin counts, its weights alone; `room` is for what counts."""
    row, a = u // work.pieces, u % work.pieces * work.piece
    n = min(work.length - a, work.piece)
    first = row * work.length + a
    count = work.counts[a % work.bins : a % work.bins + n]
    if not work.weighted:
        return work.F_0[first : first + n], work.F_hat[first : first + n], count, count
    first_weight = (row // work.rows_of_sample * work.rows_of_weights + row % work.rows) * work.length + a
    w, weighted_count = work.weights[first_weight : first_weight + n], room[:n]
    weighted_count[:] = count
    _multiply(weighted_count, w)
    return work.F_0[first : first + n], work.F_hat[first : first + n], weighted_count, w


@jit
def _amplitude(work: Any, start: int, stop: int) -> None:
    room, least = np.empty((2, work.piece), np.float32), work.least
    for u in range(start, stop):
        f_0, f, count, w = _piece(u, work, room[0])
        factor = room[1, : count.size]
        total = np.float32(0)
        for k in range(count.size):
            A = math.sqrt(f_0[k].real * f_0[k].real + f_0[k].imag * f_0[k].imag)
            A_hat = math.sqrt(f[k].real * f[k].real + f[k].imag * f[k].imag)
            total += abs(A_hat - A) * count[k]
            factor[k] = _sign(A_hat - A) / max(A_hat, least)
        work.totals[u] = total
        if work.wants_gradient:
            if work.weighted:
                _multiply(factor, w)
            for k in range(count.size):
                f[k] = complex(f[k].real * factor[k], f[k].imag * factor[k])


@jit
def _projection(work: Any, start: int, stop: int) -> None:
    room, least = np.empty((5, work.piece), np.float32), work.least
    for u in range(start, stop):
        f_0, f, count, w = _piece(u, work, room[4])
        n = count.size
        A, B, shared, inverse = room[0, :n], room[1, :n], room[2, :n], room[3, :n]
        _modulus(f_0, A)
        _modulus(f, B)
        for k in range(n):
            shared[k] = f[k].real * f_0[k].real + f[k].imag * f_0[k].imag
        for k in range(n):
            inverse[k] = np.float32(1) / max(A[k], least)
        total = np.float32(0)
        for k in range(n):
            # A/A is 1, but 0 where x0 has no coefficient and so no phase to agree with; below 0 is rounding.
            apart = max((B[k] * A[k] - shared[k]) * inverse[k], np.float32(0))
            total += (apart + abs(B[k] - A[k])) * count[k]
        work.totals[u] = total
        if work.wants_gradient:
            for k in range(n):
                A[k] = (A[k] / max(A[k], least) + _sign(B[k] - A[k])) / max(B[k], least)
            if work.weighted:
                _multiply(A, w)
                _multiply(inverse, w)
            for k in range(n):
                re = f[k].real * A[k] - f_0[k].real * inverse[k]
                f[k] = complex(re, f[k].imag * A[k] - f_0[k].imag * inverse[k])


@jit
def _frequency(work: Any, start: int, stop: int) -> None:
    room, least, limit = np.empty((6, work.piece), np.float32), work.least, work.limit
    for u in range(start, stop):
        f_0, f, count, w = _piece(u, work, room[4])
        n = count.size
        A, inverse, radial, delta = room[0, :n], room[1, :n], room[2, :n], room[3, :n]
        _modulus(f_0, A)
        _modulus(f, inverse)
        for k in range(n):  # F̂·conj(F)
            radial[k] = f_0[k].real * f[k].real + f_0[k].imag * f[k].imag
            delta[k] = f_0[k].real * f[k].imag - f_0[k].imag * f[k].real
        _angle(delta, radial, room[5, :n])
        for k in range(n):
            A[k] = inverse[k] - A[k]  # now the error
            inverse[k] = np.float32(1) / max(inverse[k], least)
        total = np.float32(0)
        for k in range(n):
            total += abs(A[k]) * (np.float32(1) + abs(delta[k])) * count[k]
        work.totals[u] = total
        if work.wants_gradient:
            for k in range(n):
                radial[k] = _sign(A[k]) * (np.float32(1) + abs(delta[k])) * inverse[k]
            for k in range(n):
                delta[k] = _sign(delta[k]) * min(abs(A[k]) * inverse[k], limit) * inverse[k]
            if work.weighted:
                _multiply(radial, w)
                _multiply(delta, w)
            for k in range(n):
                re, im = f[k].real, f[k].imag
                f[k] = complex(re * radial[k] - im * delta[k], re * delta[k] + im * radial[k])


# Numba keeps no machine code of a function that is given a kernel as an argument: one for each.


@parallel
def _amplitude_on_threads(work: Any, units: int, shares: int) -> None:
    for t in prange(shares):
        _amplitude(work, units * t // shares, units * (t + 1) // shares)


@parallel
def _projection_on_threads(work: Any, units: int, shares: int) -> None:
    for t in prange(shares):
        _projection(work, units * t // shares, units * (t + 1) // shares)


@parallel
def _frequency_on_threads(work: Any, units: int, shares: int) -> None:
    for t in prange(shares):
        _frequency(work, units * t // shares, units * (t + 1) // shares)


_KERNELS: dict[str | None, tuple[Callable[..., None], Callable[..., None]]] = {
    None: (_amplitude, _amplitude_on_threads),
    "projection": (_projection, _projection_on_threads),
    "frequency": (_frequency, _frequency_on_threads),
}
