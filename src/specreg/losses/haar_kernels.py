"""Levels of Haar on sizes that halve evenly, in one look at both batches: values, and the gradient of them.

The same lifting as `transforms.wavelet_stages.Cells`, which is the oracle for it, on a few lines of memory at a time:
those that one cell of 2^levels samples a side takes, or a piece of them, small enough for the cache. Along a line
means come first and differences after them, level by level; of two neighbouring lines the second becomes the
difference, in place. Compiled by Numba on first use.
"""

from __future__ import annotations

import math
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
    x0_hat: Tensor, x0: Tensor, levels: int, ndim: int, by_band: Tensor, *, wants_gradient: bool
) -> tuple[Tensor, Tensor | None]:
    """Σ over coefficients of x0_hat − x0 of the weight of their band · |lifted coefficient|, and its gradient.

    Args:
        x0_hat, x0: `[b, r, *space]` in float32; the last `ndim` axes halve evenly `levels` times.
        levels: how many levels.
        ndim: transformed axes.
        by_band: weights, what lifting lacks included, `[b or 1, bands]`, in the order of `Stage.factors`.
        wants_gradient: whether there is a gradient.

    Returns:
        Sums `[b]`, and the gradient in the shape of x0_hat.
    """
    return _run(x0_hat, x0, levels, ndim, by_band, None, _WHOLE if wants_gradient else _VALUE)


def down(x0_hat: Tensor, x0: Tensor, levels: int, ndim: int, by_band: Tensor) -> tuple[Tensor, Tensor]:
    """As `evaluate`, of details alone, and what is left to transform: means over cells, `[b, r, *coarse]`."""
    space = (n >> levels for n in x0.shape[-ndim:])
    low = x0.new_empty(*x0.shape[:-ndim], *space)
    total, _ = _run(x0_hat, x0, levels, ndim, by_band, low, _DOWN)
    return total, low


def up(x0_hat: Tensor, x0: Tensor, levels: int, ndim: int, by_band: Tensor, low: Tensor) -> Tensor:
    """The gradient that belongs to `down`, given that with respect to `low`."""
    _, gradient = _run(x0_hat, x0, levels, ndim, by_band, low, _UP)
    assert gradient is not None
    return gradient


_WHOLE, _VALUE, _DOWN, _UP = range(4)


def _run(
    x0_hat: Tensor, x0: Tensor, levels: int, ndim: int, by_band: Tensor, low: Tensor | None, task: int
) -> tuple[Tensor, Tensor | None]:
    *height, width = x0.shape[-ndim:]
    depth, height = (1, 1, *height)[-2:]
    side = 2**levels
    cell = (side if ndim > 2 else 1, side if ndim > 1 else 1)  # lines that a cell takes along depth and height
    piece = max(side, min(width, BUFFER // (cell[0] * cell[1]) // side * side))
    strips = x0.numel() // (width * cell[0] * cell[1])
    x, y = (z.detach().contiguous().view(-1, width).numpy() for z in (x0_hat, x0))
    gradient = torch.empty_like(x0, memory_format=torch.contiguous_format) if task in (_WHOLE, _UP) else None
    out = _NONE if gradient is None else gradient.view(-1, width).numpy()
    coarse = _NONE if low is None else low.contiguous().view(-1, width // side).numpy()
    factors = by_band.numpy()[:, _bands(levels, ndim)]
    totals = np.empty((len(x0), strips // len(x0)), np.float32)
    on_threads(
        _lift, strips, x0.numel(), x, y, coarse, out, factors, levels, (depth, height), cell, piece,
        totals.shape[1] if len(factors) > 1 else strips, task, totals.reshape(-1),
    )  # fmt: skip
    return torch.from_numpy(totals.sum(1)), gradient


_NONE = np.empty((0, 0), np.float32)


@lru_cache(32)
def _bands(levels: int, ndim: int) -> Array:
    """Which band a cell's lines hold, `[lines, levels + 1]`: differences from the finest level on, then the means."""
    side, letters = 2**levels, 2**ndim - 1
    of_place = [levels, *((j & -j).bit_length() - 1 for j in range(1, side))]  # the level that made it a difference
    found = np.empty((side,) * (ndim - 1) + (levels + 1,), np.int64)
    for place in np.ndindex(found.shape):
        made = (*(of_place[j] for j in place[:-1]), place[-1])
        level = min(made)
        high = sum(2 ** (ndim - 1 - axis) for axis, m in enumerate(made) if m == level)
        found[place] = levels * letters if level == levels else level * letters + high - 1
    return found.reshape(-1, levels + 1)


@jit
def _split_difference(x: Array, y: Array, low: Array, high: Array) -> None:
    """Means and differences of neighbours in x − y."""
    half = np.float32(0.5)
    for i in range(low.size):
        even = x[2 * i] - y[2 * i]
        difference = (x[2 * i + 1] - y[2 * i + 1]) - even
        high[i] = difference
        low[i] = even + half * difference


@jit
def _split(x: Array, low: Array, high: Array) -> None:
    half = np.float32(0.5)
    for i in range(low.size):
        even = x[2 * i]
        difference = x[2 * i + 1] - even
        high[i] = difference
        low[i] = even + half * difference


@jit
def _join(low: Array, high: Array, x: Array) -> None:
    """The transpose of `_split`."""
    half = np.float32(0.5)
    for i in range(low.size):
        odd = high[i] + half * low[i]
        x[2 * i + 1] = odd
        x[2 * i] = low[i] - odd


@jit
def _lift_lines(x: Array, y: Array) -> None:
    half = np.float32(0.5)
    for i in range(x.size):
        difference = y[i] - x[i]
        y[i] = difference
        x[i] += half * difference


@jit
def _drop_lines(x: Array, y: Array) -> None:
    """The transpose of `_lift_lines`."""
    half = np.float32(0.5)
    for i in range(x.size):
        odd = y[i] + half * x[i]
        y[i] = odd
        x[i] -= odd


@jit
def _score(x: Array, factor: Any) -> Any:
    """factor · Σ|x|; x becomes the gradient."""
    total = np.float32(0)
    for i in range(x.size):
        total += abs(x[i])
        x[i] = factor * np.float32(np.int32(x[i] > 0) - np.int32(x[i] < 0))
    return factor * total


@jit
def _lift(
    x: Array, y: Array, coarse: Array, out: Array, factors: Array, levels: int, planes: Any, cell: Any, piece: int,
    per_sample: int, task: int, totals: Array, start: int, stop: int,
) -> None:  # fmt: skip
    depth, height = planes
    deep, high = cell
    lines = deep * high
    width, shared = x.shape[1], np.empty(piece, np.float32)
    whole = np.empty((lines, piece), np.float32)
    for strip in range(start, stop):
        factor = factors[strip // per_sample]
        across = height // high
        above, h = strip // across, strip % across
        plane, d = above // (depth // deep), above % (depth // deep)
        first = (plane * depth + d * deep) * height + h * high
        total = 0.0
        for a in range(0, width, piece):
            b = min(width, a + piece)
            n = b - a
            for i in range(deep):
                for j in range(high):
                    row = first + i * height + j
                    line = whole[i * high + j]
                    _split_difference(x[row, a:b], y[row, a:b], line[: n // 2], line[n // 2 : n])
            for level in range(levels):
                step, n = 1 << level, (b - a) >> level
                if level:
                    for i in range(0, deep, step):
                        for j in range(0, high, step):
                            line = whole[i * high + j]
                            _split(line[:n], shared[: n // 2], shared[n // 2 : n])
                            line[:n] = shared[:n]
                for i in range(0, deep, step):
                    for j in range(0, high - step, 2 * step):
                        _lift_lines(whole[i * high + j, :n], whole[i * high + j + step, :n])
                for i in range(0, deep - step, 2 * step):
                    for j in range(0, high, step):
                        _lift_lines(whole[i * high + j, :n], whole[(i + step) * high + j, :n])
            for line in range(lines):
                n = b - a
                for level in range(levels):
                    n //= 2
                    total += _score(whole[line, n : 2 * n], factor[line, level])
                if line or task < _DOWN:
                    total += _score(whole[line, :n], factor[line, levels])
                elif task == _DOWN:
                    coarse[strip, a >> levels : b >> levels] = whole[0, :n]
                else:
                    whole[0, :n] = coarse[strip, a >> levels : b >> levels]
            if task == _VALUE or task == _DOWN:
                continue
            for level in range(levels - 1, -1, -1):
                step, n = 1 << level, (b - a) >> level
                for i in range(0, deep - step, 2 * step):
                    for j in range(0, high, step):
                        _drop_lines(whole[i * high + j, :n], whole[(i + step) * high + j, :n])
                for i in range(0, deep, step):
                    for j in range(0, high - step, 2 * step):
                        _drop_lines(whole[i * high + j, :n], whole[i * high + j + step, :n])
                if level:
                    for i in range(0, deep, step):
                        for j in range(0, high, step):
                            line = whole[i * high + j]
                            _join(line[: n // 2], line[n // 2 : n], shared[:n])
                            line[:n] = shared[:n]
            for i in range(deep):
                for j in range(high):
                    line, n = whole[i * high + j], b - a
                    _join(line[: n // 2], line[n // 2 : n], out[first + i * height + j, a:b])
        totals[strip] = total
