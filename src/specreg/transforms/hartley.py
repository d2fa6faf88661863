"""Hartley's view of a half spectrum, which takes it back to real signals by one more real transform *forward*.

On the CPU torch's forward real transform of several axes is one call of its library; the one back is a complex
transform along all axes but the last and a real one along that, with copies between, and takes 1.6 to 2.7 times as
long. With F the spectrum of a real signal, H = cas(F) = Re F − Im F on all frequencies is real and has all that F has,
and Σ_k F_k e^{+2πi k·n/N} = cas(DFT[H])_n (R. N. Bracewell, The Hartley Transform, 1986). Half a spectrum gives all
of H, as −Im F is Im F at the negative frequency. Compiled by Numba on first use.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numba import prange
from torch import Tensor

from specreg._numba import jit, parallel, threads

Array = np.ndarray[Any, Any]


def cas(F: Tensor, out: Tensor) -> Tensor:
    """Re F − Im F on all frequencies.

    Args:
        F: half spectra of real signals, `[..., *size[:-1], size[-1] // 2 + 1]`, contiguous complex64 on the CPU.
        out: `[b, r, *size]`, contiguous float32, is overwritten and returned.
    """
    size = out.shape[2:]
    halves, whole = F.view(-1, F.shape[-1]).numpy(), out.view(-1, size[-1]).numpy()
    _cas_on_threads(halves, whole, _mirrors(tuple(size[:-1])), threads(len(halves), F.numel()))
    return out


@lru_cache(64)
def _mirrors(size: tuple[int, ...]) -> Array:
    """Of each line along the last axis, in memory's order, the line of the negative frequencies, modulo `size`."""
    places = np.arange(math.prod(size)).reshape(size)
    mirrors: Array = places[np.ix_(*(-np.arange(n) % n for n in size))].ravel() if size else places.ravel()
    return mirrors


@jit
def _cas(halves: Array, whole: Array, mirrors: Array, start: int, stop: int) -> None:
    # All unsigned: a number that might be negative is one that might count from the end, and no vector is made of it.
    bins, width, lines, one = np.uint64(halves.shape[1]), np.uint64(whole.shape[1]), np.uint64(len(mirrors)), np.uint64(1)
    for u in range(np.uint64(start), np.uint64(stop)):
        other = u // lines * lines + np.uint64(mirrors[u % lines])
        for k in range(bins):
            whole[u, k] = halves[u, k].real - halves[u, k].imag
        for k in range(one, one + width - bins):
            whole[other, width - k] = halves[u, k].real + halves[u, k].imag


@parallel
def _cas_on_threads(halves: Array, whole: Array, mirrors: Array, count: int) -> None:
    units = len(halves)
    if count == 1:
        _cas(halves, whole, mirrors, 0, units)
    else:
        for t in prange(count):
            _cas(halves, whole, mirrors, units * t // count, units * (t + 1) // count)
