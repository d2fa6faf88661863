"""A step of a wavelet transform along one axis, and its transpose, in one pass over memory.

What `wavelet_steps` does in a call for each tap, which is the oracle for these. Compiled by Numba on first use.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from torch import Tensor

from specreg._numba import jit, on_threads
from specreg.transforms.wavelet_steps import Mode, beyond, filter_bank, margins

Array = np.ndarray[Any, Any]

PIECE = 2048
"""Coefficients of a band that are made at a time along the last axis; elsewhere a fourth as many columns."""


def analyze_axis(x: Tensor, axis: int, wavelet: str, mode: Mode) -> Tensor:
    """Map `[..., N, ...]` to `[2, ..., M, ...]` along `axis` (negative), with filters divided by their largest taps."""
    lead, n, tail = x.shape[:axis], x.shape[axis], x.shape[axis:][1:]
    _, _, count = margins(n, filter_bank(wavelet).length, mode)
    y = x.new_empty(2, *lead, count, *tail)
    _run(_analyze_last if tail.numel() == 1 else _analyze, x.contiguous(), y, lead.numel(), n, count, wavelet, mode)
    return y


def analyze_axis_transpose(y: Tensor, axis: int, wavelet: str, mode: Mode, n: int) -> Tensor:
    """The transpose of `analyze_axis`: `[2, ..., M, ...]` to `[..., N, ...]`."""
    lead, count, tail = y.shape[1:axis], y.shape[axis], y.shape[axis:][1:]
    x = y.new_empty(*lead, n, *tail)
    _run(_transpose_last if tail.numel() == 1 else _transpose, x, y.contiguous(), lead.numel(), n, count, wavelet, mode)
    return x


def _run(kernel: Any, x: Tensor, y: Tensor, outer: int, n: int, count: int, wavelet: str, mode: Mode) -> None:
    rows, bands = x.view(outer, n, -1).numpy(), y.view(2 * outer, count, -1).numpy()
    units = outer * -(-rows.shape[2] // (PIECE // 4))
    on_threads(kernel, units, rows.size, rows, bands, *_sources(n, wavelet, mode), *_taps(wavelet))


@lru_cache(64)
def _taps(wavelet: str) -> tuple[Array, Array]:
    """Of each tap that is not 0: its band, its place, whether it is the band's first, `[taps, 3]`; and its value."""
    analysis = filter_bank(wavelet, divided=True).analysis
    places = [(band, j, k == 0) for band, pairs in enumerate(analysis) for k, (j, _) in enumerate(pairs)]
    return np.array(places, np.int64), np.array([tap for pairs in analysis for _, tap in pairs], np.float32)


@lru_cache(1024)
def _sources(n: int, wavelet: str, mode: Mode) -> tuple[Array, Array]:
    """Which samples stand for those before the first and after the last; −1 where zeros do."""
    left, right, _ = margins(n, filter_bank(wavelet).length, mode)
    if mode == "zero":
        return np.full(left, -1), np.full(right, -1)
    return beyond(n, left, right, mode)


# Indices are unsigned where loops are long: what might be negative might count from the end, and is not vectorized.


@jit
def _add(out: Array, o: Any, k: Any, x: Array, p: Any, r: Any, a: Any, b: Any, value: Any) -> None:
    for c in range(a, b):
        out[o, k, c] += value * x[p, r, c]


@jit
def _put(out: Array, o: Any, k: Any, x: Array, p: Any, r: Any, a: Any, b: Any, value: Any) -> None:
    for c in range(a, b):
        out[o, k, c] = value * x[p, r, c]


@jit
def _zero(out: Array, o: Any, k: Any, a: Any, b: Any) -> None:
    for c in range(a, b):
        out[o, k, c] = 0


@jit
def _analyze(
    x: Array, y: Array, before: Array, after: Array, taps: Array, values: Array, start: int, stop: int
) -> None:
    outer, n, inner = x.shape
    width, left = PIECE // 4, before.size
    blocks = -(-inner // width)
    for u in range(start, stop):
        p, a = np.uint64(u // blocks), np.uint64(u % blocks * width)
        b = np.uint64(min(inner, (u % blocks + 1) * width))
        for k in range(y.shape[1]):
            for t in range(values.size):
                band, row = taps[t, 0], 2 * k + taps[t, 1] - left
                if row < 0:
                    row = before[row + left]
                elif row >= n:
                    row = after[row - n]
                o, coefficient = np.uint64(band * outer + u // blocks), np.uint64(k)
                if taps[t, 2] and row < 0:
                    _zero(y, o, coefficient, a, b)
                elif taps[t, 2]:
                    _put(y, o, coefficient, x, p, np.uint64(row), a, b, values[t])
                elif row >= 0:
                    _add(y, o, coefficient, x, p, np.uint64(row), a, b, values[t])


@jit
def _transpose(
    x: Array, y: Array, before: Array, after: Array, taps: Array, values: Array, start: int, stop: int
) -> None:
    outer, n, inner = x.shape
    width, left, count = PIECE // 4, before.size, y.shape[1]
    blocks = -(-inner // width)
    for u in range(start, stop):
        p, a = np.uint64(u // blocks), np.uint64(u % blocks * width)
        b = np.uint64(min(inner, (u % blocks + 1) * width))
        for r in range(n):
            _zero(x, p, np.uint64(r), a, b)
        for i in range(left + n + after.size):
            row = i - left
            if row < 0:
                row = before[i]
            elif row >= n:
                row = after[row - n]
            if row < 0:
                continue
            for t in range(values.size):
                k = (i - taps[t, 1]) >> 1
                if (i - taps[t, 1]) & 1 == 0 and 0 <= k < count:
                    o = np.uint64(taps[t, 0] * outer + u // blocks)
                    _add(x, p, np.uint64(row), y, o, np.uint64(k), a, b, values[t])


@jit
def _add_line(out: Array, at: Any, x: Array, begin: Any, n: Any, value: Any) -> None:
    for i in range(n):
        out[at + i] += value * x[begin + i]


@jit
def _put_line(out: Array, at: Any, x: Array, begin: Any, n: Any, value: Any) -> None:
    for i in range(n):
        out[at + i] = value * x[begin + i]


@jit
def _deinterleave(x: Array, at: Any, even: Array, odd: Array, begin: Any, n: Any) -> None:
    """n pairs of x from `at` on to places from `begin` on."""
    one, two = np.uint64(1), np.uint64(2)
    for i in range(n):
        even[begin + i] = x[at + two * i]
        odd[begin + i] = x[at + two * i + one]


@jit
def _interleave(even: Array, odd: Array, begin: Any, x: Array, at: Any, n: Any) -> None:
    one, two = np.uint64(1), np.uint64(2)
    for i in range(n):
        x[at + two * i] = even[begin + i]
        x[at + two * i + one] = odd[begin + i]


@jit
def _sample(x: Array, i: int, before: Array, after: Array) -> Any:
    """Sample i of what `x` is continued to, which begins at −left."""
    if i < 0:
        i = before[i + before.size]
    elif i >= x.size:
        i = after[i - x.size]
    return x[i] if i >= 0 else np.float32(0)


@jit
def _analyze_last(
    x: Array, y: Array, before: Array, after: Array, taps: Array, values: Array, start: int, stop: int
) -> None:
    outer, n, _ = x.shape
    count, left, zero = y.shape[1], before.size, np.uint64(0)
    reach = (left + n + after.size) // 2 - count  # pairs that a band needs beyond as many as it has coefficients
    even, odd = np.empty(PIECE + reach, np.float32), np.empty(PIECE + reach, np.float32)
    for u in range(start, stop):
        line = x[u, :, 0]
        for a in range(0, count, PIECE):
            b = min(count, a + PIECE)
            pairs = b - a + reach
            # Pairs i of the continued line that lie wholly in x: 2(a + i) − left ≥ 0, 2(a + i) + 1 − left < n.
            first = min(pairs, max(0, (left + 1) // 2 - a))
            last = max(first, min(pairs, (n + left) // 2 - a))
            for i in range(first):
                even[i] = _sample(line, 2 * (a + i) - left, before, after)
                odd[i] = _sample(line, 2 * (a + i) + 1 - left, before, after)
            _deinterleave(line, np.uint64(2 * (a + first) - left), even, odd, np.uint64(first), np.uint64(last - first))
            for i in range(last, pairs):
                even[i] = _sample(line, 2 * (a + i) - left, before, after)
                odd[i] = _sample(line, 2 * (a + i) + 1 - left, before, after)
            for t in range(values.size):
                band, j = y[taps[t, 0] * outer + u, :, 0], taps[t, 1]
                phase, begin = odd if j & 1 else even, np.uint64(j >> 1)
                if taps[t, 2]:
                    _put_line(band, np.uint64(a), phase, begin, np.uint64(b - a), values[t])
                else:
                    _add_line(band, np.uint64(a), phase, begin, np.uint64(b - a), values[t])


@jit
def _transpose_last(
    x: Array, y: Array, before: Array, after: Array, taps: Array, values: Array, start: int, stop: int
) -> None:
    outer, n, _ = x.shape
    count, left, right = y.shape[1], before.size, after.size
    pairs = (left + n + right) // 2
    even, odd = np.empty(PIECE, np.float32), np.empty(PIECE, np.float32)
    edges = np.zeros(left + right, np.float32)
    for u in range(start, stop):
        line = x[u, :, 0]
        for a in range(0, pairs, PIECE):
            b = min(pairs, a + PIECE)
            even[: b - a] = 0
            odd[: b - a] = 0
            for t in range(values.size):
                band, j = y[taps[t, 0] * outer + u, :, 0], taps[t, 1] >> 1
                first, last = max(a, j), min(b, j + count)
                if first < last:
                    phase = odd if taps[t, 1] & 1 else even
                    _add_line(
                        phase, np.uint64(first - a), band, np.uint64(first - j), np.uint64(last - first), values[t]
                    )
            first = min(b - a, max(0, (left + 1) // 2 - a))
            last = max(first, min(b - a, (n + left) // 2 - a))
            _interleave(even, odd, np.uint64(first), line, np.uint64(2 * (a + first) - left), np.uint64(last - first))
            for part in ((0, first), (last, b - a)):
                for i in range(part[0], part[1]):
                    for k, value in ((2 * (a + i) - left, even[i]), (2 * (a + i) + 1 - left, odd[i])):
                        if k < 0:
                            edges[k + left] = value
                        elif k < n:
                            line[k] = value
                        else:
                            edges[k - n + left] = value
        for i in range(left):
            if before[i] >= 0:
                line[before[i]] += edges[i]
        for i in range(right):
            if after[i] >= 0:
                line[after[i]] += edges[left + i]
