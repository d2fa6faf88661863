"""The Fourier losses between their transforms, in one look at both spectra: values, and F̂ turned into its gradient.

The formulas are those of `fourier_l1`, which is the oracle for these. Compiled by Numba on first use. Spectra are
rows of bins; a kernel takes a piece of a row at a time, small enough for the fastest cache.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from specreg._numba import jit, on_threads
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
    width: int,
    least: float,
    limit: float,
    wants_gradient: bool,
) -> Tensor:
    """Σ over the full spectrum, `[b]`; F̂ becomes the gradient on the half spectrum, weights applied, if wanted.

    Args:
        coupling: None, "frequency" or "projection", see `functional`.
        F_0: spectrum of x0, `[b, r, *half]`, complex64, unnormalized.
        F_hat: spectrum of x0_hat, overwritten.
        weights: `[b or 1, *half]`, or None.
        width: size of the last axis of x0.
        least: amplitude below which the direction of a coefficient fades to 0.
        limit: most that the gradient of a phase factor may be, in gradients of an amplitude.
        wants_gradient: whether F_hat is to be overwritten.
    """
    batch, channels, *half = F_0.shape
    plane, bins = math.prod(half), half[-1]
    # Short rows are taken several at a time, so that loops are long.
    length, piece = (plane, PIECE // bins * bins) if bins <= PIECE else (bins, PIECE)
    piece = min(piece, length)
    spectra = tuple(F.contiguous().view(-1, length).numpy() for F in (F_0, F_hat))
    rows = plane // length
    w = _ONES if weights is None else weights.contiguous().view(-1, length).numpy()
    each = rows if weights is not None and len(weights) > 1 else 0  # rows of weights that a sample has to itself
    pieces = -(-length // piece)
    totals = np.empty((batch, channels * rows * pieces), np.float32)
    on_threads(
        _KERNELS[coupling], totals.size, F_0.numel(),
        spectra, (w, weights is not None, _counts(width, piece), (channels * rows, rows, each)), (bins, piece, pieces),
        (np.float32(least), np.float32(limit)), wants_gradient, totals.reshape(-1),
    )  # fmt: skip
    return torch.from_numpy(totals.sum(1))


_ONES = np.ones((1, 1), np.float32)


@lru_cache(64)
def _counts(width: int, piece: int) -> Array:
    """How many bins of the full spectrum each bin stands for: of one row, again and again until a piece is full."""
    counts: Array = bin_weights(width, dtype=torch.float32, device=torch.device("cpu")).numpy()
    return np.tile(counts, -(-piece // len(counts)))


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
def _piece(u: int, spectra: Any, weighting: Any, shape: Any, room: Array) -> Any:
    """Of piece u of the spectra: F, F̂, how much each bin counts, its weights alone; `room` is for what counts."""
    (F_0, F_hat), (weights, weighted, counts, (of_sample, of_plane, each)) = spectra, weighting
    bins, piece, pieces = shape
    row, a = u // pieces, u % pieces * piece
    b = min(F_0.shape[1], a + piece)
    count = counts[a % bins : a % bins + b - a]
    if not weighted:
        return F_0[row, a:b], F_hat[row, a:b], count, count
    w, weighted_count = weights[row // of_sample * each + row % of_plane, a:b], room[: b - a]
    weighted_count[:] = count
    _multiply(weighted_count, w)
    return F_0[row, a:b], F_hat[row, a:b], weighted_count, w


@jit
def _amplitude(
    spectra: Any, weighting: Any, shape: Any, bounds: Any, wants_gradient: bool, totals: Array, start: int, stop: int
) -> None:
    whole, weighted, least = np.empty((6, shape[1]), np.float32), weighting[1], bounds[0]
    for u in range(start, stop):
        f_0, f, count, w = _piece(u, spectra, weighting, shape, whole[4])
        n = count.size
        A, B = whole[0, :n], whole[1, :n]
        _modulus(f_0, A)
        _modulus(f, B)
        total = np.float32(0)
        for k in range(n):
            error = B[k] - A[k]
            total += abs(error) * count[k]
            A[k] = _sign(error) / max(B[k], least)
        totals[u] = total
        if wants_gradient:
            if weighted:
                _multiply(A, w)
            for k in range(n):
                f[k] = complex(f[k].real * A[k], f[k].imag * A[k])


@jit
def _projection(
    spectra: Any, weighting: Any, shape: Any, bounds: Any, wants_gradient: bool, totals: Array, start: int, stop: int
) -> None:
    whole, weighted, least = np.empty((6, shape[1]), np.float32), weighting[1], bounds[0]
    for u in range(start, stop):
        f_0, f, count, w = _piece(u, spectra, weighting, shape, whole[4])
        n = count.size
        A, B, shared, inverse = whole[0, :n], whole[1, :n], whole[2, :n], whole[3, :n]
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
        totals[u] = total
        if wants_gradient:
            for k in range(n):
                A[k] = (A[k] / max(A[k], least) + _sign(B[k] - A[k])) / max(B[k], least)
            if weighted:
                _multiply(A, w)
                _multiply(inverse, w)
            for k in range(n):
                re = f[k].real * A[k] - f_0[k].real * inverse[k]
                f[k] = complex(re, f[k].imag * A[k] - f_0[k].imag * inverse[k])


@jit
def _frequency(
    spectra: Any, weighting: Any, shape: Any, bounds: Any, wants_gradient: bool, totals: Array, start: int, stop: int
) -> None:
    whole, weighted, (least, limit) = np.empty((6, shape[1]), np.float32), weighting[1], bounds
    for u in range(start, stop):
        f_0, f, count, w = _piece(u, spectra, weighting, shape, whole[4])
        n = count.size
        A, inverse, radial, delta = whole[0, :n], whole[1, :n], whole[2, :n], whole[3, :n]
        _modulus(f_0, A)
        _modulus(f, inverse)
        for k in range(n):  # F̂·conj(F)
            radial[k] = f_0[k].real * f[k].real + f_0[k].imag * f[k].imag
            delta[k] = f_0[k].real * f[k].imag - f_0[k].imag * f[k].real
        _angle(delta, radial, whole[5, :n])
        for k in range(n):
            A[k] = inverse[k] - A[k]  # now the error
            inverse[k] = np.float32(1) / max(inverse[k], least)
        total = np.float32(0)
        for k in range(n):
            total += abs(A[k]) * (np.float32(1) + abs(delta[k])) * count[k]
        totals[u] = total
        if wants_gradient:
            for k in range(n):
                radial[k] = _sign(A[k]) * (np.float32(1) + abs(delta[k])) * inverse[k]
            for k in range(n):
                delta[k] = _sign(delta[k]) * min(abs(A[k]) * inverse[k], limit) * inverse[k]
            if weighted:
                _multiply(radial, w)
                _multiply(delta, w)
            for k in range(n):
                re, im = f[k].real, f[k].imag
                f[k] = complex(re * radial[k] - im * delta[k], re * delta[k] + im * radial[k])


_KERNELS: dict[str | None, Callable[..., None]] = {
    None: _amplitude,
    "projection": _projection,
    "frequency": _frequency,
}
