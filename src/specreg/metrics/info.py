"""How reports and verdicts show a metric and which values of it are better."""

from __future__ import annotations

from typing import NamedTuple


class MetricInfo(NamedTuple):
    """Label, unit and meaning of a metric, as results.json carries them to the report."""

    label: str
    unit: str
    better: str  # "lower", "higher", or "zero": the nearer to 0, the better
    digits: int  # shown after the decimal point
    help: str
    absolute: bool = False  # True for a property of the samples alone, False for a distance to real data
    side: str = "samples"  # what is measured: "samples", or "denoising" of real images in one step
