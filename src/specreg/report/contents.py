"""What the files of a comparison folder or a run folder hold, read: `reading.py` reads them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Images = NDArray[np.uint8]
Samples = NDArray[Any]
"""Pictures or lines: see `read_samples`."""

Record = dict[str, Any]

# What the report uses of a line of metrics.jsonl.
COLUMNS = ("step", "base", "spectral", "lambda", "gradient_ratio", "seconds_per_step")


class Spectrum(NamedTuple):
    """A radially averaged power spectrum: `frequency` [F] in cycles/sample, `power` [F] (|ortho DFT|²).

    `low` and `high` [F] bound the power where its interval was measured.
    """

    frequency: Array
    power: Array
    low: Array | None = None
    high: Array | None = None


class Denoising(NamedTuple):
    """One-step denoising of real data, [L, K] by noise level and band: the noisiest level first, values in dB.

    `log_snr` [L] is the natural log of α²/σ², rising; `edges` [K+1] are the bands' edges in cycles/sample.
    `error_db` is relative to the power of the data, `pull_db` (of the spectral term) to the base loss's gradient.
    `gain` is the factor on x0_hat of least squared error: 1 is calibrated.
    """

    log_snr: Array
    edges: Array
    error_db: Array
    pull_db: Array | None
    gain: Array | None = None


@dataclass(frozen=True)
class Arm:
    """One arm of the comparison and the colour that marks it in every figure and table.

    `part` tells apart arms of one name from different folders on one page.
    """

    name: str
    label: str
    color: str
    part: int = 0


@dataclass(frozen=True)
class Truth:
    """The real data of a folder: what they are called, and what is known of them."""

    name: str
    spectrum: Spectrum | None = None
    samples: Samples | None = None
    folder: Path | None = None  # of its samples


@dataclass(frozen=True)
class Cell:
    """One arm at one seed. `missing` says why it does not count; None when it is finished.

    `stopped` says that it failed, and is not just unfinished.
    """

    arm: Arm
    seed: int
    folder: Path | None = None
    results: Record | None = None
    log: dict[str, Array] = field(default_factory=lambda: {name: np.empty(0) for name in COLUMNS})
    truncated: int = 0
    spectrum: Spectrum | None = None
    denoising: Denoising | None = None
    samples: Samples | None = None
    missing: str | None = None
    stopped: bool = False
    run: bool = True  # False: a set of samples, of which nothing else is known; its seed means nothing

    @property
    def seconds_per_step(self) -> float:
        """Seconds a training step: from results.json, else the median of the log, else NaN."""
        seconds = ((self.results or {}).get("timing") or {}).get("seconds_per_step")
        if seconds is not None:
            return float(seconds)
        logged = self.log["seconds_per_step"]
        return float(np.median(logged[np.isfinite(logged)])) if np.isfinite(logged).any() else math.nan


@dataclass(frozen=True)
class RunFiles:
    """All that a report shows: the comparison (for a single run, one of one arm), its arms, cells and truth.

    A page of several folders has their files as `parts`, and one truth for each part; equal ones are one object.
    """

    folder: Path
    comparison: Record
    arms: list[Arm]
    cells: list[Cell]
    truths: list[Truth]
    several: list[RunFiles] = field(default_factory=list)
    title: str = ""  # of one folder among several

    @property
    def parts(self) -> list[RunFiles]:
        """The folders on the page."""
        return self.several or [self]

    def truth(self, arm: Arm) -> Truth:
        """Return the real data that an arm is compared with."""
        return self.truths[arm.part if self.several else 0]

    @property
    def different_truths(self) -> list[Truth]:
        """The real data on the page, each once."""
        return list({id(truth): truth for truth in self.truths}.values())

    @property
    def runs(self) -> list[Cell]:
        """The cells that are runs, finished or not."""
        return [cell for cell in self.cells if cell.run]

    def of(self, arm: Arm) -> list[Cell]:
        """Return the finished cells of one arm, by seed."""
        return [cell for cell in self.cells if cell.arm == arm and cell.missing is None]
