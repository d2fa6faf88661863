"""How a metric is shown and read, by reports and verdicts."""

from __future__ import annotations

from typing import NamedTuple


class MetricInfo(NamedTuple):
    """How a metric is shown and read."""

    label: str
    unit: str
    better: str  # lower, higher, or zero: nearer to 0
    digits: int
    help: str
    absolute: bool = False  # a property of the samples alone, not a distance to the truth
    side: str = "samples"  # what is measured: "samples" (rollout), or "denoising" of real images (teacher's side)
