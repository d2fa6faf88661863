"""Frequency grids and power spectra: linear for signals, radially averaged for images and volumes.

Frequencies are in cycles per sample, isotropic: an axis of N samples has bins k / N up to Nyquist, 0.5; the
corners of an n-dimensional spectrum reach 0.5·√n.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from specreg import _checks
from specreg._compile import constant_tensors
from specreg.transforms import fourier


class PowerSpectrum(NamedTuple):
    """Mean power per coefficient in each frequency bin; `power.sum()` of white noise is its bin count."""

    frequency: Tensor  # [bins], bin centres in cycles per sample
    power: Tensor  # [B, bins], mean of |F|² (orthonormal DFT) over the bin and the channels
    size: Tensor  # [bins], full-spectrum coefficients in the bin


def frequency_grid(shape: Sequence[int]) -> Tensor:
    """Return |f| in cycles per sample on a half spectrum: float64 `[*shape[:-1], shape[-1] // 2 + 1]`, CPU."""
    *full, last = shape
    axes = [torch.fft.fftfreq(n, dtype=torch.float64) for n in full]
    axes.append(torch.fft.rfftfreq(last, dtype=torch.float64))
    return torch.stack(torch.meshgrid(*axes, indexing="ij")).square().sum(0).sqrt()


def band_index(shape: Sequence[int], bands: int, *, device: torch.device | None = None) -> Tensor:
    """Return the index (int64) of each half-spectrum bin's band among `bands` equal-width bands from 0 to Nyquist.

    The corners beyond Nyquist belong to the last band, so that every coefficient is counted once.
    """
    if bands < 1:
        raise ValueError(f"bands must be at least 1; got {bands}")
    return equal_bands(frequency_grid(shape), bands).to(device)


def equal_bands(frequency: Tensor, bands: int) -> Tensor:
    """Return which of `bands` equal bands from 0 to Nyquist each frequency (cycles per sample) is in, int64.

    The lower edge belongs to a band, in whatever precision the frequencies were rounded; beyond Nyquist is the last.
    """
    return (frequency * (2 * bands) * (1 + 1e-6)).long().clamp_max(bands - 1)


def band_sizes(shape: Sequence[int], bands: int) -> Tensor:
    """Return the number of full-spectrum coefficients in each band of `band_index`: float64 `[bands]`, CPU."""
    weights = fourier.bin_weights(shape[-1], dtype=torch.float64).expand(*shape[:-1], -1).flatten()
    return weights.new_zeros(bands).index_add_(0, band_index(shape, bands).flatten(), weights)


def band_mean(values: Tensor, shape: Sequence[int], bands: int) -> Tensor:
    """Return the mean of `values` `[B, …, *half]` on the half spectrum of `shape` over each band: `[B, bands]`."""
    index = band_index(shape, bands, device=values.device).flatten()
    weights = fourier.bin_weights(shape[-1], dtype=values.dtype, device=values.device)
    weights = weights.expand(*shape[:-1], -1).flatten()
    values = values.reshape(values.shape[0], -1, weights.numel()).mean(1) * weights
    total = values.new_zeros(values.shape[0], bands).index_add_(1, index, values)
    return total / band_sizes(shape, bands).to(total).clamp_min(1)


def power_spectrum(x: Tensor, *, ndim: int | None = None, layout: str | None = None) -> PowerSpectrum:
    """Return the radially averaged (2-D, 3-D) or linear (1-D) power spectrum of `x`, `[B, T]` or `[B, C, *space]`.

    Bins are one wavenumber of the longest axis wide and centred on whole wavenumbers; the zero frequency is a bin
    of its own. By Parseval, Σ power·size = Σ x² per channel. No bin is empty on a square grid; empty ones of
    other shapes are left out.
    """
    x, ndim = _checks.image_like("x", x, ndim, layout)
    x = x.to(_checks.compute_dtype("x", x))
    bins = _radial_bins(tuple(x.shape[-ndim:]), x.dtype, x.device)
    power = fourier.half_spectrum(x, ndim=ndim).abs().square()
    power = power.reshape(x.shape[0], -1, bins.number.numel()).mean(1) * bins.share
    total = power.new_zeros(x.shape[0], len(bins.size)).index_add_(1, bins.number, power)
    return PowerSpectrum(bins.frequency, total / bins.size, bins.size)


class _RadialBins(NamedTuple):
    number: Tensor  # [half], the bin of each half-spectrum coefficient
    share: Tensor  # [half], how many full-spectrum coefficients it stands for
    frequency: Tensor  # [bins]
    size: Tensor  # [bins]


@constant_tensors(64)
def _radial_bins(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> _RadialBins:
    """Return the bins of `power_spectrum`, computed once on the CPU, so that calls on an accelerator do not wait."""
    longest = max(shape)
    wavenumber = (frequency_grid(shape) * longest).round().long().flatten()
    filled, number = torch.unique(wavenumber, return_inverse=True)
    share = fourier.bin_weights(shape[-1], dtype=torch.float64).expand(*shape[:-1], -1).flatten()
    size = share.new_zeros(len(filled)).index_add_(0, number, share)
    floats = (share, filled.double() / longest, size)
    return _RadialBins(number.to(device), *(x.to(dtype).to(device) for x in floats))


@constant_tensors(64)
def half_grid(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return `frequency_grid` flattened, `[half]`, in a dtype and on a device; cached."""
    return frequency_grid(shape).flatten().to(dtype).to(device)


def power_at(frequency: Tensor, spectrum: PowerSpectrum) -> Tensor:
    """Return the batch mean of a power spectrum at each `frequency` `[K]`, from the nearest bin: `[K]`."""
    middles = (spectrum.frequency[1:] + spectrum.frequency[:-1]) / 2
    return spectrum.power.mean(0)[torch.bucketize(frequency, middles)]
