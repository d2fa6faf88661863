"""Paired comparison: arms that differ in the spectral term only, run from the same seeds.

Cells (arm × seed) of one seed share initial weights, data order, timesteps, noise and the latents of their samples, so
that differences between arms are not differences of luck. Finished cells are never run again.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import math
import os
import platform
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate import PartialState
from rich.console import Console

from specreg import evaluation
from specreg._files import read_json, write_json
from specreg.evaluation import METRICS, Truth
from specreg.training import config as configs
from specreg.training.build import try_regularizer
from specreg.training.config import Config, ConfigError, SpectralConfig
from specreg.training.trainer import Trainer

BASELINE = "none"


class Difference(NamedTuple):
    """Mean paired difference to the baseline, with its 95% interval (Student's t over seeds)."""

    mean: float
    low: float
    high: float


def resolve_arms(config: Config, names: Sequence[str]) -> dict[str, SpectralConfig | None]:
    """Arms by name: "none", an arm that the config defines, or a loss name; with "@λ", "@auto" or "@auto:RATIO".

    A loss name takes everything but its options from the config's spectral section, and those too when the
    section is about the same loss.
    """
    arms: dict[str, SpectralConfig | None] = {BASELINE: None}
    for name in map(str.strip, names):
        base, _, weight = name.partition("@")
        if name == BASELINE:
            continue
        if name in config.arms:
            arms[name] = config.arms[name]
            continue
        if base == BASELINE:
            raise ConfigError(f"arm {name!r}: the baseline has no λ to set")
        if base in config.arms:
            arm = config.arms[base]
        else:
            section = (config.spectral or SpectralConfig()).model_dump()
            options = section["options"] if section["name"] == base else {}
            arm = _spectral({**section, "name": base, "options": options}, name)
        if weight:
            if arm is None:
                raise ConfigError(f"arm {name!r}: the baseline has no λ to set")
            arm = _spectral({**arm.model_dump(), **_lambda(weight, name)}, name)
        arms[name] = arm
    if len(arms) < 2:
        raise ConfigError(f"expected at least one arm beside {BASELINE!r}; got {', '.join(names) or 'none'}")
    return arms


def _lambda(text: str, name: str) -> dict[str, Any]:
    """What stands after the @ of an arm: a number, auto, or auto:RATIO."""
    policy, colon, ratio = text.partition(":")
    try:
        if policy == "auto":
            return {"weight": "auto", **({"ratio": float(ratio)} if colon else {})}
        return {"weight": float(text)}
    except ValueError:
        raise ConfigError(f"arm {name!r}: expected a number after @ (or auto, or auto:RATIO); got {text!r}") from None


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
    """Train and evaluate every cell that is not finished; returns the content of `comparison.json`.

    The file is written before the first cell and after each, so that an interrupted comparison has a report too.
    """
    console = console or Console(stderr=True)
    main = PartialState().is_main_process
    truth = evaluation.load_truth(config)
    for spectral in arms.values():
        try_regularizer(spectral, truth.images.shape[1:])
    config = config.model_copy(update={"arms": dict(arms)})
    command = command or command_line()

    def record(step_seconds: Mapping[str, float]) -> dict[str, Any]:
        content = summarize(config, folder, seeds, truth, step_seconds, command)
        if main:
            write_json(folder / "comparison.json", content)
        return content

    if main:
        evaluation.save_images(folder / "truth" / "samples.npy", truth.images[:64])
    record({})
    for seed in seeds:
        for arm in arms:
            _run_cell(cell_config(config, arm, seed), folder / cell_name(arm, seed), arm, truth, console)
            record({})
    return record(time_steps(config))


def cell_name(arm: str, seed: int) -> str:
    """Folder of a cell, and name of its run."""
    return f"{arm.replace(':', '_')}-seed{seed}"


def cell_config(config: Config, arm: str, seed: int) -> Config:
    """The run of a cell: the comparison's config with the arm's term, the seed, and latents of the seed's own."""
    first = config.sampling.seed + (seed - config.seed) * config.sampling.count
    return config.model_copy(
        update={
            "name": cell_name(arm, seed),
            "seed": seed,
            "spectral": config.arms[arm],
            "arms": {},
            "sampling": config.sampling.model_copy(update={"seed": first}),
        }
    )


def _run_cell(config: Config, folder: Path, arm: str, truth: Truth, console: Console) -> None:
    label = f"{arm}, seed {config.seed}"
    trainer = Trainer(config, folder, console=console, label=label)  # refuses another run's folder
    if _finished(folder, config, truth):
        console.print(f"{label}: finished before")
        return
    trainer.run()
    if trainer.accelerator.is_main_process:
        with console.status(f"{label}: sampling"):
            results = evaluation.evaluate(folder, truth, arm=arm, device=trainer.device)
        name, value = next(iter(results["metrics"].items()))
        console.print(f"{label}: {METRICS[name].label} {value:.2f} {METRICS[name].unit}")
    trainer.accelerator.wait_for_everyone()


def _finished(folder: Path, config: Config, truth: Truth) -> bool:
    """Whether the folder holds results of the last step, sampled and measured as asked for now."""
    if not (folder / "results.json").exists():
        return False
    results = read_json(folder / "results.json")
    asked = (config.training.steps, config.sampling.model_dump(), truth.fingerprint)
    return (results.get("step"), results.get("sampling"), results.get("truth_sha256")) == asked


def time_steps(config: Config, *, rounds: int = 24, warmup: int = 3) -> dict[str, float]:
    """Median seconds of a training step of each arm, the arms taking turns in one process so that load is shared."""
    with tempfile.TemporaryDirectory() as scratch:
        trainers = {
            arm: Trainer(cell_config(config, arm, config.seed), Path(scratch) / str(i), console=Console(quiet=True))
            for i, arm in enumerate(config.arms)
        }
        streams = {arm: trainer.batches() for arm, trainer in trainers.items()}
        seconds: dict[str, list[float]] = {arm: [] for arm in trainers}
        for n in range(min(warmup + rounds, config.training.steps)):
            for arm, trainer in trainers.items():
                parts = [next(streams[arm]) for _ in range(config.training.accumulate)]
                began = time.perf_counter()
                trainer.train_step(parts)
                if n >= min(warmup, config.training.steps - 1):
                    seconds[arm].append(time.perf_counter() - began)
    return {arm: statistics.median(values) for arm, values in seconds.items()}


def summarize(
    config: Config,
    folder: Path,
    seeds: Sequence[int],
    truth: Truth,
    step_seconds: Mapping[str, float],
    command: str,
) -> dict[str, Any]:
    """Everything the report needs besides the cells' own files; unfinished cells are left out of the table."""
    results = {}
    for arm in config.arms:
        for seed in seeds:
            cell = folder / cell_name(arm, seed)
            if _finished(cell, cell_config(config, arm, seed), truth):
                results[arm, seed] = read_json(cell / "results.json")["metrics"]
    names = list(next(iter(results.values()), {}))
    return {
        "title": config.title,
        "command": command,
        "created": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": {name: importlib.metadata.version(name) for name in ("specreg", "torch", "accelerate")},
        "config": configs.dump(config),
        "arms": [
            {"name": arm, "label": label(spectral), "loss": spectral.model_dump() if spectral else None}
            for arm, spectral in config.arms.items()
        ],
        "baseline": BASELINE,
        "seeds": list(seeds),
        "cells": [{"arm": arm, "seed": seed, "folder": cell_name(arm, seed)} for arm in config.arms for seed in seeds],
        "step_seconds": dict(step_seconds),
        "truth": evaluation.truth_record(config, truth),
        "metrics": {name: METRICS[name]._asdict() for name in names},
        "table": [row for name in names for arm in config.arms if (row := _row(results, name, arm, seeds))],
    }


def _row(
    results: Mapping[tuple[str, int], Mapping[str, float]], metric: str, arm: str, seeds: Sequence[int]
) -> dict[str, Any] | None:
    """One metric of one arm over its finished seeds, paired where the baseline's are finished too."""
    values = [results[arm, seed][metric] for seed in seeds if (arm, seed) in results]
    if not values:
        return None
    pairs = [seed for seed in seeds if (arm, seed) in results and (BASELINE, seed) in results]
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
    said = [str(value) if isinstance(value, str) else f"{key} {value}" for key, value in spectral.options.items()]
    options = f" ({', '.join(said)})" if said else ""
    lam = f"auto ({spectral.ratio:g})" if spectral.weight == "auto" else f"{spectral.weight:g}"
    weights = [w for w in (spectral.noise_weight, spectral.band_weight) if w not in (None, "constant")]
    ramp = [f"{spectral.ramp} warm-up {spectral.warmup}"] if spectral.warmup else []
    return ", ".join([f"{spectral.name}{options}", f"λ {lam}", *weights, *ramp])


def command_line() -> str:
    """The command that this process was started with."""
    return shlex.join(["specreg", *sys.argv[1:]])


def machine() -> str:
    """Processor count, architecture and accelerator, for the record."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return f"{os.cpu_count()}-core {platform.machine()} CPU, {device}"
