"""What paired runs say: the mean difference, how sure it is, and a plain verdict."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple


class Difference(NamedTuple):
    """Mean paired difference to the baseline, with its 95% interval (Student's t over seeds)."""

    mean: float
    low: float
    high: float


def paired_difference(values: Sequence[float], baseline: Sequence[float], better: str) -> Difference | None:
    """Mean and 95% interval of `values` − `baseline`, pair by pair; None for fewer than two, or where one is no number.

    For metrics that are best at zero, the difference of absolute values.
    """
    size = abs if better == "zero" else float
    differences = [size(a) - size(b) for a, b in zip(values, baseline, strict=True)]
    n = len(differences)
    if n < 2 or not all(map(math.isfinite, differences)):
        return None
    from scipy.stats import t

    mean = statistics.fmean(differences)
    half = float(t.ppf(0.975, n - 1)) * statistics.stdev(differences) / math.sqrt(n)
    return Difference(mean, mean - half, mean + half)


def verdict(difference: Difference | None, better: str) -> str | None:
    """Say "better" or "worse" where the 95% interval leaves out 0, else "no difference seen"; None without interval."""
    if difference is None:
        return None
    if difference.low <= 0 <= difference.high:
        return "no difference seen"
    return "better" if (difference.mean > 0) == (better == "higher") else "worse"
