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
from numpy.typing import NDArray

from specreg.instruments.grid import Floats
from specreg.instruments.measuring import Spectrum

PERIODS = (2, 4, 8)
REACH = 4
"""Half side of the neighbourhood; a window spreads a peak into the nearest coefficients, which are not in it."""
LEAST_Z = 5.0
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
    power -= _radial_mean(power, reserved)
    found = []
    for on_axes in itertools.product((False, True), repeat=len(shape)):
        here = [place for place in places if tuple(i == 0 for i in place.where) == on_axes]
        if not here:
            continue
        # few coefficients lie on an axis, which could look too quiet by chance
        spread = max(_spread(power, on, reserved) for on in {on_axes, (False,) * len(shape)})
        heights = _heights(power, np.array([place.where for place in here]), on_axes, reserved)
        for place, height in zip(here, heights.tolist(), strict=True):
            if spread > 0 and math.isfinite(height):
                found.append(Artefact(place.frequency, place.period, height / spread, 10 / math.log(10) * height))
    return sorted(found, key=lambda peak: -peak.z)


def _whole(half: Floats, shape: tuple[int, ...]) -> Floats:
    """Return the whole spectrum of a half one: power at −k equals that at k."""
    last = shape[-1]
    mirrored = half[..., 1 : (last + 1) // 2][..., ::-1]
    for axis in range(len(shape) - 1):
        mirrored = np.roll(np.flip(mirrored, axis), 1, axis)
    return np.concatenate([half, mirrored], -1)


def _radial_mean(values: Floats, reserved: NDArray[np.bool_]) -> Floats:
    """Return the mean over other coefficients of about the same |k|, at each of them: the fall of the spectrum."""
    axes = np.meshgrid(*(np.fft.fftfreq(n) for n in values.shape), indexing="ij")
    ring = np.rint(np.sqrt(sum(axis**2 for axis in axes)) * max(values.shape)).astype(int)
    count = np.bincount(ring.ravel(), ~reserved.ravel(), minlength=ring.max() + 1)
    total = np.bincount(ring.ravel(), np.where(reserved, 0, values).ravel(), minlength=ring.max() + 1)
    filled = np.flatnonzero(count)  # the outermost corner may hold a grid frequency alone
    mean: Floats = np.interp(np.arange(len(count)), filled, total[filled] / count[filled])[ring]
    return mean


class _Place(NamedTuple):
    where: tuple[int, ...]
    frequency: tuple[float, ...]
    period: int


def _grid_frequencies(shape: tuple[int, ...]) -> tuple[NDArray[np.bool_], list[_Place]]:
    """Return where grid frequencies are in the whole spectrum, and those of one half of it."""
    reserved = np.zeros(shape, dtype=bool)
    places = []
    longest = max(period for period in (1, *PERIODS) if min(n for n in shape if n > 1) >= 4 * period)
    for steps in itertools.product(range(longest), repeat=len(shape)):
        index = tuple(round(n * step / longest) % n for n, step in zip(shape, steps, strict=True))
        reserved[index] = True
        signed = tuple(step / longest - (step > longest / 2) for step in steps)
        first = next((s for s in reversed(signed) if s % 0.5), 0.5)
        if any(steps) and first > 0:
            places.append(_Place(index, signed, max(longest // math.gcd(step, longest) for step in steps)))
    return reserved, places


def _heights(
    power: Floats, places: NDArray[np.int64], on_axes: tuple[bool, ...], reserved: NDArray[np.bool_]
) -> Floats:
    """Return power at `places` `[P, d]` minus the median around each, along the axes on which they do not lie.

    NaN where fewer than four coefficients are around that are neither grid frequencies nor on another axis.
    """
    steps = np.array(list(itertools.product(*((0,) if on else range(-REACH, REACH + 1) for on in on_axes))))
    steps = steps[np.abs(steps).max(1) > 1]
    around = (places[:, None] + steps) % np.array(power.shape)
    index = tuple(np.moveaxis(around, -1, 0))
    free = ~reserved[index] & (around[..., ~np.array(on_axes)] != 0).all(-1)
    values = np.where(free, power[index], np.nan)
    enough = free.sum(1) >= 4
    heights = np.full(len(places), np.nan)
    heights[enough] = power[tuple(places[enough].T)] - np.nanmedian(values[enough], axis=1)
    return heights


def _spread(power: Floats, on_axes: tuple[bool, ...], reserved: NDArray[np.bool_]) -> float:
    """Return the spread (1.48 · median absolute deviation) of `_heights` away from grid frequencies."""
    radius = np.sqrt(sum(axis**2 for axis in np.meshgrid(*map(np.fft.fftfreq, power.shape), indexing="ij")))
    places = np.argwhere(~reserved & (radius > 0.1))
    places = places[((places == 0) == np.array(on_axes)).all(1)]
    if len(places) > SAMPLE:
        places = places[np.random.default_rng(0).choice(len(places), SAMPLE, replace=False)]
    heights = _heights(power, places, on_axes, reserved)
    heights = heights[np.isfinite(heights)]
    if len(heights) < 8:
        return 0.0
    return float(1.4826 * np.median(np.abs(heights - np.median(heights))))
