"""Haar's levels in one look at both batches: the values, and their gradient.

The lifting of `transforms.wavelet_stages.Cells`, which is the oracle for it, on a few lines of memory at a time: those
that one cell of 2^levels samples a side takes, or a piece of them, small enough for the cache. Along a line means
come first and differences after them, level by level; of two neighbouring lines the second becomes the difference,
in place. What has no neighbour is its own mean, and has no difference. Compiled by Numba on first use.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from specreg.losses.compiled import jit, on_threads

Array = np.ndarray[Any, Any]

BUFFER = 2**13
"""Values of a piece of lines, where cells are not larger themselves."""


def evaluate(
    x0_hat: Tensor, x0: Tensor, levels: int, ndim: int, by_band: Tensor, wants_gradient: bool
) -> tuple[Tensor, Tensor | None]:
    """Σ over coefficients of x0_hat − x0 of the weight of their band · |lifted coefficient|, and its gradient.

    Args:
        x0_hat: `[b, r, *space]`, float32.
        x0: the same.
        levels: how many levels.
        ndim: transformed axes.
        by_band: weights, what lifting lacks included, `[b or 1, bands]`, in the order of `Stage.factors`.
        wants_gradient: whether there is a gradient.

    Returns:
        Sums `[b]`, and the gradient in the shape of x0_hat.
    """
    space = x0.shape[-ndim:]
    depth, height, width = (1,) * (3 - ndim) + tuple(space)
    deep, high = (min(2**levels, size) for size in (depth, height))  # lines of a cell
    piece = max(1, BUFFER // (deep * high) >> levels) << levels
    strips = x0.shape[:-ndim].numel() * -(-depth // deep) * -(-height // high)
    x, y = (z.detach().contiguous().view(-1, width).numpy() for z in (x0_hat, x0))
    gradient = torch.empty_like(x0, memory_format=torch.contiguous_format) if wants_gradient else None
    out = _NONE if gradient is None else gradient.view(-1, width).numpy()
    weights = by_band.numpy()[:, _bands(levels, ndim)]
    totals = np.empty((len(x0), strips // len(x0)), np.float32)
    on_threads(
        _lift, strips, x0.numel(), x, y, out, weights, totals.shape[1] if len(weights) > 1 else strips, levels,
        (depth, height), (deep, high), min(piece, width), totals.reshape(-1),
    )  # fmt: skip
    return torch.from_numpy(totals.sum(1)), gradient


_NONE = np.empty((0, 0), np.float32)


@lru_cache(32)
def _bands(levels: int, ndim: int) -> Array:
    """Which band is where in a cell, `[lines, levels + 1]`: differences along a line from the finest on, then means."""
    side, kinds = 2**levels, 2**ndim - 1
    made = [levels, *((j & -j).bit_length() - 1 for j in range(1, side))]  # the level that made a line a difference
    found = np.empty((side,) * (ndim - 1) + (levels + 1,), np.int64)
    for place in np.ndindex(found.shape):
        by_axis = (*(made[j] for j in place[:-1]), place[-1])
        level = min(by_axis)
        kind = sum(2 ** (ndim - 1 - axis) for axis, made_at in enumerate(by_axis) if made_at == level)
        found[place] = levels * kinds if level == levels else level * kinds + kind - 1
    return found.reshape(-1, levels + 1)


@jit
def _split_difference(x: Array, y: Array, low: Array, high: Array) -> None:
    """Means and differences of neighbours in x − y."""
    half, n = np.float32(0.5), high.size
    for i in range(n):
        even = x[2 * i] - y[2 * i]
        difference = (x[2 * i + 1] - y[2 * i + 1]) - even
        high[i] = difference
        low[i] = even + half * difference
    if low.size > n:
        low[n] = x[2 * n] - y[2 * n]


@jit
def _split(x: Array, low: Array, high: Array) -> None:
    """Means and differences of neighbours in x."""
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
    """The same of two lines, in place."""
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
    """weight · Σ|x|; x becomes the gradient of it."""
    total = np.float32(0)
    for i in range(x.size):
        total += abs(x[i])
        x[i] = weight * np.float32(np.int32(x[i] > 0) - np.int32(x[i] < 0))
    return weight * total


@jit
def _lift(
    x: Array, y: Array, out: Array, weights: Array, per_sample: int, levels: int, plane: Any, cell: Any, piece: int,
    totals: Array, start: int, stop: int,
) -> None:  # fmt: skip
    (depth, height), (deep, high) = plane, cell
    width = x.shape[1]
    lines, work, sizes = np.empty((deep, high, piece), np.float32), np.empty(piece, np.float32), [0] * (levels + 1)
    down, across = -(-depth // deep), -(-height // high)
    for strip in range(start, stop):
        weight = weights[strip // per_sample]
        of_plane, d, h = strip // across // down, strip // across % down * deep, strip % across * high
        first = (of_plane * depth + d) * height + h
        ni, nj = min(deep, depth - d), min(high, height - h)
        total = 0.0
        for a in range(0, width, piece):
            b = min(width, a + piece)
            for level in range(levels + 1):
                sizes[level] = (b - a + (1 << level) - 1) >> level
            n, m = sizes[0], sizes[1]
            for i in range(ni):
                for j in range(nj):
                    row = first + i * height + j
                    _split_difference(x[row, a:b], y[row, a:b], lines[i, j, :m], lines[i, j, m:n])
            for level in range(levels):
                step, n, m = 1 << level, sizes[level], sizes[level + 1]
                if level:
                    for i in range(0, ni, step):
                        for j in range(0, nj, step):
                            work[:n] = lines[i, j, :n]
                            _split(work[:n], lines[i, j, :m], lines[i, j, m:n])
                for i in range(0, ni, step):
                    for j in range(0, nj - step, 2 * step):
                        _lift_line(lines[i, j, :n], lines[i, j + step, :n])
                for i in range(0, ni - step, 2 * step):
                    for j in range(0, nj, step):
                        _lift_line(lines[i, j, :n], lines[i + step, j, :n])
            for i in range(ni):
                for j in range(nj):
                    place = (i << levels) + j
                    for level in range(levels):
                        total += _score(lines[i, j, sizes[level + 1] : sizes[level]], weight[place, level])
                    total += _score(lines[i, j, : sizes[levels]], weight[place, levels])
            if not out.size:
                continue
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
                            work[:n] = lines[i, j, :n]
                            _split_transpose(work[:m], work[m:n], lines[i, j, :n])
            n, m = sizes[0], sizes[1]
            for i in range(ni):
                for j in range(nj):
                    row = first + i * height + j
                    _split_transpose(lines[i, j, :m], lines[i, j, m:n], out[row, a:b])
        totals[strip] = total
