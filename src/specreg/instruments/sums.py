"""Sums over samples, and the same sums over resampled sets: the uncertainty of whatever is computed of them.

Resampling is the Poisson bootstrap: in each of R replicates an independent unit (a source image, a clip) counts a
number of times drawn from a Poisson distribution of mean 1, by a generator seeded by the unit's index. Neither the
order of the work nor its division matters, and memory does not grow with the number of samples. A replicate in which no
unit counts (one in eᴺ, for N units) has no mean: its statistics are NaN, and intervals leave it out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from specreg._intervals import widening

Floats = NDArray[np.float64]
BLOCKS = 64


class Value(NamedTuple):
    """An estimate with its 95% interval; the bounds are NaN where there are too few independent units."""

    value: float
    low: float
    high: float


class Sums:
    """Sums of features over a set, over its replicates, and over `BLOCKS` parts of it."""

    def __init__(self, replicates: int, seed: int) -> None:
        self.seed, self.replicates = seed, replicates
        self.samples = 0
        self.groups = 0
        self._last_group = -1
        self.total: dict[str, Floats] = {}
        self.resampled: dict[str, Floats] = {}
        self.blocks: dict[str, Floats] = {}
        self.counts = np.zeros(replicates)
        self.block_counts = np.zeros(BLOCKS)

    def add(self, by_sample: Mapping[str, Floats], summed: Mapping[str, Floats], groups: Sequence[int]) -> None:
        """Add a chunk of n samples.

        Args:
            by_sample: arrays `[n, F]`, which are summed over the set, its replicates and its blocks.
            summed: arrays that are sums over the chunk already, which are summed over the set only.
            groups: the independent unit of each sample, `[n]`, not decreasing from chunk to chunk.
        """
        of_sample = np.asarray(groups, dtype=np.int64)
        known, inverse, numbers = np.unique(of_sample, return_inverse=True, return_counts=True)
        self.samples += len(of_sample)
        self.groups += len(known) - int(known[0] == self._last_group)
        self._last_group = int(known[-1])
        weights = np.stack([_counts(self.seed, int(group), self.replicates) for group in known], 1)
        self.counts += weights @ numbers
        np.add.at(self.block_counts, known % BLOCKS, numbers)
        for name, array in by_sample.items():
            by_group = np.zeros((len(known), array.shape[1]))
            np.add.at(by_group, inverse, array)
            blocks = np.zeros((BLOCKS, array.shape[1]))
            np.add.at(blocks, known % BLOCKS, by_group)
            self._to(self.total, name, by_group.sum(0))
            self._to(self.resampled, name, weights @ by_group)
            self._to(self.blocks, name, blocks)
        for name, array in summed.items():
            self._to(self.total, name, array)

    @staticmethod
    def _to(sums: dict[str, Floats], name: str, part: Floats) -> None:
        sums[name] = sums[name] + part if name in sums else part.astype(np.float64)

    def mean(self, name: str) -> Floats:
        """Return the mean over samples, `[F]`."""
        return self.total[name] / self.samples

    def means(self, name: str) -> Floats:
        """Return the mean over the samples of each replicate, `[R, F]`; NaN for a replicate that holds no sample."""
        counts = np.where(self.counts > 0, self.counts, np.nan)
        return self.resampled[name] / counts[:, None]


def _counts(seed: int, group: int, replicates: int) -> Floats:
    generator = np.random.Generator(np.random.Philox(key=[seed, group]))
    return generator.poisson(1.0, replicates).astype(np.float64)


LEAST_GROUPS = 5


def interval(value: float, replicates: Floats, groups: int) -> Value:
    """Return the 95% interval of an estimate from its replicates: the basic bootstrap.

    Deviations are widened for few groups as Student's t does, n groups having n − 1 degrees of freedom. Replicates that
    are not finite are left out.
    """
    finite = replicates[np.isfinite(replicates)]
    if groups < LEAST_GROUPS or len(finite) < 0.9 * len(replicates) or not math.isfinite(value):
        return Value(value, math.nan, math.nan)
    low, high = np.quantile(finite, [0.025, 0.975])
    wider = widening(groups)
    return Value(value, float(value - wider * (high - value)), float(value - wider * (low - value)))
