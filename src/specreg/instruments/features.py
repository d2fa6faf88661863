"""What is kept of each sample: sums that add over samples, so that sets of any size need the same memory."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from specreg.instruments.coefficients import Detrend, Window, coefficients
from specreg.instruments.grid import DIRECTIONS, Floats, Grid
from specreg.transforms.wavelet import max_levels, wavedecn

WAVELET = "db2"
LEVELS = 5
HISTOGRAM_DB = 400.0
PER_DB = 2
"""The histogram of powers has bins of half a decibel from −400 to 400 dB: any floating-point data, in any unit."""


class Features(NamedTuple):
    """Sums of a chunk of n samples."""

    by_sample: dict[str, Floats]
    """`power` [n, C · (M + 2)] by bin; `directions` [n, bands · DIRECTIONS], power of all channels, empty but for
    images; `wavelet` [n, levels · 3], Σ|w|, Σw², Σw⁴ over channels and orientations, finest first."""
    summed: dict[str, Floats]
    """`lattice` [K], power of all channels by coefficient; `histogram` [bands, 1600], their number by power."""


def sample_features(x: Tensor, grid: Grid, window: Window, detrend: Detrend) -> Features:
    """Return the features of samples `x` `[n, C, *space]`."""
    n, channels = x.shape[:2]
    found = coefficients(x, grid, window, detrend)
    power = found.real.square() + found.imag.square() if found.is_complex() else found.square()
    level = power.clamp_min(1e-300).log10_().mul_(10 * PER_DB).add_(HISTOGRAM_DB * PER_DB)
    columns = int(2 * HISTOGRAM_DB * PER_DB)
    cell = level.clamp_(0, columns - 1).long().add_(grid.band * columns)
    weights = grid.share.expand_as(power).flatten()
    histogram = torch.bincount(cell.flatten(), weights, minlength=(grid.bands + 1) * columns)
    power = power * grid.share
    by_bin = power.new_zeros(n * channels, grid.bins + 2).index_add_(1, grid.number, power.flatten(0, 1))
    summed = power.sum(1)
    directions = power.new_zeros(n, 0)
    if grid.sector is not None:
        width = grid.bands * DIRECTIONS
        directions = power.new_zeros(n, width + 1).index_add_(1, grid.sector, summed)[:, :width]
    by_sample = {
        "power": by_bin.view(n, -1),
        "directions": directions,
        "wavelet": wavelet_sums(x, len(grid.shape)),
    }
    summed_up = {
        "lattice": summed.sum(0) / grid.share,
        "histogram": histogram.view(grid.bands + 1, columns)[: grid.bands],
    }
    return Features(*({name: part.numpy() for name, part in parts.items()} for parts in (by_sample, summed_up)))


def wavelet_sums(x: Tensor, ndim: int) -> Tensor:
    """Return Σ|w|, Σw² and Σw⁴ of the detail coefficients of each level, `[n, levels · 3]`."""
    levels = min(LEVELS, max_levels(tuple(x.shape[-ndim:]), WAVELET))
    sums = []
    for details in wavedecn(x.double(), WAVELET, levels=levels, mode="symmetric", ndim=ndim).details:
        w = torch.stack([band.flatten(1) for band in details.values()], -1).flatten(1)
        square = w.square()
        sums += [w.abs().sum(1), square.sum(1), square.square().sum(1)]
    return torch.stack(sums, 1)


def wavelet_counts(shape: tuple[int, ...], channels: int) -> list[int]:
    """Return the number of detail coefficients of a sample at each level."""
    levels = min(LEVELS, max_levels(shape, WAVELET))
    found = wavedecn(torch.zeros(1, channels, *shape), WAVELET, levels=levels, mode="symmetric", ndim=len(shape))
    return [sum(band[0].numel() for band in details.values()) for details in found.details]


def quantiles_db(histogram: np.ndarray, shares: tuple[float, ...]) -> list[list[float]]:
    """Return the quantiles of power in dB of each row of a histogram, `[bands][shares]`, to half a decibel."""
    found = []
    for row in histogram:
        total = np.cumsum(row)
        edges = [(np.searchsorted(total, share * total[-1]) + 0.5) / PER_DB - HISTOGRAM_DB for share in shares]
        found.append([float(edge) for edge in edges])
    return found
