"""What a spectrum lacks or has too much of beside a reference: distances, bands, effective resolution."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from specreg._intervals import widening
from specreg.instruments.grid import NYQUIST, Floats
from specreg.instruments.measuring import Spectrum
from specreg.instruments.properties import decibels
from specreg.instruments.sources import Source
from specreg.instruments.sums import LEAST_GROUPS, Value, interval

Mask = NDArray[np.bool_]


class Band(NamedTuple):
    """Energy between two frequencies relative to the reference's."""

    low: float  # cycles per sample
    high: float
    ratio_db: Value
    significant: bool | None  # at 5% for all bands together; None where there are too few samples for an interval


class Octave(NamedTuple):
    """Log-spectral distance within an octave."""

    low: float
    high: float
    log_spectral_distance_db: Value


class Difference(NamedTuple):
    """A spectrum beside a reference."""

    log_spectral_distance_db: Value  # corrected for the errors of both means
    uncorrected_db: float  # as measured: larger, the fewer samples
    octaves: list[Octave]
    bands: list[Band]
    high_band_db: Value  # energy above half of Nyquist
    corners_db: Value | None  # energy beyond Nyquist of an axis
    zero_db: Value  # power of the zero frequency
    effective_resolution: Value | None  # cycles per sample; None where the ratio never falls below `share`
    share: float


def difference(spectrum: Spectrum, reference: Spectrum, *, share: float = 0.5) -> Difference:
    """Return how `spectrum` differs from `reference`.

    Intervals come from resampling both sets independently of each other, unless they were measured with one seed:
    then sample i of one is drawn whenever sample i of the other is, as paired sets need.

    Args:
        spectrum: the set in question.
        reference: what it should be like.
        share: effective resolution is the frequency at which the ratio of power falls below this share.

    Raises:
        ValueError: the sets differ in size, channels, spacing or in how they were measured.
    """
    same_kind(spectrum, reference)
    if not 0 < share < 1:
        raise ValueError(f"share must be between 0 and 1; got {share}")
    groups = min(spectrum.sums.groups, reference.sums.groups)
    floor = max(spectrum.floor, reference.floor)
    held = (spectrum.sums.counts > 0) & (reference.sums.counts > 0)  # replicates of which both sets hold a sample
    pair, pairs = (
        [_all_bins(s, s.sums.mean("power")) for s in (spectrum, reference)],
        [_all_bins(s, s.sums.means("power")[held]) for s in (spectrum, reference)],
    )
    inner, inners = [p[1:-1] for p in pair], [p[:, 1:-1] for p in pairs]
    deviation = decibels(inner[0], floor) - decibels(inner[1], floor)
    deviations = decibels(inners[0], floor) - decibels(inners[1], floor)
    grid, size = reference.grid, reference.grid.size

    def distance(chosen: Mask) -> Value:
        return _distance(deviation[chosen], deviations[:, chosen], groups)

    def energy_ratio(chosen: Mask) -> tuple[float, Floats]:
        parts = [_energy(p[..., chosen], size[chosen], floor) for p in (*pair, *pairs)]
        return float(10 * np.log10(parts[0] / parts[1])), 10 * np.log10(parts[2] / parts[3])

    def ratio(chosen: Mask) -> Value:
        return interval(*energy_ratio(chosen), groups)

    number = np.arange(len(size))
    centre = np.concatenate([[0.0], grid.centre, [1.0]])
    inside = (number > 0) & (number < len(size) - 1)
    band = np.concatenate([[-1], grid.band_of_bin, [-1]])
    return Difference(
        distance(np.ones(len(deviation), dtype=bool)),
        math.sqrt((deviation**2).mean()),
        [
            Octave(low, high, distance((grid.centre > low * (1 + 1e-9)) & (grid.centre <= high * (1 + 1e-9))))
            for low, high in _octaves(reference)
        ],
        _bands(reference, [energy_ratio(band == k) for k in range(grid.bands)], groups),
        ratio(inside & (centre > NYQUIST / 2 * (1 + 1e-9))),
        ratio(number == len(size) - 1) if size[-1] else None,
        ratio(number == 0),
        _effective_resolution(reference.frequency, inner, inners, share, floor, groups),
        share,
    )


def same_kind(spectrum: Spectrum, reference: Spectrum) -> None:
    """Raise ValueError unless both sets can be compared bin by bin."""
    names = f"{spectrum.name!r} and {reference.name!r}"
    same_samples(spectrum, reference, names)
    if spectrum.settings != reference.settings:
        raise ValueError(
            f"spectra that are compared need one way of measuring; {names} have {spectrum.settings} and "
            f"{reference.settings}"
        )
    if not spectrum.grid.same_as(reference.grid):
        raise ValueError(f"spectra that are compared need one grid; {names} differ")


def same_samples(one: Spectrum | Source, other: Spectrum | Source, names: str) -> None:
    """Raise ValueError unless the samples of two sets have one size, number of channels and spacing."""
    for what, mine, theirs, hint in (
        ("samples of one size", list(one.shape[1:]), list(other.shape[1:]), "; --tile takes tiles of one size"),
        ("one number of channels", one.shape[0], other.shape[0], "; --channels luma reduces both to one"),
        ("one spacing", one.spacing, other.spacing, ""),
    ):
        if mine != theirs:
            raise ValueError(f"spectra that are compared need {what}; {names} have {mine} and {theirs}{hint}")


def _all_bins(spectrum: Spectrum, flat: Floats) -> Floats:
    """Return mean power per coefficient by bin, mean over channels, of the whole set or its replicates."""
    power: Floats = flat.reshape(*flat.shape[:-1], spectrum.shape[0], -1).mean(-2)
    return power / np.maximum(spectrum.grid.size, 1)


def _energy(power: Floats, size: Floats, floor: float) -> Floats:
    energy: Floats = np.maximum((power * size).sum(-1), floor * size.sum())
    return energy


def _distance(deviation: Floats, deviations: Floats, groups: int) -> Value:
    """Return √(mean d² − mean variance of d), whose expectation is 0 for two sets of one distribution.

    Replicates deviate from the measured d by as much again, so twice the variance is taken from their squares.
    """
    if groups < LEAST_GROUPS:
        return Value(math.sqrt((deviation**2).mean()), math.nan, math.nan)
    variance = deviations.var(0) * groups / (groups - 1)
    squared = interval(float((deviation**2 - variance).mean()), (deviations**2 - 2 * variance).mean(1), groups)
    return Value(*(math.sqrt(max(0.0, bound)) for bound in squared))


def _octaves(reference: Spectrum) -> list[tuple[float, float]]:
    """Return the octaves below Nyquist that hold a bin; the lowest takes what is left."""
    found: list[tuple[float, float]] = []
    high = NYQUIST
    centre = reference.grid.centre
    while (centre <= high).sum() > 2 and len(found) < 12:
        found.append((high / 2, high))
        high /= 2
    if found and (centre <= high).any():
        found.append((0.0, high))
    return found or [(0.0, NYQUIST)]


def _bands(reference: Spectrum, ratios: list[tuple[float, Floats]], groups: int) -> list[Band]:
    """Return the bands; significance from the largest standardized deviation among all of them in each replicate."""
    values = np.array([value for value, _ in ratios])
    replicates = np.stack([r for _, r in ratios], 1)
    edges = reference.grid.band_edges
    error = replicates.std(0)
    sure = groups >= LEAST_GROUPS
    limit = math.nan
    if sure:
        standardized = np.abs(replicates - values) / np.maximum(error, 1e-12)
        limit = float(np.quantile(standardized.max(1), 0.95)) * widening(groups)
    return [
        Band(
            float(edges[k]),
            float(edges[k + 1]),
            interval(value, replicates[:, k], groups),
            bool(abs(value) > limit * error[k]) if sure else None,
        )
        for k, value in enumerate(values.tolist())
    ]


def _effective_resolution(
    frequency: Floats, inner: list[Floats], inners: list[Floats], share: float, floor: float, groups: int
) -> Value | None:
    """Return the lowest frequency from which on the ratio of power stays below `share` for two bins, interpolated."""

    def crossing(ratio: Floats) -> float:
        below = ratio < share
        stays = below & np.append(below[1:], True)
        if not stays.any():
            return math.inf
        k = int(np.argmax(stays))
        if k == 0:
            return float(frequency[0])
        a, b = np.log(np.maximum(ratio[k - 1 : k + 1], 1e-30))
        part = (a - math.log(share)) / (a - b) if a > math.log(share) else 0.0
        return float(frequency[k - 1] + part * (frequency[k] - frequency[k - 1]))

    value = crossing(np.maximum(inner[0], floor) / np.maximum(inner[1], floor))
    if not math.isfinite(value):
        return None
    ratios = np.maximum(inners[0], floor) / np.maximum(inners[1], floor)
    replicates = np.array([min(crossing(ratio), NYQUIST) for ratio in ratios])
    found = interval(value, replicates, groups)
    return Value(value, *(min(max(bound, 0.0), NYQUIST) if math.isfinite(bound) else bound for bound in found[1:]))
