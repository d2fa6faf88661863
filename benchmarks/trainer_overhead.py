"""What the trainer costs beside a plain torch loop: `python -m benchmarks.trainer_overhead [--recipe checkerboard]`.

Both train the same network on the same items, noise and times, with the same objective, optimizer, clipping, average of
the weights and log; at the end their weights must be equal bit for bit. They take turns in blocks of steps in one
process. A step is measured from its start to the start of the next one, with loading, drawing and logging. What is
shown is the median over blocks of the trainer's median step divided by the loop's, with the interval of that median
(95%). `--processor` counts the processor's seconds of this process, which others on the machine hardly move (with
OMP_NUM_THREADS=1: waiting threads count too). `--recipe tiny` is a network of a few thousand weights on 16×16 pixels,
where Python's time counts.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch.utils.data import DataLoader

from benchmarks.measure import median_ratio
from benchmarks.reliability.kill import CONFIG as TINY
from specreg.config import Config
from specreg.modalities import parse
from specreg.randomness import draw
from specreg.recipes import RECIPES
from specreg.training.batches import Batch, Places
from specreg.training.schedule import learning_rate
from specreg.training.trainer import Trainer

clock = time.perf_counter


class _Timed(Trainer):
    """A trainer that notes when each step starts, and keeps the network that it begins with."""

    def run(self) -> None:
        self.starts: list[float] = []
        super().run()

    def train_step(self, parts: list[Batch], **options: Any) -> dict[str, float | None]:
        self.starts.append(clock())
        return super().train_step(parts, **options)


def seconds_of_trainer(config: Config, folder: Path) -> tuple[list[float], _Timed]:
    """Train in a new folder; return the seconds of each step but the last, and the trainer."""
    with _Timed(config, folder, console=Console(quiet=True)) as trainer:
        trainer.run()
    return list(np.diff(trainer.starts)), trainer


def seconds_of_loop(config: Config, folder: Path, start: _Timed) -> tuple[list[float], torch.nn.Module]:
    """Train with a plain loop from the network that `start` has; return the seconds of each step, and the network."""
    settings = config.training
    model, objective, items, shape = start.model, start.objective, start.items, start.shape
    average = copy.deepcopy(model).requires_grad_(False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.lr, weight_decay=settings.weight_decay)
    whole = range(settings.batch_size)
    loader: DataLoader[Any] = DataLoader(items, batch_sampler=Places(0, settings.steps, [whole]))
    limit = math.inf if settings.clip is None else settings.clip
    starts = []
    model.train()
    with (folder / "log.jsonl").open("a") as log:
        for step, found in enumerate(loader):
            noise, t = draw(config.seed, step, whole, shape, objective.time.draw)
            starts.append(clock())
            lr = optimizer.param_groups[0]["lr"] = learning_rate(config, step)
            optimizer.zero_grad()
            logged = (step + 1) % settings.log_every == 0 or step + 1 == settings.steps
            term = objective(model, found.pop("x0"), t, noise, found, measure_ratio=logged)
            term.loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(model.parameters(), limit)
            optimizer.step()
            decay = min(settings.ema, (2 + step) / (11 + step))
            with torch.no_grad():
                torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - decay)
            if logged:
                record = {"step": step + 1, "loss": term.loss.item(), "lr": lr, "grad_norm": norm.item()}
                log.write(json.dumps(record) + "\n")
                log.flush()
    return list(np.diff(starts)), model


def measure(config: Config, *, blocks: int, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the median seconds of a step of the trainer and of the loop, `[blocks]` each.

    Raises RuntimeError where they do not end with the same weights.
    """
    ours: list[float] = []
    theirs: list[float] = []
    for block in range(blocks + 1):
        sides = [0, 1] if block % 2 else [1, 0]
        models: dict[int, torch.nn.Module] = {}
        for side in sides:
            place = folder / f"{block}-{side}"
            if side == 0:
                seconds, trainer = seconds_of_trainer(config, place)
                models[0] = trainer.model
            else:
                with _Timed(config, place, console=Console(quiet=True)) as start:
                    seconds, models[1] = seconds_of_loop(config, place, start)
            if block:  # the first warms up
                (ours, theirs)[side].append(float(np.median(seconds)))
        if not all(map(torch.equal, models[0].parameters(), models[1].parameters())):
            raise RuntimeError("expected both loops to end with the same weights; they differ")
    return np.array(ours), np.array(theirs)


def main() -> None:
    """Measure and print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", choices=["tiny", *RECIPES], default="checkerboard")
    parser.add_argument("--blocks", type=int, default=20)
    parser.add_argument("--steps", type=int, default=30, help="of a block")
    parser.add_argument("--processor", action="store_true", help="the processor's seconds instead of the clock's")
    parser.add_argument("overrides", nargs="*", help="such as spectral=null")
    given = parser.parse_args()
    if given.processor:
        global clock
        clock = time.process_time
    tree = TINY if given.recipe == "tiny" else RECIPES[given.recipe]()
    long = [f"training.steps={given.steps}", "training.checkpoint_every=1000000000", "training.log_every=10"]
    config = parse(tree, [*long, "training.workers=0", "training.warmup=0", *given.overrides])
    with tempfile.TemporaryDirectory() as name:
        ours, theirs = measure(config, blocks=given.blocks, folder=Path(name))
    middle, low, high = median_ratio(ours, theirs)
    print(
        f"{given.recipe}, batch {config.training.batch_size}, {torch.get_num_threads()} threads"
        f"{', processor time' if given.processor else ''}: trainer "
        f"{1000 * np.median(ours):.2f} ms, plain loop {1000 * np.median(theirs):.2f} ms, "
        f"ratio {middle:.3f} ({low:.3f} … {high:.3f})"
    )


if __name__ == "__main__":
    main()
