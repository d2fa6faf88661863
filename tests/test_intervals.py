"""Widening of bootstrap intervals against scipy's t intervals, whose bootstrap deviation is known exactly."""

import math

import numpy as np
import pytest
from scipy.stats import ttest_1samp, ttest_ind

from specreg._intervals import around, widening


def units(count, seed):
    """Return values of variance 1, as an unbiased estimate has it."""
    values = np.random.default_rng(seed).standard_normal(count)
    return (values - values.mean()) / values.std(ddof=1)


def deviation(*sets):
    """Return the standard deviation of a mean, or of a difference of means, over all resampled sets."""
    return math.sqrt(sum(values.var() / len(values) for values in sets))


@pytest.mark.parametrize("count", [2, 5, 60])
def test_one_set_has_student_s_interval(count):
    x = 3 * units(count, 0) + 1
    expected = ttest_1samp(x, 0).confidence_interval()
    assert around(x.mean(), deviation(x), [count]) == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("counts", [(2, 4), (8, 8), (5, 400)])
def test_two_sets_have_welch_s_interval(counts):
    x, y = (units(count, seed) for seed, count in enumerate(counts))
    expected = ttest_ind(x, y + 1, equal_var=False).confidence_interval()
    assert around(-1.0, deviation(x, y), counts) == pytest.approx(expected, abs=1e-4)


def test_many_units_widen_nothing():
    assert widening(10**6) == pytest.approx(1, abs=1e-5)
    assert widening(10**6, 10**6) == pytest.approx(1, abs=1e-5)


def test_a_set_of_one_unit_widens_nothing():
    assert around(2.0, 0.5, [1, 6]) == around(2.0, 0.5, [6])
    assert around(2.0, 0.0, [1, 1]) == (2.0, 2.0)


def test_an_interval_ends_with_the_range():
    assert around(0.1, 1.0, [9, 9], (0.0, math.inf))[0] == 0.0
    assert around(0.9, 1.0, [9, 9], (0.0, 1.0)) == (0.0, 1.0)
    assert math.isnan(around(0.9, math.nan, [9, 9], (0.0, 1.0))[0])
