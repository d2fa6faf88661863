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

from specreg.losses.compiled import jit, on_threads
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
HALF_PI, PI = np.float32(math.pi / 2), np.float32(math.pi)


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
        *spectra, w, weights is not None, (channels * rows, rows, each), _counts(width, piece), bins, piece, pieces,
        np.float32(least), np.float32(limit), wants_gradient, totals.reshape(-1),
    )  # fmt: skip
    return torch.from_numpy(totals.sum(1))


_ONES = np.ones((1, 1), np.float32)


@lru_cache(64)
def _counts(width: int, piece: int) -> Array:
    """How many bins of the full spectrum each bin stands for: of one row, again and again until a piece is full."""
    with torch.inference_mode(False):
        counts: Array = bin_weights(width, dtype=torch.float32).numpy()
    return np.tile(counts, -(-piece // len(counts)))


@jit
def _modulus(F: Array, out: Array) -> None:
    for k in range(out.size):
        re, im = F[k].real, F[k].imag
        out[k] = math.sqrt(re * re + im * im)


@jit
def _sign(x: Any) -> Any:
    return np.float32(np.int32(x > 0) - np.int32(x < 0))


@jit
def _angle(y: Any, x: Any) -> Any:
    """atan2(y, x) in float32; 0 at (0, 0)."""
    a, b = abs(x), abs(y)
    t = min(a, b) / max(max(a, b), np.float32(1e-38))
    s = t * t
    p = ATAN[8]
    p = p * s + ATAN[7]
    p = p * s + ATAN[6]
    p = p * s + ATAN[5]
    p = p * s + ATAN[4]
    p = p * s + ATAN[3]
    p = p * s + ATAN[2]
    p = p * s + ATAN[1]
    p = p * s + ATAN[0]
    p *= t
    p = HALF_PI - p if b > a else p
    p = PI - p if x < 0 else p
    return math.copysign(p, y)


@jit
def _place(u: int, bins: int, length: int, piece: int, pieces: int, rows: Any) -> Any:
    """Of unit u of work: its row, where in the row it begins and ends, its row of weights, its place in counts."""
    row, k = u // pieces, (u % pieces) * piece
    of_sample, of_plane, each = rows
    return row, k, min(length, k + piece), row // of_sample * each + row % of_plane, k % bins


@jit
def _scale(F: Array, radial: Array) -> None:
    for k in range(radial.size):
        F[k] = complex(F[k].real * radial[k], F[k].imag * radial[k])


@jit
def _amplitude(
    F_0: Array, F_hat: Array, weights: Array, weighted: bool, rows: Any, counts: Array, bins: int, piece: int,
    pieces: int, least: Any, limit: Any, wants_gradient: bool, totals: Array, start: int, stop: int,
) -> None:  # fmt: skip
    A_0, A_hat = np.empty(piece, np.float32), np.empty(piece, np.float32)
    for u in range(start, stop):
        row, a, b, of_weights, c = _place(u, bins, F_0.shape[1], piece, pieces, rows)
        n = b - a
        A, B = A_0[:n], A_hat[:n]
        f = F_hat[row, a:b]
        _modulus(F_0[row, a:b], A)
        _modulus(f, B)
        count = counts[c : c + n]
        total = np.float32(0)
        if weighted:
            w = weights[of_weights, a:b]
            for k in range(n):
                error = B[k] - A[k]
                total += abs(error) * count[k] * w[k]
                A[k] = w[k] * _sign(error) / max(B[k], least)
        else:
            for k in range(n):
                error = B[k] - A[k]
                total += abs(error) * count[k]
                A[k] = _sign(error) / max(B[k], least)
        totals[u] = total
        if wants_gradient:
            _scale(f, A)


@jit
def _projection(
    F_0: Array, F_hat: Array, weights: Array, weighted: bool, rows: Any, counts: Array, bins: int, piece: int,
    pieces: int, least: Any, limit: Any, wants_gradient: bool, totals: Array, start: int, stop: int,
) -> None:  # fmt: skip
    A_0, A_hat, ones = np.empty(piece, np.float32), np.empty(piece, np.float32), np.ones(piece, np.float32)
    for u in range(start, stop):
        row, a, b, of_weights, c = _place(u, bins, F_0.shape[1], piece, pieces, rows)
        n = b - a
        A, B = A_0[:n], A_hat[:n]
        f_0, f = F_0[row, a:b], F_hat[row, a:b]
        _modulus(f_0, A)
        _modulus(f, B)
        count = counts[c : c + n]
        w = weights[of_weights, a:b] if weighted else ones[:n]
        total = np.float32(0)
        for k in range(n):
            error = B[k] - A[k]
            inverse = np.float32(1) / max(A[k], least)
            present = A[k] * inverse  # 1, but 0 where x0 has no coefficient and so no phase to agree with
            re, im = f_0[k].real * inverse, f_0[k].imag * inverse
            re_hat, im_hat = f[k].real, f[k].imag
            turned = max(B[k] * present - (re_hat * re + im_hat * im), np.float32(0))  # rounding
            total += (turned + abs(error)) * count[k] * w[k]
            radial = (present + _sign(error)) / max(B[k], least)
            if wants_gradient:
                f[k] = complex((re_hat * radial - re) * w[k], (im_hat * radial - im) * w[k])
        totals[u] = total


@jit
def _frequency(
    F_0: Array, F_hat: Array, weights: Array, weighted: bool, rows: Any, counts: Array, bins: int, piece: int,
    pieces: int, least: Any, limit: Any, wants_gradient: bool, totals: Array, start: int, stop: int,
) -> None:  # fmt: skip
    A_0, A_hat, angle = np.empty(piece, np.float32), np.empty(piece, np.float32), np.empty(piece, np.float32)
    ones = np.ones(piece, np.float32)
    for u in range(start, stop):
        row, a, b, of_weights, c = _place(u, bins, F_0.shape[1], piece, pieces, rows)
        n = b - a
        A, B, delta = A_0[:n], A_hat[:n], angle[:n]
        f_0, f = F_0[row, a:b], F_hat[row, a:b]
        _modulus(f_0, A)
        _modulus(f, B)
        for k in range(n):
            re, im = f_0[k].real, f_0[k].imag
            re_hat, im_hat = f[k].real, f[k].imag
            delta[k] = _angle(re * im_hat - im * re_hat, re * re_hat + im * im_hat)
        count = counts[c : c + n]
        w = weights[of_weights, a:b] if weighted else ones[:n]
        total = np.float32(0)
        for k in range(n):
            error = B[k] - A[k]
            factor = np.float32(1) + abs(delta[k])
            total += abs(error) * factor * count[k] * w[k]
            inverse = w[k] / max(B[k], least)
            A[k] = _sign(error) * factor * inverse
            slope = min(abs(error) / max(B[k], least), limit)
            delta[k] = _sign(delta[k]) * slope * inverse
        totals[u] = total
        if wants_gradient:
            for k in range(n):
                re, im = f[k].real, f[k].imag
                f[k] = complex(re * A[k] - im * delta[k], re * delta[k] + im * A[k])


_KERNELS: dict[str | None, Callable[..., None]] = {
    None: _amplitude,
    "projection": _projection,
    "frequency": _frequency,
}
