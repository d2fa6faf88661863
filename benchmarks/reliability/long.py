"""What a long run takes more and more of: `python -m benchmarks.reliability.long --steps 20000`.

A tiny network trains in this process, with a checkpoint every 250 steps and a log line every 10. After each 1,000 steps
the memory in use (resident set), open files, threads and Python objects are counted. Shown is the growth of each a
thousand steps, a line through all counts but those of the first 1,000, when libraries still fill their caches.
"""

from __future__ import annotations

import argparse
import gc
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.console import Console

from benchmarks.reliability.kill import CONFIG
from specreg.config import Config
from specreg.modalities import parse
from specreg.training.batches import Batch
from specreg.training.trainer import Trainer

EVERY = 1000
MOST_MB = 1.0
"""Growth a thousand steps that is allowed."""


class Count(NamedTuple):
    """What a process holds after some steps."""

    step: int
    megabytes: float
    handles: int
    threads: int
    objects: int


class _Counted(Trainer):
    """A trainer that counts what the process holds every so many steps."""

    every = EVERY

    def train_step(self, parts: list[Batch], *, measure_ratio: bool = False) -> dict[str, float | None]:
        if self.step % self.every == 0:
            gc.collect()
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            held = len(list(Path("/proc/self/fd").iterdir()))
            self.counts.append(
                Count(self.step, pages * 4096 / 1e6, held, threading.active_count(), len(gc.get_objects()))
            )
        return super().train_step(parts, measure_ratio=measure_ratio)

    def run(self) -> None:
        self.counts: list[Count] = []
        super().run()


def counts(config: Config, folder: Path, *, every: int = EVERY) -> list[Count]:
    """Train a run in `folder`, and return what the process held at its start and after each `every` steps."""
    with _Counted(config, folder, console=Console(quiet=True)) as trainer:
        trainer.every = every
        trainer.run()
    return trainer.counts


def growth(found: list[Count], *, every: int = EVERY) -> dict[str, float]:
    """Return how much of each a run takes more in `every` steps: the slope of a line, the first two counts left out."""
    settled = found[2:] if len(found) > 3 else found[1:]
    steps = np.array([count.step for count in settled]) / every
    names = Count._fields[1:]
    return {name: float(np.polyfit(steps, [getattr(count, name) for count in settled], 1)[0]) for name in names}


def main() -> None:
    """Count from the command line; exit code 1 where memory or handles grow."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("overrides", nargs="*", help="such as training.workers=1")
    given = parser.parse_args()
    if given.steps < 4 * EVERY:
        parser.error(f"--steps: expected at least {4 * EVERY}; got {given.steps}")
    settings = [f"training.steps={given.steps + 1}", "training.checkpoint_every=250", "training.log_every=10"]
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        found = counts(parse(CONFIG, [*settings, *given.overrides]), Path(name) / "run")
    for count in found:
        print(
            f"step {count.step:6,}: {count.megabytes:7.1f} MB, {count.handles} handles, {count.threads} threads, "
            f"{count.objects:,} objects"
        )
    grown = growth(found)
    shown = ", ".join(f"{value:+.2f} {name}" for name, value in grown.items())
    print(f"growth per {EVERY:,} steps: {shown}; {time.monotonic() - began:.0f} s")
    sys.exit(grown["megabytes"] > MOST_MB or found[-1].handles > found[1].handles)


if __name__ == "__main__":
    main()
