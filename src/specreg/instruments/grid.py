"""Which bin, band and direction each coefficient of a spectrum belongs to.

Frequencies are in cycles per sample; where the axes have unequal spacing, in cycles per sample of the coarsest one, so
that Nyquist is 0.5 in every case. A bin is as wide as the lowest frequency of the longest axis and is centred on its
multiples. Bins end at Nyquist. Coefficients beyond it, the corners of images and volumes, are one bin of their own, and
so is the zero frequency.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from specreg.transforms import fourier

Transform = Literal["dft", "dct"]
TRANSFORMS = ("dft", "dct")
NYQUIST = 0.5
DIRECTIONS = 8
"""Sectors of a half circle: 0 is a wave along the last axis (vertical stripes), 4 one along the axis before it."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Grid:
    """The coefficients of a transform of samples `[*shape]`, flattened to K, and the bins they are averaged in."""

    shape: tuple[int, ...]
    spacing: tuple[float, ...]  # of each axis, relative to the coarsest
    transform: Transform
    number: Tensor  # [K] int64: 0 is the zero frequency, 1 … M the bins up to Nyquist, M + 1 the corners
    share: Tensor  # [K] float64: how many coefficients of the whole spectrum each one stands for
    frequency: Floats  # [M], centres of the bins
    size: Floats  # [M + 2], coefficients in each bin, zero frequency and corners included
    band_edges: Floats  # [bands + 1], from 0 to Nyquist
    band: Tensor  # [K] int64: the band of each coefficient, `bands` for zero frequency and corners
    sector: Tensor | None  # [K] int64: band · DIRECTIONS + direction, the last for what is in no band; images only

    @property
    def bins(self) -> int:
        """Number of bins up to Nyquist."""
        return len(self.frequency)

    @property
    def bands(self) -> int:
        """Number of bands of equal width up to Nyquist."""
        return len(self.band_edges) - 1

    @property
    def band_of_bin(self) -> NDArray[np.int64]:
        """The band of each bin up to Nyquist, [M]: edges belong to the band below them."""
        return band_of(self.frequency, self.bands)

    def same_as(self, other: Grid) -> bool:
        """Return whether spectra on both grids can be compared bin by bin."""
        mine, theirs = ((g.shape, g.spacing, g.transform) for g in (self, other))
        return mine == theirs


def band_of(frequency: Any, bands: int) -> NDArray[np.int64]:
    """Return the index of the band (low, high] that holds each frequency; `bands` for those beyond Nyquist."""
    scaled = np.asarray(frequency, dtype=np.float64) * (bands / NYQUIST)
    index = np.ceil(scaled - 1e-9).astype(np.int64) - 1
    return np.clip(index, 0, bands)


@lru_cache(maxsize=64)
def grid(shape: tuple[int, ...], spacing: tuple[float, ...] | None = None, transform: Transform = "dft") -> Grid:
    """Return the grid of samples `[*shape]`, one to three axes, with the distance of samples along each axis."""
    if not 1 <= len(shape) <= 3:
        raise ValueError(f"samples must have one to three axes; got the shape {list(shape)}")
    if max(shape) < 4:
        raise ValueError(f"samples must have at least 4 values along an axis; got the shape {list(shape)}")
    if spacing is not None and (len(spacing) != len(shape) or not all(0 < s < math.inf for s in spacing)):
        raise ValueError(f"spacing must be one positive number for each of {len(shape)} axes; got {spacing}")
    relative = tuple(s / max(spacing) for s in spacing) if spacing else (1.0,) * len(shape)
    axes = _axes(shape, relative, transform)
    lattice = torch.meshgrid(*axes, indexing="ij")
    radius = torch.stack(lattice).square().sum(0).sqrt().flatten()
    share = _share(shape, transform)
    width = min(float(axis[1]) for axis in axes if len(axis) > 1)
    inside = radius <= NYQUIST * (1 + 1e-9)
    nearest = (radius / width + 1e-9).round().long()
    bins = int(nearest[inside].max())
    number = torch.where(inside, nearest, bins + 1)
    size = torch.zeros(bins + 2, dtype=torch.float64).index_add_(0, number, share)
    frequency = width * np.arange(1, bins + 1, dtype=np.float64)
    bands = max(1, min(8, bins // 2))
    band = torch.from_numpy(np.append(band_of(frequency, bands), bands))[(number - 1).clamp(0, bins)]
    band = torch.where((number == 0) | (number == bins + 1), bands, band)
    sector = None
    if len(shape) == 2 and transform == "dft":
        angle = torch.atan2(lattice[0], lattice[1]).flatten()
        direction = (angle * (DIRECTIONS / math.pi)).round().long() % DIRECTIONS
        sector = torch.where(band < bands, band * DIRECTIONS + direction, bands * DIRECTIONS)
    edges = np.linspace(0, NYQUIST, bands + 1)
    return Grid(
        shape, relative, transform, number, share, np.minimum(frequency, NYQUIST), size.numpy(), edges, band, sector
    )


def _axes(shape: Sequence[int], spacing: Sequence[float], transform: Transform) -> list[Tensor]:
    """Return the frequencies along each axis; of the last one a half for the DFT."""
    if transform == "dct":
        return [torch.arange(n, dtype=torch.float64) / (2 * n * d) for n, d in zip(shape, spacing, strict=True)]
    *full, last = zip(shape, spacing, strict=True)
    axes = [torch.fft.fftfreq(n, d, dtype=torch.float64) for n, d in full]
    return [*axes, torch.fft.rfftfreq(last[0], last[1], dtype=torch.float64)]


def _share(shape: Sequence[int], transform: Transform) -> Tensor:
    if transform == "dct":
        return torch.ones(math.prod(shape), dtype=torch.float64)
    return fourier.bin_weights(shape[-1], dtype=torch.float64).expand(*shape[:-1], -1).flatten().contiguous()
