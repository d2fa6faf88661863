"""Scores of clips, with what failed and what could not run kept beside the numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

T = TypeVar("T")


class Unavailable(RuntimeError):
    """A metric cannot run here: a package or weights are missing. The message says what is needed and where from."""


@dataclass(frozen=True)
class ClipScores:
    """One metric over clips: `clips == len(values) + len(failures)`, unless `missing` says why it did not run."""

    metric: str
    unit: str
    values: dict[str, float] = field(default_factory=dict)
    """By clip, finite."""
    failures: dict[str, str] = field(default_factory=dict)
    """By clip, why there is no value."""
    missing: str | None = None
    """Why the metric did not run at all: what to install or fetch."""

    @property
    def mean(self) -> float | None:
        """Mean over the clips that have a value; None where none has."""
        return math.fsum(self.values.values()) / len(self.values) if self.values else None


def score_clips(
    metric: str,
    unit: str,
    clips: Mapping[str, T],
    score: Callable[[T], float],
    *,
    expected: tuple[type[Exception], ...],
) -> ClipScores:
    """Score clips one by one.

    A clip on which `score` raises one of the `expected` errors, or returns NaN or infinity, counts as a failure under
    its name; `Unavailable` makes the metric a missing one; other errors pass through.
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
