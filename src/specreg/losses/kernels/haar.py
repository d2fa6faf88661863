"""Value and gradient of the Haar loss in one pass over x0_hat and x0.

The kernel applies the lifting of `transforms.wavelet_stages.Cells`, against which it is tested, to a few lines of
memory at a time: those of one cell of 2^levels samples per side, or a piece of them that fits into the cache. Within a
line the means come first and the differences after them, level by level; of two neighbouring lines the second becomes
the difference, in place. A sample without a neighbour is its own mean and has no difference.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from numba import prange
from torch import Tensor

from specreg.losses.kernels.runtime import jit, parallel, run
from specreg.transforms.wavelet_stages import Cells

Array = np.ndarray[Any, Any]

BUFFER = 2**13
"""Number of values in a piece of lines, unless a single cell has more."""


def evaluate(
    x0_hat: Tensor,
    x0: Tensor,
    weights: Tensor | None,
    *,
    levels: int,
    ndim: int,
    gammas: tuple[float, ...],
    wants_gradient: bool,
) -> tuple[Tensor, Tensor | None]:
    """Return Σ γ·weight·|W[x0_hat − x0]| of each sample, and its gradient.

    Args:
        x0_hat: `[b, r, *space]`, float32.
        x0: the same.
        weights: weights by band, `[b or 1, bands]`, or None.
        levels: number of levels.
        ndim: number of transformed axes.
        gammas: γ of each band, in the order of `Stage.factors`.
        wants_gradient: whether to compute the gradient.

    Returns:
        Sums `[b]`, and the gradient in the shape of x0_hat.
    """
    space = x0.shape[-ndim:]
    depth, height, width = (1,) * (3 - ndim) + tuple(space)
    deep, high = (min(2**levels, size) for size in (depth, height))  # lines of a cell
    strips = len(x0[0]) * -(-depth // deep) * -(-height // high)  # per sample
    piece = min(width, max(1, BUFFER // (deep * high) >> levels) << levels)
    even = (depth % deep, height % high, width % 2**levels) == (0, 0, 0)
    together = max(1, min(strips, BUFFER // (deep * high * width))) if even else 1
    units = -(-strips // together) * -(-width // piece)
    x, y = (z.detach().contiguous().view(-1, width).numpy() for z in (x0_hat, x0))
    gradient = torch.empty_like(x0, memory_format=torch.contiguous_format) if wants_gradient else None
    out = _NONE if gradient is None else gradient.view(-1, width).numpy()
    pulls = _pulls(gammas, levels, ndim, deep, high)
    if weights is not None:
        pulls = np.ascontiguousarray(weights.numpy()[:, _bands(levels, ndim, deep, high)] * pulls)
    totals = np.empty(len(x0) * units, np.float32)
    work = _Work(x, y, out, pulls, levels, depth, height, deep, high, piece, strips, together, units, totals)
    run(_lift, _lift_on_threads, work, (0, 1), totals.size, x0.numel())
    return torch.from_numpy(np.add.reduce(totals.reshape(-1, units), axis=1)), gradient


class _Work(NamedTuple):
    """Arguments of the kernel. A unit of work is a piece of the width of one strip or of several strips."""

    x: Array  # [lines, width]
    y: Array
    out: Array  # [lines, width], the gradient; empty where none is wanted
    pulls: Array  # [b or 1, lines of a cell, levels + 1]
    levels: int
    depth: int
    height: int
    deep: int  # lines of a cell along the depth
    high: int  # lines of a cell along the height
    piece: int  # values of a line taken at a time
    strips: int  # per sample; a strip holds the lines of one row of cells
    together: int  # strips per unit
    units: int  # per sample
    totals: Array  # [units of all samples], the sum of each unit


_NONE = np.empty((0, 0), np.float32)


@lru_cache(256)
def _pulls(gammas: tuple[float, ...], levels: int, ndim: int, deep: int, high: int) -> Array:
    """Return γ times the factor between a lifted and a PyWavelets coefficient, `[1, lines, levels + 1]`."""
    factors = Cells("haar", "periodization", (2**levels,) * ndim, levels).factors
    pulls: Array = np.multiply(factors, gammas).astype(np.float32)
    return pulls[None, _bands(levels, ndim, deep, high)]


@lru_cache(32)
def _bands(levels: int, ndim: int, deep: int, high: int) -> Array:
    """Return the band at each place of a cell, `[lines, levels + 1]`: differences from the finest on, then means."""
    # The level at which a line, or a place along it, became a difference; `levels` where it stayed a mean.
    made = [np.array([levels, *((j & -j).bit_length() - 1 for j in range(1, lines))]) for lines in (deep, high)]
    by_axis = np.broadcast_arrays(*np.ix_(*made, np.arange(levels + 1)))[-ndim:]
    level, kinds = np.minimum.reduce(by_axis), 2**ndim - 1
    kind = sum((made_at == level) << (ndim - 1 - axis) for axis, made_at in enumerate(by_axis))
    found: Array = np.where(level == levels, levels * kinds, level * kinds + kind - 1)
    return found.reshape(-1, levels + 1)


@jit
def _load(x: Array, y: Array, row: Any, at: Any, pairs: Any, odd: Any, line: Array, low: Any, high: Any) -> None:
    """Write means and differences of neighbours in x − y, starting at `at`, to positions `low` and `high` of a line."""
    # Unsigned indices: a signed index might count from the end, which keeps LLVM from vectorizing the loop.
    half, one, two = np.float32(0.5), np.uint64(1), np.uint64(2)
    for i in range(pairs):
        k = at + two * i
        even = x[row, k] - y[row, k]
        difference = (x[row, k + one] - y[row, k + one]) - even
        line[high + i] = difference
        line[low + i] = even + half * difference
    if odd:
        k = at + two * pairs
        line[low + pairs] = x[row, k] - y[row, k]


@jit
def _store(line: Array, low: Any, high: Any, out: Array, row: Any, at: Any, pairs: Any, odd: Any) -> None:
    """Apply the transpose of `_load`."""
    half, one, two = np.float32(0.5), np.uint64(1), np.uint64(2)
    for i in range(pairs):
        k = at + two * i
        second = line[high + i] + half * line[low + i]
        out[row, k + one] = second
        out[row, k] = line[low + i] - second
    if odd:
        out[row, at + two * pairs] = line[low + pairs]


@jit
def _copy(x: Array, out: Array) -> None:
    """Copy x to out. Numba takes seconds to compile the size check of a slice assignment."""
    for i in range(x.size):
        out[i] = x[i]


@jit
def _split(x: Array, low: Array, high: Array) -> None:
    """Write means and differences of neighbours in x to `low` and `high`."""
    half, n = np.float32(0.5), high.size
    for i in range(n):
        even = x[2 * i]
        difference = x[2 * i + 1] - even
        high[i] = difference
        low[i] = even + half * difference
    if low.size > n:
        low[n] = x[2 * n]


@jit
def _split_transpose(low: Array, high: Array, x: Array) -> None:
    half, n = np.float32(0.5), high.size
    for i in range(n):
        odd = high[i] + half * low[i]
        x[2 * i + 1] = odd
        x[2 * i] = low[i] - odd
    if low.size > n:
        x[2 * n] = low[n]


@jit
def _lift_line(x: Array, y: Array) -> None:
    """Replace two lines by their mean and their difference."""
    half = np.float32(0.5)
    for i in range(x.size):
        difference = y[i] - x[i]
        y[i] = difference
        x[i] += half * difference


@jit
def _lift_line_transpose(x: Array, y: Array) -> None:
    half = np.float32(0.5)
    for i in range(x.size):
        odd = y[i] + half * x[i]
        y[i] = odd
        x[i] -= odd


@jit
def _score(x: Array, weight: Any) -> Any:
    """Return weight · Σ|x|, and overwrite x with its gradient."""
    total = np.float32(0)
    for i in range(x.size):
        total += abs(x[i])
        x[i] = weight * np.float32(np.int32(x[i] > 0) - np.int32(x[i] < 0))
    return weight * total


@jit
def _transform(lines: Array, copy: Array, sizes: Array, levels: int, ni: int, nj: int) -> None:
    """Transform the first ni × nj lines, on which `_load` did the first step; `sizes` holds their lengths by level."""
    for level in range(levels):
        step, n, m = 1 << level, sizes[level], sizes[level + 1]
        if level:
            for i in range(0, ni, step):
                for j in range(0, nj, step):
                    _copy(lines[i, j, :n], copy)
                    _split(copy[:n], lines[i, j, :m], lines[i, j, m:n])
        for i in range(0, ni, step):
            for j in range(0, nj - step, 2 * step):
                _lift_line(lines[i, j, :n], lines[i, j + step, :n])
        for i in range(0, ni - step, 2 * step):
            for j in range(0, nj, step):
                _lift_line(lines[i, j, :n], lines[i + step, j, :n])


@jit
def _transform_transpose(lines: Array, copy: Array, sizes: Array, levels: int, ni: int, nj: int) -> None:
    for level in range(levels - 1, -1, -1):
        step, n, m = 1 << level, sizes[level], sizes[level + 1]
        for i in range(0, ni - step, 2 * step):
            for j in range(0, nj, step):
                _lift_line_transpose(lines[i, j, :n], lines[i + step, j, :n])
        for i in range(0, ni, step):
            for j in range(0, nj - step, 2 * step):
                _lift_line_transpose(lines[i, j, :n], lines[i, j + step, :n])
        if level:
            for i in range(0, ni, step):
                for j in range(0, nj, step):
                    _copy(lines[i, j, :n], copy)
                    _split_transpose(copy[:m], copy[m:n], lines[i, j, :n])


@jit
def _score_lines(lines: Array, pull: Array, sizes: Array, levels: int, ni: int, nj: int) -> Any:
    """Return Σ pull·|coefficient|, and overwrite the coefficients with its gradient."""
    total = 0.0
    for i in range(ni):
        for j in range(nj):
            place, level = i * lines.shape[1] + j, 0
            while level < levels:
                total += _score(lines[i, j, sizes[level + 1] : sizes[level]], pull[place, level])
                level += 1
                if (i | j) >> (level - 1) & 1:  # a line of differences ends at this level
                    break
            total += _score(lines[i, j, : sizes[level]], pull[place, level])
    return total


@jit
def _lift(work: Any, step: int, share: Any, shares: int) -> None:
    x, y, out, levels, piece, width = work.x, work.y, work.out, work.levels, work.piece, work.x.shape[1]
    depth, height, deep, high = work.depth, work.height, work.deep, work.high
    strips, together, units, all_units = work.strips, work.together, work.units, work.totals.size
    down, across, pieces = -(-depth // deep), -(-height // high), -(-width // piece)
    lines, copy = np.empty((deep, high, piece * together), np.float32), np.empty(piece * together, np.float32)
    sizes, firsts = np.empty(levels + 1, np.int64), np.empty(together, np.int64)
    for u in range(all_units * share // shares, all_units * (share + 1) // shares):
        sample, strip, a = u // units, u % units // pieces * together, u % pieces * piece
        pull = work.pulls[sample if len(work.pulls) > 1 else 0]
        ni, nj, count, b = deep, high, min(together, strips - strip), min(width, a + piece)
        for k in range(count):  # first line of each strip
            above, d, h = (
                (strip + k) // across // down,
                (strip + k) // across % down * deep,
                (strip + k) % across * high,
            )
            firsts[k] = ((sample * (strips // across // down) + above) * depth + d) * height + h
            ni, nj = min(ni, depth - d), min(nj, height - h)
        for level in range(levels + 1):
            sizes[level] = ((b - a) * count + (1 << level) - 1) >> level
        at, pairs, odd, middle = np.uint64(a), np.uint64((b - a) // 2), bool((b - a) % 2), np.uint64(sizes[1])
        for i in range(ni):
            for j in range(nj):
                line = lines[i, j]
                for k in range(count):
                    row, low = np.uint64(firsts[k] + i * height + j), np.uint64(k) * pairs
                    _load(x, y, row, at, pairs, odd, line, low, middle + low)
        _transform(lines, copy, sizes, levels, ni, nj)
        work.totals[u] = _score_lines(lines, pull, sizes, levels, ni, nj)
        if not out.size:
            continue
        _transform_transpose(lines, copy, sizes, levels, ni, nj)
        for i in range(ni):
            for j in range(nj):
                line = lines[i, j]
                for k in range(count):
                    row, low = np.uint64(firsts[k] + i * height + j), np.uint64(k) * pairs
                    _store(line, low, middle + low, out, row, at, pairs, odd)


@parallel
def _lift_on_threads(work: Any, first: int, last: int, shares: int) -> None:
    for step in range(first, last):
        for t in prange(shares):
            _lift(work, step, np.int64(t), shares)  # an unsigned argument would compile the kernel a second time
