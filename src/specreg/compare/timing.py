"""Seconds of a training step of each arm, measured in turns in one process, and kept for as long as they hold."""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from rich.console import Console

from specreg import processes
from specreg._files import read_json, write_json
from specreg.compare.arms import BASELINE, cell_config
from specreg.config import Config
from specreg.training.record import NonFiniteLoss
from specreg.training.term import build_objective
from specreg.training.trainer import Trainer

FILE = "step-seconds.json"
"""File in a comparison's folder that keeps what was measured."""


def step_seconds(config: Config, arms: Sequence[str], *, rounds: int = 24, warmup: int = 3) -> dict[str, list[float]]:
    """Return the seconds of training steps of each of `arms`, which take turns so that load is shared.

    One network serves all arms: what differs between them is the objective. Steps that diverge or that a gradient
    scaler skips end early, and are left out.
    """
    warmup = min(warmup, config.training.steps - 1)
    with tempfile.TemporaryDirectory() as scratch:
        trainer = Trainer(cell_config(config, BASELINE, config.seed), Path(scratch), console=Console(quiet=True))
        objectives = {
            arm: build_objective(cell_config(config, arm, config.seed), trainer.device, saved=trainer.description)
            for arm in arms
        }
        batches = trainer.batches()
        seconds: dict[str, list[float]] = {arm: [] for arm in objectives}
        for n in range(min(warmup + rounds, config.training.steps)):
            parts = [next(batches) for _ in range(config.training.accumulate)]
            turn = n % len(objectives)  # no arm is always first
            for arm in [*objectives, *objectives][turn : turn + len(objectives)]:
                trainer.objective = objectives[arm]
                began = time.perf_counter()
                with suppress(NonFiniteLoss):
                    trainer.train_step(parts)
                    if n >= warmup and not trainer.accelerator.optimizer_step_was_skipped:
                        seconds[arm].append(time.perf_counter() - began)
    return seconds


def kept_step_seconds(config: Config, arms: Sequence[str], folder: Path) -> Mapping[str, float]:
    """Return the seconds of the fastest training step of each of `arms`, from `folder` where they were measured before.

    Steps of one arm do the same work and other work on the machine only adds: beside two trainings on two cores, ratios
    of medians were 0.8 to 1.6 for a true 1.07, ratios of the fastest 0.98 to 1.12. They are measured again where the
    run, the arms or the machine are others than then.
    """
    run = config.model_dump_json(exclude={"name", "title", "sampling", "metrics"})
    key = hashlib.sha256("\n".join([run, processes.machine(), *arms]).encode()).hexdigest()
    path = folder / FILE
    kept = read_json(path) if path.exists() else {}
    found: dict[str, float] = kept.get("fastest_seconds", {})
    if processes.gather(bool(found) and kept.get("measured") == key)[0]:  # all processes do as the main one does
        return found
    found = {arm: min(values) for arm, values in step_seconds(config, arms).items() if values}
    if processes.state().is_main_process:
        write_json(path, {"measured": key, "fastest_seconds": found})
    return found
