"""Paired comparison: arms that differ in the spectral term only, run from the same seeds.

Cells (arm × seed) of one seed share initial weights, data order, timesteps, noise and the latents of their samples, so
that differences between arms are not differences of luck. Finished cells are never run again.
"""

from specreg.compare.arms import BASELINE, CALIBRATED, cell_config, cell_name, label, resolve_arms, with_yardstick
from specreg.compare.paired import Difference, paired_difference, verdict
from specreg.compare.run import compare
from specreg.compare.timing import step_seconds

__all__ = [
    "BASELINE",
    "CALIBRATED",
    "Difference",
    "cell_config",
    "cell_name",
    "compare",
    "label",
    "paired_difference",
    "resolve_arms",
    "step_seconds",
    "verdict",
    "with_yardstick",
]
