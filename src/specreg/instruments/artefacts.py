"""Peaks that a grid leaves in a spectrum: multiples of 1/2, 1/4 and 1/8 of the sampling rate above their neighbourhood.

Transposed convolutions and patches leave checkerboards of period 2 or 4, JPEG and some autoencoders a grid of period 8.
A peak is judged by the log of its mean power minus the median of the coefficients around it, in units of the spread
that this difference has at frequencies where no grid of these periods can be. Coefficients along an axis also hold what
the ends of non-periodic data leak, and are compared with others along that axis.
"""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import numpy as np

from specreg.instruments.grid import Floats
from specreg.instruments.measure import Spectrum

PERIODS = (2, 4, 8)
REACH = 4
"""Half side of the neighbourhood; a window spreads a peak into the nearest coefficients, which are not in it."""
LEAST_Z = 6.0
SAMPLE = 2048


class Artefact(NamedTuple):
    """A peak at one frequency."""

    frequency: tuple[float, ...]  # cycles per sample along each axis
    period: int  # samples of the coarsest grid that has this frequency
    z: float
    ratio_db: float  # power relative to that of its neighbourhood


def artefacts(spectrum: Spectrum, reference: Spectrum | None = None, *, least_z: float = LEAST_Z) -> list[Artefact]:
    """Return the peaks of at least `least_z`, the highest first."""
    return [peak for peak in candidates(spectrum, reference) if peak.z >= least_z]


def candidates(spectrum: Spectrum, reference: Spectrum | None = None) -> list[Artefact]:
    """Return all frequencies at which a grid would show, with their z, the highest first.

    With a reference, of the ratio of both powers: what the data themselves have at a frequency is no artefact of a
    model. None for the DCT, nor for periods of which fewer than four fit into an axis.
    """
    shape = spectrum.grid.shape
    if spectrum.grid.transform == "dct":
        return []
    power = np.log(np.maximum(_whole(spectrum.lattice, shape), spectrum.floor))
    if reference is not None:
        power -= np.log(np.maximum(_whole(reference.lattice, shape), reference.floor))
    reserved, places = _grid_frequencies(shape)
    if not places:
        return []
    found = {}
    spread: dict[tuple[bool, ...], float] = {}
    for index, frequency, period in places:
        on_axes = tuple(i == 0 for i in index)
        if on_axes not in spread:
            spread[on_axes] = _spread(power, on_axes, reserved)
        middle = _neighbourhood(power, index, reserved)
        if middle is None or not spread[on_axes] > 0:
            continue
        height = float(power[index]) - middle
        found[frequency] = Artefact(frequency, period, height / spread[on_axes], 10 / math.log(10) * height)
    return sorted(found.values(), key=lambda peak: -peak.z)


def _whole(half: Floats, shape: tuple[int, ...]) -> Floats:
    """Return the whole spectrum of a half one: power at −k equals that at k."""
    last = shape[-1]
    mirrored = half[..., 1 : (last + 1) // 2][..., ::-1]
    for axis in range(len(shape) - 1):
        mirrored = np.roll(np.flip(mirrored, axis), 1, axis)
    return np.concatenate([half, mirrored], -1)


def _grid_frequencies(
    shape: tuple[int, ...],
) -> tuple[set[tuple[int, ...]], list[tuple[tuple[int, ...], tuple[float, ...], int]]]:
    """Return the indices of all grid frequencies, and those of one half of them with frequency and period."""
    reserved: set[tuple[int, ...]] = set()
    places = []
    longest = max(period for period in (1, *PERIODS) if min(n for n in shape if n > 1) >= 4 * period)
    for steps in itertools.product(range(longest), repeat=len(shape)):
        index = tuple(round(n * step / longest) % n for n, step in zip(shape, steps, strict=True))
        reserved.add(index)
        signed = tuple(step / longest - (step > longest / 2) for step in steps)
        first = next((s for s in reversed(signed) if s % 0.5), 0.5)
        if any(steps) and first > 0:
            places.append((index, signed, max(_period(step, longest) for step in steps)))
    return reserved, places


def _period(step: int, longest: int) -> int:
    return longest // math.gcd(step, longest)


def _neighbourhood(power: Floats, index: tuple[int, ...], reserved: set[tuple[int, ...]]) -> float | None:
    """Return the median around an index, along the axes on which it does not lie."""
    values = []
    steps = [range(-REACH, REACH + 1) if i else (0,) for i in index]
    for step in itertools.product(*steps):
        place = tuple((i + s) % n for i, s, n in zip(index, step, power.shape, strict=True))
        off_axes = all(p != 0 for p, i in zip(place, index, strict=True) if i)
        if max(map(abs, step)) > 1 and off_axes and place not in reserved:
            values.append(power[place])
    return float(np.median(values)) if len(values) >= 4 else None


def _spread(power: Floats, on_axes: tuple[bool, ...], reserved: set[tuple[int, ...]]) -> float:
    """Return the spread (1.48 · median absolute deviation) of power around its neighbourhood, away from grids."""
    shape = power.shape
    free = [(0,) if on else range(n) for on, n in zip(on_axes, shape, strict=True)]
    places = [
        place
        for place in itertools.product(*free)
        if place not in reserved
        and all(on or p != 0 for on, p in zip(on_axes, place, strict=True))
        and math.hypot(*(min(p, n - p) / n for p, n in zip(place, shape, strict=True))) > 0.1
    ]
    if len(places) > SAMPLE:
        chosen = np.random.default_rng(0).choice(len(places), SAMPLE, replace=False)
        places = [places[i] for i in chosen]
    found = [(power[place], _neighbourhood(power, place, reserved)) for place in places]
    heights = [height - middle for height, middle in found if middle is not None]
    if len(heights) < 8:
        return 0.0
    return float(1.4826 * np.median(np.abs(np.asarray(heights) - np.median(heights))))
