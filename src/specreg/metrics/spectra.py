"""Distances between the spectrum of samples and that of real data, and the fidelity of checkerboards.

Spectra are radial averages of the mean power per coefficient of an orthonormal DFT; data are in [-1, 1]. In decibels,
powers below that of 8-bit quantization noise count as equal to it: samples are stored as 8-bit images, which cannot
represent less.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from specreg import _checks, _html
from specreg.transforms.radial import power_spectrum

QUANTIZATION_POWER = (2 / 255) ** 2 / 12
"""Variance, hence power per orthonormal coefficient, of rounding [-1, 1] to 8 bits: −52.9 dB."""


class MeanSpectrum(NamedTuple):
    """Mean radial power spectrum of a set of samples.

    `frequency` and `size` together say how large the samples are, up to the order of their axes.
    """

    frequency: Tensor  # [bins], cycles per sample
    power: Tensor  # [bins]
    size: Tensor  # [bins], coefficients

    def _repr_html_(self) -> str:
        """Return the power in each octave as a table for notebooks."""
        rows, high = [], 0.5
        highest = float(self.frequency.max())
        bands = [(0.5, highest)] * (highest > 0.5)
        while high >= float(self.frequency[self.frequency > 0].min()) and len(bands) < 12:
            bands.append((high / 2, high))
            high /= 2
        for low, high in bands[::-1]:
            inside = (self.frequency > low) & (self.frequency <= high)
            if inside.any():
                mean = float((self.power * self.size)[inside].sum() / self.size[inside].sum())
                decibel = _html.number(10 * math.log10(mean), 1) if mean > 0 else "−∞"
                rows.append([f"{low:.4g} … {high:.4g}", decibel, f"{int(self.size[inside].sum())}"])
        header = ["cycles per sample", "mean power of a coefficient, dB", "coefficients"]
        return _html.table("Mean power spectrum", header, rows)


def mean_spectrum(x: Tensor, *, batch_size: int = 256) -> MeanSpectrum:
    """Return the mean radial power spectrum of `x`, `[N, C, *space]` in [-1, 1], in float64: see `in_float64`."""
    parts = [power_spectrum(_checks.in_float64(part)) for part in torch.split(x, batch_size)]
    power = torch.cat([part.power for part in parts]).mean(0)
    return MeanSpectrum(parts[0].frequency, power, parts[0].size)


def decibels(power: Tensor, floor: float = QUANTIZATION_POWER) -> Tensor:
    """Return 10·log10 of the power, with a lower bound."""
    return 10 * power.clamp_min(floor).log10()


def log_spectral_distance(spectrum: MeanSpectrum, truth: MeanSpectrum, *, floor: float = QUANTIZATION_POWER) -> float:
    """Return the root mean square of the difference in dB over all frequency bins but the zero frequency.

    Powers below `floor` count as equal to it.

    Raises:
        ValueError: the spectra are of samples of different sizes.
    """
    same_grid(spectrum, truth)
    moving = truth.frequency > 0
    difference = decibels(spectrum.power, floor) - decibels(truth.power, floor)
    return float(difference[moving].square().mean().sqrt())


def power_ratio(
    spectrum: MeanSpectrum,
    truth: MeanSpectrum,
    *,
    low: float = 0.0,
    high: float = 1.0,
    floor: float = QUANTIZATION_POWER,
) -> float:
    """Return the energy at frequencies in (low, high] cycles per sample relative to the truth's, dB; 0 is best.

    Raises ValueError for spectra of samples of different sizes.
    """
    same_grid(spectrum, truth)
    inside = (truth.frequency > low) & (truth.frequency <= high)
    energy, true_energy = ((s.power * s.size)[inside].sum() for s in (spectrum, truth))
    least = floor * truth.size[inside].sum()
    return float(10 * (energy.clamp_min(least) / true_energy.clamp_min(least)).log10())


def band_energy_share(x: Tensor, bands: Tensor) -> float:
    """Return the share of the energy of `x` `[N, C, H, W]`, without its mean, in the coefficients marked by `bands`."""
    power = torch.fft.fft2(_checks.in_float64(x), norm="ortho").abs().square().mean((0, 1))
    power[0, 0] = 0
    return float(power[bands.to(power.device)].sum() / power.sum().clamp_min(torch.finfo(power.dtype).tiny))


def board_fidelity(x: Tensor, boards: Tensor) -> Tensor:
    """Return the correlation `[N]` of each sample of `x` `[N, 1, H, W]` with its nearest checkerboard; 1 for a board.

    `boards` `[K, H, W]` in {−1, 1} holds every board of the family; `x` is in [-1, 1]. The product with a board is
    averaged over pixels and not divided by the norm of the sample, so a faded board scores less than 1.
    """
    if x.shape[1:] != (1, *boards.shape[1:]):
        raise ValueError(f"x must be [N, 1, {boards.shape[1]}, {boards.shape[2]}]; got {list(x.shape)}")
    return (x.flatten(1) @ boards.flatten(1).to(x).T).amax(1) / boards[0].numel()


def to_uint8(x: Tensor) -> Tensor:
    """Return images in [-1, 1] as uint8, in EDM's way: x·127.5 + 128, clipped to 0 … 255 and truncated."""
    _checks.compute_dtype("x", x)
    return (x * 127.5 + 128).clamp(0, 255).to(torch.uint8)


def from_uint8(x: Tensor) -> Tensor:
    """Return 8-bit images as float32 in [-1, 1]."""
    return x.float() / 127.5 - 1


def same_grid(spectrum: MeanSpectrum, truth: MeanSpectrum) -> None:
    """Raise ValueError unless both spectra are of samples of one size.

    The frequencies are not enough: 24×32 and 32×32 have the same bins, with other numbers of coefficients in them.
    """
    if not (torch.equal(spectrum.frequency, truth.frequency) and torch.equal(spectrum.size, truth.size)):
        found = [f"{len(s.frequency)} bins of {s.size.sum():.0f} coefficients" for s in (spectrum, truth)]
        raise ValueError(f"spectra must be of one image size; got {' and '.join(found)}")
