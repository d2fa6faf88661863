"""Scores of clips, with the clips that failed and the metrics that could not run beside the numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

T = TypeVar("T")


class Unavailable(RuntimeError):
    """A metric cannot run because a package or weights are missing; the message says what to install or fetch."""


@dataclass(frozen=True)
class ClipScores:
    """Values of one metric by clip. Each clip is in `values` or `failures`, unless `missing` says why none is."""

    metric: str
    unit: str
    values: dict[str, float] = field(default_factory=dict)
    """Finite values, by clip."""
    failures: dict[str, str] = field(default_factory=dict)
    """Reasons for the lack of a value, by clip."""
    missing: str | None = None
    """Why the metric did not run: what to install or fetch."""

    @property
    def mean(self) -> float | None:
        """Mean over the clips with a value; None where no clip has one."""
        return math.fsum(self.values.values()) / len(self.values) if self.values else None


def score_clips(
    metric: str,
    unit: str,
    clips: Mapping[str, T],
    score: Callable[[T], float],
    *,
    expected: tuple[type[Exception], ...],
) -> ClipScores:
    """Return the scores of clips, computed one by one.

    A clip on which `score` raises one of the `expected` errors, or returns NaN or infinity, is a failure. Where `score`
    raises `Unavailable`, the metric is missing. Other errors propagate.
    """
    scores = ClipScores(metric, unit)
    for name, clip in clips.items():
        try:
            value = float(score(clip))
        except Unavailable as error:
            return ClipScores(metric, unit, missing=str(error))
        except expected as error:
            scores.failures[name] = f"{type(error).__name__}: {error}".removesuffix(": ")
            continue
        if math.isfinite(value):
            scores.values[name] = value
        else:
            scores.failures[name] = f"the value is {value}"
    return scores
