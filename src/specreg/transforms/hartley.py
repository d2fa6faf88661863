"""Hartley's view of a half spectrum, which takes it back to real signals by one more real transform *forward*.

On the CPU torch's forward real transform of several axes is one call of its library; the one back is a complex
transform along all axes but the last and a real one along that, with copies between, and takes 1.6 to 2.8 times as
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

from specreg._numba import jit, parallel, run

Array = np.ndarray[Any, Any]


def cas(F: Tensor, memory: Tensor, shape: torch.Size) -> Tensor:
    """Re F − Im F on all frequencies, `shape`; where F is not symmetric, of what `torch.fft.irfftn` takes it to be.

    Args:
        F: half spectra of real signals, `[b, r, *size[:-1], size[-1] // 2 + 1]`, contiguous complex64 on the CPU.
        memory: any contiguous tensor that has room for the result; the result shares it.
        shape: `[b, r, *size]`.
    """
    half, bins = F.numpy().reshape(-1), F.shape[-1]
    out = memory.numpy().reshape(-1).view(np.float32)[: shape.numel()]
    run(_cas, _cas_on_threads, half.size // bins, half.size, half, out, _mirrors(shape[2:-1]), shape[-1])
    return torch.from_numpy(out.reshape(shape))


@lru_cache(64)
def _mirrors(size: tuple[int, ...]) -> Array:
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
        other = u // lines * lines + mirrors[u % lines]
        here, half, there, other_half = u * width, u * bins, other * width, other * bins
        for k in range(bins):
            out[here + k] = F[half + k].real - F[half + k].imag
        for k in range(one, one + width - bins):
            out[there + (width - k)] = F[half + k].real + F[half + k].imag
        # At frequency 0 and Nyquist both of a conjugate pair are there: of them the symmetric part, as irfftn takes it.
        for k in range(0, bins, max(one, width // 2)):
            if 2 * k % width == 0:
                a, b = F[half + k], F[other_half + k]
                out[here + k] = np.float32(0.5) * ((a.real + b.real) - (a.imag - b.imag))


@parallel
def _cas_on_threads(F: Array, out: Array, mirrors: Array, width: int, lines: int, shares: int) -> None:
    for t in prange(shares):
        _cas(F, out, mirrors, width, lines * t // shares, lines * (t + 1) // shares)
