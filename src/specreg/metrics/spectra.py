"""How far the spectrum of samples is from that of real data.

Spectra are radially averaged mean power per coefficient of an orthonormal DFT; data are in [-1, 1]. Every
comparison in decibels is floored at the power of 8-bit quantization noise: samples are stored as 8-bit images,
and nothing below that noise is signal.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from specreg import _checks
from specreg.transforms.radial import power_spectrum

QUANTIZATION_POWER = (2 / 255) ** 2 / 12
"""Variance, hence power per orthonormal coefficient, of rounding [-1, 1] to 8 bits: −52.9 dB."""


class MeanSpectrum(NamedTuple):
    """Mean over samples of the radial power spectrum, float64."""

    frequency: Tensor  # [bins], cycles per sample
    power: Tensor  # [bins]
    size: Tensor  # [bins], coefficients


def mean_spectrum(x: Tensor, *, batch_size: int = 256) -> MeanSpectrum:
    """Mean radial power spectrum of `x`, `[N, C, *space]` in [-1, 1], in float64."""
    parts = [power_spectrum(part.to(_checks.widest_dtype(part.device))) for part in torch.split(x, batch_size)]
    power = torch.cat([part.power for part in parts]).mean(0)
    return MeanSpectrum(parts[0].frequency, power, parts[0].size)


def decibels(power: Tensor) -> Tensor:
    """10·log10 of power, floored at `QUANTIZATION_POWER`."""
    return 10 * power.clamp_min(QUANTIZATION_POWER).log10()


def log_spectral_distance(spectrum: MeanSpectrum, truth: MeanSpectrum) -> float:
    """Root mean square over frequency bins, the zero frequency left out, of the difference in dB.

    Raises:
        ValueError: the two were taken on different grids.
    """
    _same_grid(spectrum, truth)
    moving = truth.frequency > 0
    difference = decibels(spectrum.power) - decibels(truth.power)
    return float(difference[moving].square().mean().sqrt())


def power_ratio(spectrum: MeanSpectrum, truth: MeanSpectrum, *, low: float = 0.0, high: float = 1.0) -> float:
    """Energy at frequencies in (low, high] cycles per sample relative to the truth's, in dB; 0 is right."""
    _same_grid(spectrum, truth)
    inside = (truth.frequency > low) & (truth.frequency <= high)
    energy, true_energy = ((s.power * s.size)[inside].sum() for s in (spectrum, truth))
    floor = QUANTIZATION_POWER * truth.size[inside].sum()
    return float(10 * (energy.clamp_min(floor) / true_energy.clamp_min(floor)).log10())


def band_energy_share(x: Tensor, bands: Tensor) -> float:
    """Share of the energy of `x` `[N, C, H, W]`, its mean left out, in the coefficients that `bands` `[H, W]` marks."""
    power = torch.fft.fft2(x.to(_checks.widest_dtype(x.device)), norm="ortho").abs().square().mean((0, 1))
    power[0, 0] = 0
    return float(power[bands].sum() / power.sum().clamp_min(torch.finfo(power.dtype).tiny))


def board_fidelity(x: Tensor, boards: Tensor) -> Tensor:
    """Correlation of each sample of `x` `[N, 1, H, W]` with the checkerboard nearest to it: `[N]`, 1 for a board.

    `boards` `[K, H, W]` in {−1, 1} holds every board of the family, `x` is in [-1, 1]. The product with a board is
    averaged over pixels and not divided by the sample's own norm, so a faded board scores less than 1.
    """
    if x.shape[1:] != (1, *boards.shape[1:]):
        raise ValueError(f"x must be [N, 1, {boards.shape[1]}, {boards.shape[2]}]; got {list(x.shape)}")
    return (x.flatten(1) @ boards.flatten(1).to(x).T).amax(1) / boards[0].numel()


def to_uint8(x: Tensor) -> Tensor:
    """Round `[-1, 1]` images to 8 bits, 0 … 255, as EDM stores its samples: x·127.5 + 128, clipped and truncated."""
    _checks.compute_dtype("x", x)
    return (x * 127.5 + 128).clamp(0, 255).to(torch.uint8)


def from_uint8(x: Tensor) -> Tensor:
    """8-bit images as float32 in [-1, 1]."""
    return x.float() / 127.5 - 1


def _same_grid(spectrum: MeanSpectrum, truth: MeanSpectrum) -> None:
    if not torch.equal(spectrum.frequency, truth.frequency):
        raise ValueError(
            f"spectra must be of one image size; got {len(spectrum.frequency)} and {len(truth.frequency)} bins"
        )
