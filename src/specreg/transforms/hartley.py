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
        F: half spectra of real signals, `[b, r, *size[:-1], size[-1] // 2 + 1]`, contiguous complex64 on the CPU.
        out: `[b, r, *size]`, contiguous float32, is overwritten and returned.
    """
    shape = out.shape
    lines = F.numel() // F.shape[-1]
    cas_on_threads(
        F.numpy().reshape(-1), out.numpy().reshape(-1), mirrors(shape[2:-1]), shape[-1], threads(lines, F.numel())
    )
    return out


@lru_cache(64)
def mirrors(size: tuple[int, ...]) -> Array:
    """Of each line along the last axis, in memory's order, the line of the negative frequencies, modulo `size`."""
    places = np.arange(math.prod(size), dtype=np.uint64).reshape(size)
    found: Array = places[np.ix_(*(-np.arange(n) % n for n in size))].ravel()
    return found


@jit
def _cas(F: Array, out: Array, mirrors: Array, width: Any, start: Any, stop: Any) -> None:
    # All unsigned: a number that might be negative is one that might count from the end, and no vector is made of it.
    lines, one = np.uint64(mirrors.size), np.uint64(1)
    width, bins = np.uint64(width), np.uint64(width // 2 + 1)
    for u in range(np.uint64(start), np.uint64(stop)):
        here, half, there = u * width, u * bins, (u // lines * lines + mirrors[u % lines]) * width
        for k in range(bins):
            out[here + k] = F[half + k].real - F[half + k].imag
        for k in range(one, one + width - bins):
            out[there + (width - k)] = F[half + k].real + F[half + k].imag


@parallel
def cas_on_threads(F: Array, out: Array, mirrors: Array, width: int, count: int) -> None:
    """`cas` of arrays in memory's order, for kernels; `out` may be longer than what is written."""
    lines = F.size // (width // 2 + 1)
    if count == 1:
        _cas(F, out, mirrors, width, 0, lines)
    else:
        for t in prange(count):
            _cas(F, out, mirrors, width, lines * t // count, lines * (t + 1) // count)
