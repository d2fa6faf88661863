"""What one spectrum says by itself: slope, directions, wavelet statistics, spread of powers, how sure the mean is."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from specreg.instruments.features import quantiles_db, wavelet_counts
from specreg.instruments.grid import DIRECTIONS, Floats
from specreg.instruments.measuring import Spectrum
from specreg.instruments.sums import Value, interval

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def decibels(power: Floats, floor: float) -> Floats:
    """Return 10·log10 of powers, with `floor` as their lower bound."""
    return 10 * np.log10(np.maximum(power, floor))


class Slope(NamedTuple):
    """Exponent a of the fit P ∝ f^a between two frequencies."""

    value: float
    low: float
    high: float
    fitted: tuple[float, float]  # cycles per sample


def slope(spectrum: Spectrum, fitted: tuple[float, float] | None = None) -> Slope:
    """Return the slope of log power over log frequency, each octave weighted alike.

    By default from the fourth bin (the third where there are few) to 0.4 cycles per sample. Raises ValueError for a
    range with fewer than three bins.
    """
    low, high = fitted or (float(spectrum.frequency[3 if spectrum.grid.bins >= 16 else 1]), 0.4)
    inside = (spectrum.frequency >= low * (1 - 1e-9)) & (spectrum.frequency <= high * (1 + 1e-9))
    if inside.sum() < 3:
        raise ValueError(
            f"a slope needs three bins; between {low:.4g} and {high:.4g} cycles per sample there are "
            f"{inside.sum()} of {spectrum.grid.bins}"
        )
    x = np.log(spectrum.frequency[inside])
    weight = 1 / spectrum.frequency[inside]
    x = x - np.average(x, weights=weight)
    filter_ = weight * x / (weight * x * x).sum()

    def fit(power: Floats) -> Floats:
        fitted_: Floats = np.log(np.maximum(power[..., inside], spectrum.floor)) @ filter_
        return fitted_

    found = interval(float(fit(spectrum.power)), fit(spectrum.replicates), spectrum.sums.groups)
    return Slope(*found, (low, high))


class Direction(NamedTuple):
    """Power of the waves of one direction relative to the mean over directions, at equal frequency, dB."""

    degrees: float  # of the wave vector: 0 for vertical stripes, 90 for horizontal ones
    ratio_db: Value


def directions(spectrum: Spectrum) -> list[Direction]:
    """Return the power by direction; an empty list but for images."""
    sector = spectrum.grid.sector
    if sector is None:
        return []
    bands = spectrum.grid.bands
    size = np.bincount(sector.numpy(), spectrum.grid.share.numpy(), minlength=bands * DIRECTIONS + 1)[:-1]
    size = size.reshape(bands, DIRECTIONS)
    full = (size > 0).all(1)

    def relative(summed: Floats) -> Floats:
        power = summed.reshape(*summed.shape[:-1], bands, DIRECTIONS)[..., full, :] / size[full]
        share = (power / np.maximum(power.mean(-1, keepdims=True), 1e-300)).mean(-2)
        return decibels(share, 1e-30)

    value = relative(spectrum.sums.mean("directions"))
    replicates = relative(spectrum.sums.means("directions"))
    return [
        Direction(180 * k / DIRECTIONS, interval(float(value[k]), replicates[:, k], spectrum.sums.groups))
        for k in range(DIRECTIONS)
    ]


class WaveletLevel(NamedTuple):
    """Detail coefficients of one level of the Haar transform."""

    level: int  # 1 is the finest
    power: Value  # mean square
    kurtosis: Value  # E w⁴ / (E w²)²: 3 for Gaussian data, more for sparse data
    sparsity: Value  # (E |w|)² / E w²: 2/π for Gaussian data, less for sparse data


def wavelet_levels(spectrum: Spectrum) -> list[WaveletLevel]:
    """Return the statistics of wavelet coefficients by level, over all channels and orientations."""
    counts = wavelet_counts(spectrum.grid.shape, spectrum.shape[0])

    def statistics(summed: Floats, level: int) -> tuple[Floats, Floats, Floats]:
        absolute, square, fourth = (summed[..., 3 * level + k] / counts[level] for k in range(3))
        safe = np.maximum(square, 1e-150)
        return square, fourth / safe**2, absolute**2 / safe

    mean, means = spectrum.sums.mean("wavelet"), spectrum.sums.means("wavelet")
    found = []
    for level in range(len(counts)):
        pairs = zip(statistics(mean, level), statistics(means, level), strict=True)
        values = [interval(float(value), replicates, spectrum.sums.groups) for value, replicates in pairs]
        found.append(WaveletLevel(level + 1, *values))
    return found


def power_quantiles(spectrum: Spectrum) -> list[list[float]]:
    """Return the `QUANTILES` of the power of single coefficients in each band, dB, `[bands][5]`.

    Of Gaussian data the power is exponentially distributed: the quantiles lie at −12.9, −5.4, −1.6, 1.4 and 4.8 dB
    around the mean power of the band. Wider is sparse or of mixed contrast.
    """
    return quantiles_db(spectrum.sums.total["histogram"], QUANTILES)


class Error(NamedTuple):
    """How far the mean over `samples` lies from that of very many: root mean square over bins, dB."""

    samples: int
    decibels: float


def error_against_number(spectrum: Spectrum) -> list[Error]:
    """Return the error of the mean spectrum against the number of samples, from disjoint parts of the set.

    Parts of 1, 2, 4 … blocks of samples are compared with the other blocks; a law of 1 / √N continues the curve to
    the set itself, which has nothing larger to be compared with.
    """
    blocks, counts = spectrum.sums.blocks["power"], spectrum.sums.block_counts
    filled = np.flatnonzero(counts)
    if len(filled) < 4:
        return []
    generator = np.random.default_rng(0)
    found = []
    parts = 1
    while parts <= len(filled) // 2:
        squares, numbers = [], []
        for _ in range(32):
            chosen = generator.permutation(filled)
            part, rest = chosen[:parts], chosen[parts:]
            difference = _decibels_of(spectrum, blocks[part].sum(0) / counts[part].sum()) - _decibels_of(
                spectrum, blocks[rest].sum(0) / counts[rest].sum()
            )
            # The rest has errors too: variances add as 1/n + 1/m.
            squares.append((difference**2).mean() / (1 + counts[part].sum() / counts[rest].sum()))
            numbers.append(counts[part].sum())
        found.append(Error(round(float(np.mean(numbers))), math.sqrt(np.mean(squares))))
        parts *= 2
    last = found[-1]
    found.append(Error(spectrum.sums.samples, last.decibels * math.sqrt(last.samples / spectrum.sums.samples)))
    return found


def split_half(spectrum: Spectrum, splits: int = 100) -> Value | None:
    """Return the log-spectral distance between random halves of a set, dB: mean and 95% range over splits."""
    blocks, counts = spectrum.sums.blocks["power"], spectrum.sums.block_counts
    filled = np.flatnonzero(counts)
    if len(filled) < 4:
        return None
    generator = np.random.default_rng(0)
    found = []
    for _ in range(splits):
        chosen = generator.permutation(filled)
        halves = chosen[: len(chosen) // 2], chosen[len(chosen) // 2 :]
        first, second = (_decibels_of(spectrum, blocks[h].sum(0) / counts[h].sum()) for h in halves)
        found.append(math.sqrt(((first - second) ** 2).mean()))
    low, high = np.quantile(found, [0.025, 0.975])
    return Value(float(np.mean(found)), float(low), float(high))


def _decibels_of(spectrum: Spectrum, summed: Floats) -> Floats:
    """Return the dB of the mean over channels by bin up to Nyquist of power sums per sample."""
    power = summed.reshape(spectrum.shape[0], -1).mean(0)[1:-1] / spectrum.grid.size[1:-1]
    return decibels(power, spectrum.floor)
