"""Frequency grids and power spectra: linear for signals, radially averaged for images and volumes.

Frequencies are in cycles per sample, isotropic: an axis of N samples has bins k / N up to Nyquist, 0.5; the
corners of an n-dimensional spectrum reach 0.5·√n.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from specreg import _checks
from specreg.transforms import fourier


class PowerSpectrum(NamedTuple):
    """Mean power per coefficient in each frequency bin; `power.sum()` of white noise is its bin count."""

    frequency: Tensor  # [bins], bin centres in cycles per sample
    power: Tensor  # [B, bins], mean of |F|² (orthonormal DFT) over the bin and the channels
    size: Tensor  # [bins], full-spectrum coefficients in the bin


def frequency_grid(shape: Sequence[int]) -> Tensor:
    """|f| in cycles per sample on the half spectrum of `shape`: float64 `[*shape[:-1], shape[-1] // 2 + 1]`, CPU."""
    *full, last = shape
    axes = [torch.fft.fftfreq(n, dtype=torch.float64) for n in full]
    axes.append(torch.fft.rfftfreq(last, dtype=torch.float64))
    return torch.stack(torch.meshgrid(*axes, indexing="ij")).square().sum(0).sqrt()


def band_index(shape: Sequence[int], bands: int, *, device: torch.device | None = None) -> Tensor:
    """Which of `bands` equal-width bands over 0 … Nyquist each half-spectrum bin falls in (int64).

    The corners beyond Nyquist belong to the last band, so that every coefficient is counted once.
    """
    if bands < 1:
        raise ValueError(f"bands must be at least 1; got {bands}")
    return (frequency_grid(shape) * (2 * bands)).long().clamp_max(bands - 1).to(device)


def power_spectrum(x: Tensor, *, ndim: int | None = None) -> PowerSpectrum:
    """Radially averaged (2-D, 3-D) or linear (1-D) power spectrum of `x`, `[B, T]` or `[B, C, *space]`.

    Bins are one wavenumber of the longest axis wide and centred on whole wavenumbers; the zero frequency is a bin
    of its own. By Parseval, Σ power·size = Σ x² per channel. No bin is empty on a square grid; empty ones of
    other shapes are left out.
    """
    x, ndim = _checks.image_like("x", x, ndim)
    x = x.to(_checks.compute_dtype("x", x))
    shape = x.shape[-ndim:]
    longest = max(shape)
    index = (frequency_grid(shape) * longest).round().long().flatten().to(x.device)
    bins = math.floor(longest * 0.5 * math.sqrt(ndim) + 0.5) + 1

    weights = fourier.bin_weights(shape[-1], dtype=x.dtype, device=x.device)
    power = fourier.half_spectrum(x, ndim=ndim).abs().square() * weights
    power = power.reshape(x.shape[0], -1, index.numel()).mean(1)
    count = torch.zeros(bins, dtype=x.dtype, device=x.device)
    count.index_add_(0, index, weights.expand(*shape[:-1], -1).flatten())
    total = torch.zeros(x.shape[0], bins, dtype=x.dtype, device=x.device).index_add_(1, index, power)

    filled = count > 0
    frequency = torch.arange(bins, dtype=x.dtype, device=x.device) / longest
    return PowerSpectrum(frequency[filled], total[:, filled] / count[filled], count[filled])
