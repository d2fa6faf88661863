"""Paired comparison: arms that differ in the spectral term only, run from the same seeds.

Cells (arm × seed) of one seed share initial weights, data order, timesteps, noise and the latents of their samples, so
that differences between arms are not differences of luck. Finished cells are never run again.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import math
import os
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.console import Console

from specreg import evaluation
from specreg.evaluation import METRICS, Truth
from specreg.training import config as configs
from specreg.training.config import Config, ConfigError, SpectralConfig
from specreg.training.trainer import Trainer

BASELINE = "none"


class Difference(NamedTuple):
    """Mean paired difference to the baseline, with its 95% interval (Student's t over seeds)."""

    mean: float
    low: float
    high: float


def resolve_arms(config: Config, names: Sequence[str]) -> dict[str, SpectralConfig | None]:
    """Arms by name: "none", an arm that the config defines, or a loss name, with "@λ" for its weight.

    A loss name takes everything but its options from the config's spectral section, and those too when the
    section is about the same loss.
    """
    arms: dict[str, SpectralConfig | None] = {BASELINE: None}
    for name in names:
        base, _, weight = name.partition("@")
        if name == BASELINE:
            continue
        if base in config.arms:
            arm = config.arms[base]
        else:
            section = (config.spectral or SpectralConfig()).model_dump()
            options = section["options"] if section["name"] == base else {}
            arm = _spectral({**section, "name": base, "options": options}, name)
        if weight:
            if arm is None:
                raise ConfigError(f"arm {name!r}: the baseline has no λ to set")
            try:
                arm = _spectral({**arm.model_dump(), "weight": float(weight)}, name)
            except ValueError:
                raise ConfigError(f"arm {name!r}: expected a number after @, as in {base}@0.1") from None
        arms[name] = arm
    if len(arms) < 2:
        raise ConfigError(f"expected at least one arm beside {BASELINE!r}; got {', '.join(names) or 'none'}")
    return arms


def _spectral(values: Mapping[str, Any], name: str) -> SpectralConfig:
    arm = configs.parse({"spectral": dict(values)}, where=f"arm {name!r}").spectral
    assert arm is not None
    return arm


def compare(
    config: Config,
    folder: Path,
    arms: Mapping[str, SpectralConfig | None],
    seeds: Sequence[int],
    *,
    command: str | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """Train and evaluate every cell that is not finished, then write `comparison.json`; returns its content."""
    console = console or Console(stderr=True)
    truth = evaluation.load_truth(config)
    evaluation.save_images(folder / "truth" / "samples.npy", truth.images[:64])
    cells = [(arm, seed) for seed in seeds for arm in arms]
    for arm, seed in cells:
        _run_cell(cell_config(config, arm, arms[arm], seed), folder / cell_name(arm, seed), arm, truth, console)
    step_times = time_steps(config, arms)
    comparison = summarize(config, folder, arms, seeds, truth, step_times, command or command_line())
    evaluation.write_json(folder / "comparison.json", comparison)
    return comparison


def cell_name(arm: str, seed: int) -> str:
    """Folder of a cell."""
    return f"{arm.replace(':', '_')}-seed{seed}"


def cell_config(config: Config, arm: str, spectral: SpectralConfig | None, seed: int) -> Config:
    """The run of a cell: the comparison's config with the arm's term and the seed."""
    return config.model_copy(
        update={
            "name": cell_name(arm, seed).replace("@", "-"),
            "seed": seed,
            "spectral": spectral,
            "arms": {},
        }
    )


def _run_cell(config: Config, folder: Path, arm: str, truth: Truth, console: Console) -> None:
    label = f"{arm}, seed {config.seed}"
    trainer = Trainer(config, folder, console=console, label=label)  # refuses another run's folder
    if _finished(folder, config):
        console.print(f"{label}: finished before")
        return
    trainer.run()
    with console.status(f"{label}: sampling"):
        results = evaluation.evaluate(folder, truth, arm=arm, device=trainer.device)
    shown = next(iter(results["metrics"].items()))
    console.print(f"{label}: {METRICS[shown[0]].label} {shown[1]:.2f} {METRICS[shown[0]].unit}")


def time_steps(
    config: Config, arms: Mapping[str, SpectralConfig | None], *, rounds: int = 12, warmup: int = 3
) -> dict[str, float]:
    """Median seconds of a training step of each arm, the arms taking turns in one process so that load is shared."""
    import tempfile

    with tempfile.TemporaryDirectory() as scratch:
        trainers = {}
        for arm, spectral in arms.items():
            cell = cell_config(config, arm, spectral, 0)
            trainers[arm] = Trainer(cell, Path(scratch) / cell_name(arm, 0), console=Console(quiet=True))
        streams = {arm: trainer.batches() for arm, trainer in trainers.items()}
        seconds: dict[str, list[float]] = {arm: [] for arm in arms}
        for n in range(min(warmup + rounds, config.training.steps)):
            for arm, trainer in trainers.items():
                parts = [next(streams[arm]) for _ in range(config.training.accumulate)]
                began = time.perf_counter()
                trainer.train_step(parts)
                if n >= warmup or config.training.steps <= warmup:
                    seconds[arm].append(time.perf_counter() - began)
    return {arm: statistics.median(values) for arm, values in seconds.items()}


def summarize(
    config: Config,
    folder: Path,
    arms: Mapping[str, SpectralConfig | None],
    seeds: Sequence[int],
    truth: Truth,
    step_times: Mapping[str, float],
    command: str,
) -> dict[str, Any]:
    """Everything the report needs besides the cells' own files."""
    results = {
        (arm, seed): json.loads((folder / cell_name(arm, seed) / "results.json").read_text())
        for arm in arms
        for seed in seeds
    }
    names = list(next(iter(results.values()))["metrics"])
    table = []
    for metric in names:
        baseline = [results[BASELINE, seed]["metrics"][metric] for seed in seeds]
        for arm in arms:
            values = [results[arm, seed]["metrics"][metric] for seed in seeds]
            difference = None if arm == BASELINE else paired_difference(values, baseline, METRICS[metric].better)
            table.append(
                {
                    "arm": arm,
                    "metric": metric,
                    "mean": statistics.fmean(values),
                    "std": statistics.stdev(values) if len(values) > 1 else None,
                    "n": len(values),
                    "difference": difference._asdict() if difference else None,
                    "verdict": verdict(difference, METRICS[metric].better),
                }
            )
    return {
        "title": config.title,
        "command": command,
        "created": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": {name: importlib.metadata.version(name) for name in ("specreg", "torch", "accelerate")},
        "config": configs.dump(config),
        "arms": [
            {"name": arm, "label": label(spectral), "loss": spectral.model_dump() if spectral else None}
            for arm, spectral in arms.items()
        ],
        "baseline": BASELINE,
        "seeds": list(seeds),
        "cells": [{"arm": arm, "seed": seed, "folder": cell_name(arm, seed)} for arm, seed in results],
        "step_seconds": dict(step_times),
        "truth": evaluation.truth_record(config, truth),
        "metrics": {name: METRICS[name]._asdict() for name in names},
        "table": table,
    }


def paired_difference(values: Sequence[float], baseline: Sequence[float], better: str) -> Difference | None:
    """Mean and 95% interval of `values` − `baseline`, pair by pair; None for fewer than two pairs.

    For metrics that are best at zero, the difference of absolute values.
    """
    size = abs if better == "zero" else float
    differences = [size(a) - size(b) for a, b in zip(values, baseline, strict=True)]
    n = len(differences)
    if n < 2:
        return None
    from scipy.stats import t

    mean = statistics.fmean(differences)
    half = float(t.ppf(0.975, n - 1)) * statistics.stdev(differences) / math.sqrt(n)
    return Difference(mean, mean - half, mean + half)


def verdict(difference: Difference | None, better: str) -> str | None:
    """Say "better" or "worse" where the 95% interval leaves out 0, else "no difference seen"; None without interval."""
    if difference is None:
        return None
    if difference.low <= 0 <= difference.high:
        return "no difference seen"
    return "better" if (difference.mean > 0) == (better == "higher") else "worse"


def label(spectral: SpectralConfig | None) -> str:
    """An arm in a few words."""
    if spectral is None:
        return "baseline (no term)"
    options = "".join(f", {key} {value}" for key, value in spectral.options.items())
    noise = "" if spectral.noise_weight == "constant" else f", {spectral.noise_weight} weight"
    return f"{spectral.name}{options}, λ = {spectral.weight:g}{noise}"


def command_line() -> str:
    """The command that this process was started with."""
    return shlex.join(["specreg", *sys.argv[1:]])


def machine() -> str:
    """Processor count, architecture and accelerator, for the record."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return f"{os.cpu_count()}-core {platform.machine()} CPU, {device}"


def _finished(folder: Path, config: Config) -> bool:
    """Whether the folder holds results of the last step, sampled as asked for now."""
    path = folder / "results.json"
    if not path.exists():
        return False
    results = json.loads(path.read_text())
    return bool(results["step"] == config.training.steps and results["sampling"] == config.sampling.model_dump())
