"""Paired comparison: arms that differ in the spectral term only, run from the same seeds.

Cells (arm × seed) of one seed share initial weights, data order, timesteps, noise and the latents of their samples, so
that differences between arms are not differences of luck. Finished cells are never run again.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import math
import multiprocessing
import os
import platform
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate import PartialState
from filelock import FileLock, Timeout
from rich.console import Console
from rich.progress import Progress

from specreg import evaluation
from specreg._files import read_json, write_json
from specreg.evaluation import METRICS, Truth
from specreg.training import config as configs
from specreg.training.build import build_objective, try_regularizer
from specreg.training.config import Config, ConfigError, SpectralConfig
from specreg.training.trainer import NonFiniteLoss, Trainer

BASELINE = "none"
FAILURE = "failure.json"
"""In a cell whose training stopped for good: at which step, and why."""


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
    jobs: int = 1,
    command: str | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """Train and evaluate every cell that is not finished; returns the content of `comparison.json`.

    The file is written before the first cell and after each, so that an interrupted comparison has a report too. With
    `jobs`, so many processes take cells at once, each on a GPU of its own where there are several. The same
    comparison may also be started again elsewhere on the same folder: a cell is only ever in one process's hands.
    An arm whose training diverges is noted as stopped, and the others go on.

    Raises RuntimeError if no cell came to its end.
    """
    console = console or Console(stderr=True)
    truth = evaluation.load_truth(config)
    for spectral in arms.values():
        try_regularizer(spectral, truth.images.shape[1:])
    config = config.model_copy(update={"arms": dict(arms)})
    study = _Study(config, folder, list(seeds), truth, command or command_line())
    if jobs < 1 or (jobs > 1 and PartialState().num_processes > 1):
        raise ConfigError(f"--jobs: expected at least 1, and 1 under `accelerate launch`; got {jobs}")
    if PartialState().is_main_process:
        evaluation.save_images(folder / "truth" / "samples.npy", truth.images[:64])
    study.record()
    if jobs == 1:
        _run_cells(study, console)
    else:
        _run_jobs(study, jobs, console)
    stopped = [failure for cell in study.cells if (failure := _failure(folder / cell_name(*cell)))]
    if len(stopped) == len(study.cells):
        raise RuntimeError(f"every run stopped; the first at step {stopped[0]['step']}: {stopped[0]['message']}")
    going = {arm for arm, seed in study.cells if not _failure(folder / cell_name(arm, seed))}
    return study.record(time_steps(config, [arm for arm in config.arms if arm in going]))


class _Study(NamedTuple):
    """What a comparison is, for the processes that work on it."""

    config: Config
    folder: Path
    seeds: list[int]
    truth: Truth
    command: str

    @property
    def cells(self) -> list[tuple[str, int]]:
        """(arm, seed) in the order in which they are run: all arms of one seed first."""
        return [(arm, seed) for seed in self.seeds for arm in self.config.arms]

    def outcome(self, arm: str, seed: int) -> str | None:
        """How a cell ended, in a line; None when it has not."""
        folder, label = self.folder / cell_name(arm, seed), f"{arm}, seed {seed}"
        if _finished(folder, cell_config(self.config, arm, seed), self.truth):
            name, value = next(iter(read_json(folder / "results.json")["metrics"].items()))
            return f"{label}: {METRICS[name].label} {value:.2f} {METRICS[name].unit}"
        failure = _failure(folder)
        return f"{label}: stopped at step {failure['step']}: {failure['message']}" if failure else None

    def record(self, step_seconds: Mapping[str, float] | None = None) -> dict[str, Any]:
        """Summarize what is there and write it to `comparison.json`."""
        content = summarize(self.config, self.folder, self.seeds, self.truth, step_seconds or {}, self.command)
        if PartialState().is_main_process:
            write_json(self.folder / "comparison.json", content)
        return content


def _run_cells(study: _Study, console: Console) -> None:
    """Run the cells that no other process is at work on, until none is left."""
    waiting = study.cells
    while waiting:
        left = []
        for arm, seed in waiting:
            with _claim(study.folder / cell_name(arm, seed)) as claimed:
                if claimed:
                    _run_cell(study, arm, seed, console)
                else:
                    left.append((arm, seed))
        if len(left) == len(waiting):
            time.sleep(1)  # all that is left is in others' hands; one of them may yet be killed
        waiting = left


@contextmanager
def _claim(folder: Path) -> Iterator[bool]:
    """Whether this process may work on a cell; the system takes the lock back when a process dies."""
    if PartialState().num_processes > 1:
        yield True  # they share every cell's training
        return
    locks = folder.parent / ".locks"
    locks.mkdir(parents=True, exist_ok=True)
    lock = FileLock(locks / folder.name)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def _run_jobs(study: _Study, jobs: int, console: Console) -> None:
    """Run the cells in `jobs` processes; progress is counted in cells."""
    spawn = multiprocessing.get_context("spawn")
    devices = [d for d in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if d]
    devices = devices or [str(i) for i in range(torch.cuda.device_count())]
    threads = max(1, len(os.sched_getaffinity(0)) // jobs) if hasattr(os, "sched_getaffinity") else 1

    waiting = set(study.cells)
    with ProcessPoolExecutor(jobs, mp_context=spawn) as pool, Progress(console=console) as progress:
        task = progress.add_task(f"{len(waiting)} runs, {jobs} at a time", total=len(waiting))
        work = [pool.submit(_work, study, threads, devices[i % len(devices)] if devices else None) for i in range(jobs)]
        while waiting:
            running = wait(work, timeout=2, return_when=FIRST_EXCEPTION).not_done
            for cell in [cell for cell in study.cells if cell in waiting]:
                if (said := study.outcome(*cell)) is not None:
                    progress.console.print(said)
                    progress.advance(task)
                    waiting.remove(cell)
            if not running:
                break
        for job in work:
            job.result()


def _work(study: _Study, threads: int, device: str | None) -> None:
    """One of several processes: its own share of the CPU, its own GPU; its parent does the talking."""
    if device is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = device
    torch.set_num_threads(threads)
    with suppress(KeyboardInterrupt):  # the parent has it too
        _run_cells(study, Console(quiet=True))


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


def _run_cell(study: _Study, arm: str, seed: int, console: Console) -> None:
    """Bring one cell to its end, and the summary up to date."""
    config, folder = cell_config(study.config, arm, seed), study.folder / cell_name(arm, seed)
    trainer = Trainer(config, folder, console=console, label=f"{arm}, seed {seed}")  # refuses another run's folder
    main = trainer.accelerator.is_main_process
    if _finished(folder, config, study.truth):
        console.print(f"{arm}, seed {seed}: finished before")
        return
    try:
        trainer.run()
    except NonFiniteLoss as stop:
        if main:
            write_json(folder / FAILURE, {"step": stop.step, "message": stop.problem})
    else:
        if main:
            with console.status(f"{arm}, seed {seed}: sampling"):
                evaluation.evaluate(folder, study.truth, arm=arm, device=trainer.device)
            (folder / FAILURE).unlink(missing_ok=True)
    if main:
        console.print(study.outcome(arm, seed))
        study.record()
    trainer.accelerator.wait_for_everyone()


def _failure(folder: Path) -> dict[str, Any] | None:
    """Why a cell's training stopped for good, if it did."""
    found: dict[str, Any] | None = read_json(folder / FAILURE) if (folder / FAILURE).exists() else None
    return found


def _finished(folder: Path, config: Config, truth: Truth) -> bool:
    """Whether the folder holds results of the last step, sampled and measured as asked for now."""
    if not (folder / "results.json").exists():
        return False
    found = read_json(folder / "results.json")
    asked = (evaluation.RESULTS_VERSION, config.training.steps, config.sampling.model_dump(), truth.fingerprint)
    return tuple(found.get(key) for key in ("version", "step", "sampling", "truth_sha256")) == asked


def time_steps(config: Config, arms: Iterable[str], *, rounds: int = 24, warmup: int = 3) -> dict[str, float]:
    """Median seconds of a training step of each of `arms`, taking turns in one process so that load is shared.

    One network serves all arms: what differs between them is the objective.
    """
    warmup = min(warmup, config.training.steps - 1)
    with tempfile.TemporaryDirectory() as scratch:
        trainer = Trainer(cell_config(config, BASELINE, config.seed), Path(scratch), console=Console(quiet=True))
        objectives = {arm: build_objective(cell_config(config, arm, config.seed), trainer.device) for arm in arms}
        batches = trainer.batches()
        seconds: dict[str, list[float]] = {arm: [] for arm in objectives}
        for n in range(min(warmup + rounds, config.training.steps)):
            parts = [next(batches) for _ in range(config.training.accumulate)]
            for arm, objective in objectives.items():
                trainer.objective = objective
                began = time.perf_counter()
                trainer.train_step(parts)
                if n >= warmup:
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
