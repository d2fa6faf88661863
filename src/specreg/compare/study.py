"""A comparison as its folder shows it: which cells came to their end, and the summary of their results."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import shlex
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env

from specreg import evaluation
from specreg._files import read_json, write_json
from specreg.compare.arms import BASELINE, cell_config, cell_name, label
from specreg.compare.paired import paired_difference, verdict
from specreg.evaluation import METRICS
from specreg.evaluation_audio import SoundTruth
from specreg.evaluation_images import Truth
from specreg.training import config as configs
from specreg.training.config import Config, SamplingConfig

FAILURE = "failure.json"
"""In a cell whose training stopped for good: at which step, and why."""


class Study(NamedTuple):
    """What a comparison is, for the processes that work on it."""

    config: Config
    folder: Path
    seeds: list[int]
    truth: Truth | SoundTruth
    command: str

    @property
    def cells(self) -> list[tuple[str, int]]:
        """(arm, seed) in the order in which they are run: all arms of one seed first."""
        return [(arm, seed) for seed in self.seeds for arm in self.config.arms]

    def at(self, arm: str, seed: int) -> Path:
        """Folder of a cell."""
        return self.folder / cell_name(arm, seed)

    def results(self, arm: str, seed: int) -> dict[str, Any] | None:
        """A cell's results, if they are of the last step, sampled and measured as asked for now."""
        path, config = self.at(arm, seed) / "results.json", cell_config(self.config, arm, seed)
        if not path.exists():
            return None
        found: dict[str, Any] = read_json(path)
        asked = (evaluation.RESULTS_VERSION, config.training.steps, self.truth.fingerprint)
        if tuple(map(found.get, ("version", "step", "truth_sha256"))) != asked:
            return None
        # Options that came with a later version had their defaults before it.
        sampled = {**SamplingConfig().model_dump(), **found.get("sampling", {})}
        return found if sampled == config.sampling.model_dump() else None

    def failure(self, arm: str, seed: int) -> dict[str, Any] | None:
        """At which step a cell's training stopped for good, and why, if it did and has not succeeded since."""
        path = self.at(arm, seed) / FAILURE
        return read_json(path) if path.exists() and not self.results(arm, seed) else None

    def outcome(self, arm: str, seed: int) -> str | None:
        """How a cell ended, in a line; None when it has not."""
        if results := self.results(arm, seed):
            name, value = next(iter(results["metrics"].items()))
            return f"{arm}, seed {seed}: {METRICS[name].label} {value:.2f} {METRICS[name].unit}"
        if failure := self.failure(arm, seed):
            return f"{arm}, seed {seed}: stopped at step {failure['step']}: {failure['message']}"
        return None

    def record(self, step_seconds: Mapping[str, float] | None = None) -> dict[str, Any]:
        """Summarize what is there and write it to `comparison.json`."""
        content = self.summary(step_seconds or {})
        if processes().is_main_process:
            write_json(self.folder / "comparison.json", content)
        return content

    def summary(self, step_seconds: Mapping[str, float]) -> dict[str, Any]:
        """Everything the report needs besides the cells' own files; unfinished cells are left out of the table."""
        found = {cell: results["metrics"] for cell in self.cells if (results := self.results(*cell))}
        config, seeds = self.config, self.seeds
        measured = {name for metrics in found.values() for name in metrics}
        names = [name for name in METRICS if name in measured]
        every = [results for cell in self.cells if (results := self.results(*cell))]
        return {
            "title": config.title,
            "command": self.command,
            "created": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
            "machine": machine(),
            "versions": {name: importlib.metadata.version(name) for name in ("specreg", "torch", "accelerate")},
            "config": configs.dump(config),
            "arms": [
                {"name": arm, "label": label(spectral), "loss": spectral.model_dump() if spectral else None}
                for arm, spectral in config.arms.items()
            ],
            "baseline": BASELINE,
            "seeds": seeds,
            "cells": [
                {"arm": arm, "seed": seed, "folder": cell_name(arm, seed)} for arm in config.arms for seed in seeds
            ],
            "step_seconds": dict(step_seconds),
            "truth": evaluation.truth_record(config, self.truth),
            **_left_out(every),
            "metrics": {name: METRICS[name]._asdict() for name in names},
            "table": [row for name in names for arm in config.arms if (row := _row(found, name, arm, seeds))],
        }


def _left_out(every: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What could not be measured in any or some cells: reasons by metric, and clips without a value counted."""
    missing: dict[str, str] = {}
    failures: dict[str, int] = {}
    for results in every:
        missing |= results.get("missing") or {}
        for metric, clips in (results.get("failures") or {}).items():
            failures[metric] = failures.get(metric, 0) + len(clips)
    return {**({"missing": missing} if missing else {}), **({"failures": failures} if failures else {})}


def _row(
    results: Mapping[tuple[str, int], Mapping[str, float]], metric: str, arm: str, seeds: Sequence[int]
) -> dict[str, Any] | None:
    """One metric of one arm over its finished seeds, paired where the baseline's are finished too."""
    values = [results[arm, seed][metric] for seed in seeds if metric in results.get((arm, seed), {})]
    if not values:
        return None
    pairs = [seed for seed in seeds if all(metric in results.get((side, seed), {}) for side in (arm, BASELINE))]
    better = METRICS[metric].better
    difference = None
    if arm != BASELINE:
        ours, theirs = ([results[side, seed][metric] for seed in pairs] for side in (arm, BASELINE))
        difference = paired_difference(ours, theirs, better)
    return {
        "arm": arm,
        "metric": metric,
        "mean": statistics.fmean(values),
        "std": statistics.stdev(values) if len(values) > 1 else None,
        "n": len(values),
        "difference": difference._asdict() if difference else None,
        "verdict": verdict(difference, better),
    }


def processes() -> PartialState:
    """The processes of `accelerate launch`, on the CPU if it says so: without this they would not know each other."""
    return PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"))


def command_line() -> str:
    """The command that this process was started with."""
    return shlex.join(["specreg", *sys.argv[1:]])


def machine() -> str:
    """Processor count, architecture and accelerator, for the record."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return f"{os.cpu_count()}-core {platform.machine()} CPU, {device}"
