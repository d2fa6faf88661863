"""Numba loops of the Fourier losses between the transforms: values, gradients with respect to F̂, and Hartley's sums.

The formulas are those of `losses.fourier_l1`, against which they are tested. A spectrum has rows of bins; a loop
works on one piece of a row at a time, small enough for the fastest cache. All loops are in one file because Numba
invalidates its cache by the file of the called function alone. `fourier` calls them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numba import prange

from specreg.losses.kernels.runtime import jit, parallel

Array = np.ndarray[Any, Any]

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
"""atan(t)/t as a polynomial in t² on [0, 1], a minimax fit with a relative error of 1.5e-8."""
HALF_PI, PI, TINY = np.float32(math.pi / 2), np.float32(math.pi), np.finfo(np.float32).tiny


class Work(NamedTuple):
    """Arguments of the kernels: flat arrays in the order of memory, and numbers."""

    F_0: Array  # spectrum of x0; empty where only `_cas` runs
    F_hat: Array  # spectrum of x0_hat; step 0 overwrites it with the gradient
    H: Array  # float32, output of `_cas`, possibly in the memory of F_0; empty where `_cas` does not run
    weights: Array  # weights by frequency; empty where there are none
    rows_of_weights: int  # rows of weights per sample, 0 where all samples share them
    wants_gradient: bool
    scale: float  # factor of the values, not of the gradient
    values: Array  # [b], output; empty where they are not wanted
    totals: Array  # [units], the sum of each unit
    counts: Array  # number of full-spectrum bins that each bin of a piece stands for
    mirrors: Array  # for each line along the last axis, the line with the negative frequencies
    width: int  # size of the last axis of a signal
    bins: int  # size of the last axis of a half spectrum
    length: int  # bins per row; a row joins several short lines, so that loops are long
    piece: int  # bins per piece
    pieces: int  # pieces per row
    units: int  # pieces of all rows
    rows: int  # rows per channel
    rows_of_sample: int
    least: Any  # amplitude below which the direction of a coefficient fades to 0
    limit: Any  # upper bound of the gradient of a phase factor, relative to that of an amplitude


# Many small loops: LLVM does not vectorize a loop over more than a few arrays that might overlap.


@jit
def _modulus(F: Array, out: Array) -> None:
    for k in range(out.size):
        re, im = F[k].real, F[k].imag
        out[k] = math.sqrt(re * re + im * im)


@jit
def _product(x: Array, y: Array, out: Array) -> None:
    for k in range(out.size):
        out[k] = x[k] * y[k]


@jit
def _multiply(x: Array, by: Array) -> None:
    for k in range(x.size):
        x[k] *= by[k]


@jit
def _sign(x: Any) -> Any:
    return np.float32(np.int32(x > 0) - np.int32(x < 0))


@jit
def _angle(y: Array, x: Array, t: Array) -> None:
    """Overwrite y with atan2(y, x), which is 0 at (0, 0) and fades to 0 below 1e-38; `t` is scratch memory."""
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
    """Return F, F̂, count times weight, and weight of each bin of piece u; `room` is scratch memory for the product."""
    row, a = u // work.pieces, u % work.pieces * work.piece
    n = min(work.length - a, work.piece)
    first = row * work.length + a
    count = work.counts[a % work.bins : a % work.bins + n]
    if not work.weights.size:
        return work.F_0[first : first + n], work.F_hat[first : first + n], count, count
    first_weight = (row // work.rows_of_sample * work.rows_of_weights + row % work.rows) * work.length + a
    w, weighted_count = work.weights[first_weight : first_weight + n], room[:n]
    _product(count, w, weighted_count)
    return work.F_0[first : first + n], work.F_hat[first : first + n], weighted_count, w


@jit
def _cas(F: Array, out: Array, mirrors: Array, width: Any, share: int, shares: int) -> None:
    """Write Re F − Im F on the full spectrum (see `fourier`) to `out`, for one share of the lines."""
    # Unsigned indices: a signed index might count from the end, which keeps LLVM from vectorizing the loop.
    all_lines = F.size // (width // 2 + 1)
    start, stop = all_lines * share // shares, all_lines * (share + 1) // shares
    lines, one = np.uint64(mirrors.size), np.uint64(1)
    width, bins = np.uint64(width), np.uint64(width // 2 + 1)
    for u in range(np.uint64(start), np.uint64(stop)):
        other = u // lines * lines + mirrors[u % lines]
        here, half, there, other_half = u * width, u * bins, other * width, other * bins
        for k in range(bins):
            out[here + k] = F[half + k].real - F[half + k].imag
        for k in range(one, one + width - bins):
            out[there + (width - k)] = F[half + k].real + F[half + k].imag
        # Frequency 0 and Nyquist hold both bins of a conjugate pair: take their symmetric part, as irfftn does.
        for k in range(0, bins, max(one, width // 2)):
            if 2 * k % width == 0:
                a, b = F[half + k], F[other_half + k]
                out[here + k] = np.float32(0.5) * ((a.real + b.real) - (a.imag - b.imag))


@jit
def _finish(work: Any, share: int, shares: int) -> None:
    """Compute the values, and `_cas` of the gradient in F̂, where wanted."""
    if share == 0 and work.values.size:
        of_sample = work.units // work.values.size
        for b in range(work.values.size):
            total = 0.0
            for u in range(b * of_sample, (b + 1) * of_sample):
                total += work.totals[u]
            work.values[b] = total * work.scale
    if work.H.size:
        _cas(work.F_hat, work.H, work.mirrors, work.width, share, shares)


@jit
def _amplitude(work: Any, step: int, share: Any, shares: int) -> None:
    if step:
        _finish(work, share, shares)
        return
    room, least = np.empty((2, work.piece), np.float32), work.least
    for u in range(work.units * share // shares, work.units * (share + 1) // shares):
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
            if work.weights.size:
                _multiply(factor, w)
            for k in range(count.size):
                f[k] = complex(f[k].real * factor[k], f[k].imag * factor[k])


@jit
def _projection(work: Any, step: int, share: Any, shares: int) -> None:
    if step:
        _finish(work, share, shares)
        return
    room, least = np.empty((5, work.piece), np.float32), work.least
    for u in range(work.units * share // shares, work.units * (share + 1) // shares):
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
            # The factor A·inverse is 1, or 0 where x0 has no coefficient and so no phase; values below 0 are rounding.
            apart = max((B[k] * A[k] - shared[k]) * inverse[k], np.float32(0))
            total += (apart + abs(B[k] - A[k])) * count[k]
        work.totals[u] = total
        if work.wants_gradient:
            for k in range(n):
                A[k] = (A[k] / max(A[k], least) + _sign(B[k] - A[k])) / max(B[k], least)
            if work.weights.size:
                _multiply(A, w)
                _multiply(inverse, w)
            for k in range(n):
                re = f[k].real * A[k] - f_0[k].real * inverse[k]
                f[k] = complex(re, f[k].imag * A[k] - f_0[k].imag * inverse[k])


@jit
def _frequency(work: Any, step: int, share: Any, shares: int) -> None:
    if step:
        _finish(work, share, shares)
        return
    room, least, limit = np.empty((6, work.piece), np.float32), work.least, work.limit
    for u in range(work.units * share // shares, work.units * (share + 1) // shares):
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
            if work.weights.size:
                _multiply(radial, w)
                _multiply(delta, w)
            for k in range(n):
                re, im = f[k].real, f[k].imag
                f[k] = complex(re * radial[k] - im * delta[k], re * delta[k] + im * radial[k])


# One function per kernel, because Numba does not cache functions that take a function as an argument. The index of
# prange is unsigned; int64 keeps the kernel from being compiled a second time for it.


@parallel
def _amplitude_on_threads(work: Any, first: int, last: int, shares: int) -> None:
    """Run steps `first` to `last` − 1."""
    for step in range(first, last):
        for t in prange(shares):
            _amplitude(work, step, np.int64(t), shares)


@parallel
def _projection_on_threads(work: Any, first: int, last: int, shares: int) -> None:
    """Run steps `first` to `last` − 1."""
    for step in range(first, last):
        for t in prange(shares):
            _projection(work, step, np.int64(t), shares)


@parallel
def _frequency_on_threads(work: Any, first: int, last: int, shares: int) -> None:
    """Run steps `first` to `last` − 1."""
    for step in range(first, last):
        for t in prange(shares):
            _frequency(work, step, np.int64(t), shares)


KERNELS: dict[str | None, tuple[Callable[..., None], Callable[..., None]]] = {
    None: (_amplitude, _amplitude_on_threads),
    "projection": (_projection, _projection_on_threads),
    "frequency": (_frequency, _frequency_on_threads),
}
"""Kernels by coupling, for `runtime.run`. Step 0 scores both spectra, step 1 computes the values and `_cas`."""
SCORE, BACK = (0, 2), (1, 2)
"""Steps that score the spectra and prepare the transform back, and steps that finish it."""
