"""95% intervals from resampled sets: how few units widen them, and where the range of a metric ends them."""

from __future__ import annotations

import math
from collections.abc import Sequence


def widening(*numbers: int) -> float:
    """Return the factor on deviations of a bootstrap at 95%, for sets of these numbers of independent units, each ≥ 2.

    For one set of n units it is √(n / (n − 1)) · t / z, t of n − 1 degrees of freedom: resampled means have (n − 1) / n
    of the variance of the mean, and the variance is estimated too. For several sets that are resampled independently
    of each other, the degrees of freedom are Welch's for units that vary alike in all sets.
    """
    try:
        from scipy.stats import norm, t
    except ImportError as error:
        raise ImportError('95% intervals need scipy: pip install "specreg[train]"') from error
    variance = sum(1 / n for n in numbers)
    resampled = sum((n - 1) / n**2 for n in numbers)
    freedom = variance**2 / sum(1 / (n**2 * (n - 1)) for n in numbers)
    return float(math.sqrt(variance / resampled) * t.ppf(0.975, freedom) / norm.ppf(0.975))


def around(
    value: float, deviation: float, numbers: Sequence[int], within: tuple[float, float] = (-math.inf, math.inf)
) -> tuple[float, float]:
    """Return the 95% interval of a metric: its value ± 1.96 standard deviations, widened for few units.

    Args:
        value: the metric.
        deviation: its standard deviation over resampled sets.
        numbers: the independent units of each resampled set. A set of one does not vary, and widens nothing.
        within: the least and the largest value that the metric can have; the interval ends there.
    """
    several = [n for n in numbers if n > 1]
    half = 1.96 * deviation * (widening(*several) if several else 1.0)
    return max(value - half, within[0]), min(value + half, within[1])
