"""What the term adds to a step of each example: `python -m benchmarks.trainers [--json FILE] [NAME ...]`.

Every second step of an example runs without the term, in one process, so that a noisy machine is noisy for both. A step
is the time from one optimizer step to the next. What is shown is the median ratio of neighbouring steps, with its
interval, and the median difference; with `--processor` of the processor's seconds of this process, which others on
the machine hardly move (with OMP_NUM_THREADS=1: waiting threads count too). The networks of the examples are small
enough to run in seconds: beside a network that takes 100 times as long the term costs the same milliseconds. Examples
whose package is missing say so; those whose trainer is on no index run with the tests' stand-in for it.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import io
import json
import os
import runpy
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch.optim.optimizer import register_optimizer_step_post_hook

import specreg
from benchmarks.measure import median_ratio
from specreg.spectral_term import SpectralTerm

EXAMPLES = Path(__file__).parents[1] / "examples"
STAND_INS = EXAMPLES.parent / "tests" / "stand_ins"
"""Trainers that are on no index, a folder an example: their signatures around a tiny network."""
WARMUP = 6
"""Steps of an example that are not counted."""


clock = time.perf_counter


class Turns:
    """Switches the term off in every second step, and keeps the seconds of steps with it and without."""

    def __init__(self) -> None:
        self.on, self.last = True, 0.0
        self.seconds: list[tuple[bool, float]] = []

    def step(self, *hooked: Any) -> None:
        """Note the end of a step."""
        now = clock()
        if self.last:
            self.seconds.append((self.on, now - self.last))
        self.on, self.last = not self.on, clock()

    def taking(self, method: Any) -> Any:
        """Return a method of the regularizer that returns a term of 0 at once when it is switched off."""

        def called(regularizer: Any, sample: torch.Tensor, *args: Any, **kwargs: Any) -> SpectralTerm:
            if self.on:
                found: SpectralTerm = method(regularizer, sample, *args, **kwargs)
                return found
            zero, each = torch.zeros((), device=sample.device), torch.zeros(len(sample), device=sample.device)
            return SpectralTerm(zero, each, each, {}, zero, None)

        return called


def measure(path: Path) -> dict[str, list[float]]:
    """Return the seconds of neighbouring steps with the term and without it, of one run of an example."""
    turns, kind = Turns(), specreg.SpectralRegularizer
    kind.forward = turns.taking(kind.forward)  # type: ignore[method-assign]
    kind.from_output = turns.taking(kind.from_output)  # type: ignore[method-assign]
    hook = register_optimizer_step_post_hook(turns.step)
    with contextlib.redirect_stdout(io.StringIO()):
        sys.argv = [str(path)]
        runpy.run_path(str(path), run_name="__main__")
    hook.remove()
    counted = turns.seconds[WARMUP:]
    return {name: [s for on, s in counted if on == state] for name, state in (("with", True), ("without", False))}


def in_own_process(path: Path, repeats: int, flags: list[str]) -> dict[str, list[float]] | str:
    """Return what `measure` finds over several runs, or the last line of what went wrong."""
    found: dict[str, list[float]] = {"with": [], "without": []}
    own = [STAND_INS / path.stem, STAND_INS] if (STAND_INS / path.stem).is_dir() else []
    paths = [str(one) for one in (*own, EXAMPLES.parent, os.environ.get("PYTHONPATH")) if one]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    for _ in range(repeats):
        shown = subprocess.run(
            [sys.executable, "-W", "ignore", "-m", "benchmarks.trainers", "--one", str(path), *flags],
            capture_output=True, text=True, env=env, cwd=own[0] if own else None,
        )  # fmt: skip
        if shown.returncode:
            return shown.stderr.strip().splitlines()[-1]
        part = json.loads(shown.stdout.splitlines()[-1])
        pairs = min(len(part["with"]), len(part["without"]))
        for name, seconds in found.items():
            seconds += part[name][:pairs]
    return found


def main() -> None:
    """Measure, print a table, and write the numbers where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="of examples; all by default")
    parser.add_argument("--repeats", type=int, default=2, help="runs of each example")
    parser.add_argument("--json", type=Path, help="write the numbers here too")
    parser.add_argument("--processor", action="store_true", help="the processor's seconds instead of the clock's")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.processor:
        global clock
        clock = time.process_time
    if options.one is not None:
        print(json.dumps(measure(options.one)))
        return
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"
    title = f"examples, {device}, torch {importlib.metadata.version('torch')}"
    table = Table("example", "step without, ms", "term, ms", "ratio", "95% interval", "steps", title=title, box=None)
    rows: dict[str, Any] = {}
    for path in sorted(EXAMPLES.glob("*.py")):
        if options.names and path.stem not in options.names:
            continue
        found = in_own_process(path, options.repeats, ["--processor"] * options.processor)
        if isinstance(found, str):
            table.add_row(path.stem, found[:60])
            continue
        on, off = (np.array(found[name]) for name in ("with", "without"))
        if not len(on):
            table.add_row(path.stem, "took no steps")
            continue
        middle, low, high = median_ratio(on, off)
        plain, added = 1000 * float(np.median(off)), 1000 * float(np.median(on - off))
        rows[path.stem] = {"ms": plain, "term_ms": added, "ratio": middle, "low": low, "high": high, "steps": len(on)}
        shown = (f"{plain:.1f}", f"{added:.1f}", f"{middle:.2f}", f"{low:.2f} … {high:.2f}", str(len(on)))
        table.add_row(path.stem, *shown)
    Console().print(table)
    if options.json:
        options.json.write_text(json.dumps({"title": title, "examples": rows}, indent=1))


if __name__ == "__main__":
    main()
