"""Running a comparison: cell by cell, or in several processes that take cells from one folder."""

from __future__ import annotations

import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from rich.console import Console
from rich.progress import Progress

from specreg import evaluation
from specreg._files import write_json
from specreg.compare.arms import BASELINE, cell_config
from specreg.compare.study import FAILURE, Study, command_line, processes
from specreg.training.build import build_objective, try_regularizer
from specreg.training.config import Config, ConfigError, SpectralConfig
from specreg.training.trainer import NonFiniteLoss, Trainer, refuse_other_run


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
    An arm whose training diverges is noted as stopped, and the others go on. From a script, `jobs` above 1 need the
    usual `if __name__ == "__main__":`, since processes are spawned.

    Raises RuntimeError if no cell came to its end.
    """
    console, state = console or Console(stderr=True), processes()
    # With several jobs this process only coordinates: the GPUs are the others'.
    truth = evaluation.load_truth(config, device=state.device if jobs == 1 else "cpu")
    for spectral in arms.values():
        try_regularizer(spectral, truth.item_shape)
    config = config.model_copy(update={"arms": dict(arms)})
    study = Study(config, folder, list(seeds), truth, command or command_line())
    if jobs < 1 or (jobs > 1 and state.num_processes > 1):
        raise ConfigError(f"--jobs: expected at least 1, and 1 under `accelerate launch`; got {jobs}")
    if state.is_main_process:
        truth.save(folder / "truth")
    for cell in study.cells:
        if state.is_main_process and jobs > 1:
            (study.at(*cell) / FAILURE).unlink(missing_ok=True)  # they get another try
    study.record()
    if jobs == 1:
        _run_cells(study, console)
    else:
        _run_jobs(study, jobs, console)
    stopped = [failure for cell in study.cells if (failure := study.failure(*cell))]
    if len(stopped) == len(study.cells):
        raise RuntimeError(f"every run stopped; the first at step {stopped[0]['step']}: {stopped[0]['message']}")
    going = {arm for arm, seed in study.cells if study.results(arm, seed)}
    seconds = step_seconds(config, [arm for arm in config.arms if arm in going])
    return study.record({arm: statistics.median(values) for arm, values in seconds.items()})


def _run_cells(study: Study, console: Console) -> None:
    """Run the cells that no other process is at work on, until none is left."""
    waiting = study.cells
    while waiting:
        left = []
        for arm, seed in waiting:
            with _claim(study.at(arm, seed)) as claimed:
                if claimed:
                    _run_cell(study, arm, seed, console)
                else:
                    left.append((arm, seed))
        if len(left) == len(waiting):
            time.sleep(1)  # all that is left is in others' hands; one of them may yet be killed
        parent = multiprocessing.parent_process()
        if parent is not None and not parent.is_alive():
            return  # nobody waits for the rest
        waiting = left


@contextmanager
def _claim(folder: Path) -> Iterator[bool]:
    """Whether this process may work on a cell; the system takes the lock back when a process dies."""
    if processes().num_processes > 1:
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


def _run_jobs(study: Study, jobs: int, console: Console) -> None:
    """Run the cells in `jobs` processes; progress is counted in cells."""
    spawn = multiprocessing.get_context("spawn")
    devices = [d for d in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if d]
    devices = devices or [str(i) for i in range(torch.cuda.device_count())]
    threads = max(1, len(os.sched_getaffinity(0)) // jobs) if hasattr(os, "sched_getaffinity") else 1

    waiting = set(study.cells)
    problems: Any = spawn.SimpleQueue()
    work = [
        spawn.Process(target=_work, args=(study, threads, devices[i % len(devices)] if devices else None, problems))
        for i in range(jobs)
    ]
    with Progress(console=console) as progress:
        task = progress.add_task(f"{len(waiting)} runs, {jobs} at a time", total=len(waiting))
        try:
            for process in work:
                process.start()
            while waiting:
                wait([process.sentinel for process in work if process.is_alive()], timeout=2)
                running = [process for process in work if process.is_alive()]
                for cell in [cell for cell in study.cells if cell in waiting]:
                    if (said := study.outcome(*cell)) is not None:
                        progress.console.print(said)
                        progress.advance(task)
                        waiting.remove(cell)
                if not problems.empty():
                    kind, text = problems.get()
                    raise kind(text)
                if died := [process.exitcode for process in work if process.exitcode]:
                    raise RuntimeError(f"a process of --jobs died with exit code {died[0]}; run the command again")
                if not running:
                    break
        finally:  # also when this process alone is told to stop
            for process in work:
                if process.is_alive():
                    process.terminate()
            for process in work:
                if process.pid is not None:
                    process.join()


def _work(study: Study, threads: int, device: str | None, problems: Any) -> None:
    """One of several processes: its own share of the CPU, its own GPU; its parent does the talking."""
    if device is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = device
    torch.set_num_threads(threads)
    with suppress(KeyboardInterrupt):  # the parent has it too
        try:
            _run_cells(study, Console(quiet=True))
        except (ValueError, TypeError, OSError, ImportError) as error:
            problems.put((ValueError, str(error)))
        except Exception as error:
            problems.put((RuntimeError, f"{type(error).__name__}: {error}"))


def _run_cell(study: Study, arm: str, seed: int, console: Console) -> None:
    """Bring one cell to its end, and the summary up to date."""
    config, folder = cell_config(study.config, arm, seed), study.at(arm, seed)
    refuse_other_run(folder, config)
    if study.results(arm, seed):
        console.print(f"{arm}, seed {seed}: finished before")
        return
    trainer = Trainer(config, folder, console=console, label=f"{arm}, seed {seed}")
    main = trainer.accelerator.is_main_process
    if main:
        (folder / FAILURE).unlink(missing_ok=True)
    try:
        trainer.run()
    except NonFiniteLoss as stop:
        if main:
            write_json(folder / FAILURE, {"step": stop.step, "message": stop.problem})
    else:
        if main:
            with console.status(f"{arm}, seed {seed}: sampling"):
                evaluation.evaluate(folder, study.truth, arm=arm, device=trainer.device)
    if main:
        console.print(study.outcome(arm, seed))
        study.record()
    trainer.accelerator.wait_for_everyone()


def step_seconds(config: Config, arms: Iterable[str], *, rounds: int = 24, warmup: int = 3) -> dict[str, list[float]]:
    """Seconds of training steps of each of `arms`, which take turns in one process so that load is shared.

    One network serves all arms: what differs between them is the objective.
    """
    warmup = min(warmup, config.training.steps - 1)
    with tempfile.TemporaryDirectory() as scratch:
        trainer = Trainer(cell_config(config, BASELINE, config.seed), Path(scratch), console=Console(quiet=True))
        objectives = {
            arm: build_objective(cell_config(config, arm, config.seed), trainer.device, network=trainer.description)
            for arm in arms
        }
        batches = trainer.batches()
        seconds: dict[str, list[float]] = {arm: [] for arm in objectives}
        for n in range(min(warmup + rounds, config.training.steps)):
            parts = [next(batches) for _ in range(config.training.accumulate)]
            turn = n % len(objectives)  # nobody is always first
            for arm in [*objectives, *objectives][turn : turn + len(objectives)]:
                trainer.objective = objectives[arm]
                began = time.perf_counter()
                with suppress(NonFiniteLoss):  # one that diverges takes as long up to there
                    trainer.train_step(parts)
                if n >= warmup:
                    seconds[arm].append(time.perf_counter() - began)
    return seconds
