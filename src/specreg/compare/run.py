"""Running a comparison: cell by cell, or in several processes that take cells from one folder."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress

from specreg import evaluation, processes
from specreg._files import write_json
from specreg._signals import at_once, interrupt_held_back, let_interrupt_through
from specreg.compare.arms import BASELINE, CALIBRATED, cell_config
from specreg.compare.comparison import FAILURE, Comparison
from specreg.compare.timing import kept_step_seconds
from specreg.config import Config, ConfigError, SpectralConfig
from specreg.modalities.protocol import NotFinite
from specreg.training.identity import refuse_other_run
from specreg.training.record import NonFiniteLoss
from specreg.training.run_folder import Claim
from specreg.training.term import try_regularizer
from specreg.training.trainer import Trainer


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
    """Train and evaluate every cell that is not finished; return the content of `comparison.json`.

    The file is written before the first cell and after each, so that an interrupted comparison has a report too. With
    `jobs`, this number of processes take cells at the same time, each on a GPU of its own where there are several. The
    same comparison may also be started again elsewhere on the same folder: only one process works on a cell at a time.
    An arm whose training diverges is recorded as stopped, and the others continue. From a script, `jobs` above 1 need
    the usual `if __name__ == "__main__":`, since processes are spawned.

    Raises RuntimeError if no cell is finished.
    """
    console, state = console or Console(stderr=True), processes.state()
    # With several jobs this process only coordinates: the GPUs are the others'.
    truth = evaluation.load_truth(config, device=state.device if jobs == 1 else "cpu")
    for spectral in arms.values():
        try_regularizer(spectral, truth.item_shape)
    config = config.model_copy(update={"arms": dict(arms)})
    comparison = Comparison(config, folder, list(seeds), truth, command or processes.command_line())
    if jobs < 1 or (jobs > 1 and state.num_processes > 1):
        raise ConfigError(f"--jobs: expected at least 1, and 1 under `accelerate launch`; got {jobs}")
    for arm, seed in comparison.cells:
        if arm != CALIBRATED:
            refuse_other_run(comparison.at(arm, seed), cell_config(config, arm, seed), of=folder.name)
    if state.is_main_process:
        truth.save(folder / "truth")
        if others := comparison.others():
            console.print(f"{folder}: not in this comparison, and left as they are: {', '.join(others)}")
    for cell in comparison.cells:
        if state.is_main_process and jobs > 1:
            (comparison.at(*cell) / FAILURE).unlink(missing_ok=True)  # they get another try
    comparison.record()
    if jobs == 1:
        _run_cells(comparison, console)
    else:
        _run_jobs(comparison, jobs, console)
    stopped = [failure for cell in comparison.cells if (failure := comparison.failure(*cell))]
    if len(stopped) == len(comparison.cells):
        raise RuntimeError(f"every run stopped; the first at step {stopped[0]['step']}: {stopped[0]['message']}")
    finished = {arm for arm, seed in comparison.cells if comparison.results(arm, seed)} - {CALIBRATED}
    return comparison.record(kept_step_seconds(config, [arm for arm in config.arms if arm in finished], folder))


def _run_cells(comparison: Comparison, console: Console) -> None:
    """Run the cells that no other process works on, until none is left."""
    waiting = comparison.cells
    while waiting:
        left = []
        for arm, seed in waiting:
            if (parent := multiprocessing.parent_process()) is not None and not parent.is_alive():
                return  # no one waits for the rest
            if comparison.waits(arm, seed):
                left.append((arm, seed))
                continue
            with _claim(comparison.at(arm, seed)) as claimed:
                if claimed:
                    _run_cell(comparison, arm, seed, console)
                else:
                    left.append((arm, seed))
        if len(left) == len(waiting):
            time.sleep(1)  # other processes work on all the rest; one of them may yet be killed
        waiting = left


@contextmanager
def _claim(folder: Path) -> Iterator[bool]:
    """Yield whether this process may work on a cell; the system releases the claim when a process dies."""
    claim = Claim(folder)
    try:
        yield claim.acquire()
    finally:
        claim.release()


def _run_jobs(comparison: Comparison, jobs: int, console: Console) -> None:
    """Run the cells in `jobs` processes; progress is counted in cells."""
    spawn = multiprocessing.get_context("spawn")
    devices = [d for d in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if d]
    devices = devices or [str(i) for i in range(torch.cuda.device_count())]
    threads = max(1, len(os.sched_getaffinity(0)) // jobs) if hasattr(os, "sched_getaffinity") else 1

    waiting = set(comparison.cells)
    problems: Any = spawn.SimpleQueue()
    assigned = [devices[i % len(devices)] if devices else None for i in range(jobs)]
    work = [spawn.Process(target=_work, args=(comparison, threads, device, problems)) for device in assigned]
    with Progress(console=console) as progress:
        task = progress.add_task(f"{len(waiting)} runs, {jobs} at a time", total=len(waiting))
        try:
            with (
                interrupt_held_back()
            ):  # until a process can handle them; then this one alone has Ctrl-C, and tells the others
                for process in work:
                    process.start()
            while waiting:
                wait([process.sentinel for process in work if process.is_alive()], timeout=2)
                running = [process for process in work if process.is_alive()]
                for cell in [cell for cell in comparison.cells if cell in waiting]:
                    if (said := comparison.outcome(*cell)) is not None:
                        progress.console.print(said)
                        progress.advance(task)
                        waiting.remove(cell)
                if not problems.empty():
                    kind, text, trace = problems.get()
                    raise kind(text) from WorkerTraceback(trace)
                if died := [process.exitcode for process in work if process.exitcode]:
                    raise RuntimeError(f"a process of --jobs died with exit code {died[0]}; run the command again")
                if not running:
                    break
        finally:  # also when this process alone is told to stop
            _end([process for process in work if process.pid is not None])


def _end(work: Sequence[Any]) -> None:
    """Ask processes to stop, which save their step, and wait for them; at once when asked to stop meanwhile."""
    try:
        for process in work:
            if process.is_alive():
                process.terminate()
        for process in work:
            process.join()
    except KeyboardInterrupt:
        for process in work:
            process.kill()
        raise


class WorkerTraceback(Exception):
    """The traceback of an error in another process, as text; it is the cause of the error raised here."""

    def __str__(self) -> str:
        return f"in a process of --jobs:\n{self.args[0]}"


def _work(comparison: Comparison, threads: int, device: str | None, problems: Any) -> None:
    """Run cells in one of several processes, with its own share of the CPU and its own GPU; the parent prints."""
    if device is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = device
    torch.set_num_threads(threads)
    threading.Thread(target=_stop_with_parent, daemon=True).start()
    with suppress(KeyboardInterrupt), at_once():  # the parent says what happened
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        let_interrupt_through()
        try:
            _run_cells(comparison, Console(quiet=True))
        except (ValueError, TypeError, OSError, ImportError) as error:
            problems.put((ValueError, str(error), traceback.format_exc()))
        except Exception as error:
            problems.put((RuntimeError, f"{type(error).__name__}: {error}", traceback.format_exc()))


def _stop_with_parent() -> None:
    """Stop this process, which then saves its step, when its parent dies: no one waits for the rest."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)


def _run_cell(comparison: Comparison, arm: str, seed: int, console: Console) -> None:
    """Train and evaluate one cell, and update the summary."""
    config, folder = cell_config(comparison.config, arm, seed), comparison.at(arm, seed)
    if comparison.results(arm, seed):
        console.print(f"{arm}, seed {seed}: finished before")
        return
    if arm == CALIBRATED:
        _calibrate(comparison, seed, console)
        return
    with Trainer(config, folder, console=console, label=f"{arm}, seed {seed}") as trainer:
        _train_and_evaluate(comparison, arm, seed, trainer, console)


def _train_and_evaluate(comparison: Comparison, arm: str, seed: int, trainer: Trainer, console: Console) -> None:
    folder, main = trainer.folder, trainer.accelerator.is_main_process
    if main:
        (folder / FAILURE).unlink(missing_ok=True)
    problem = None
    try:
        trainer.run()
        with console.status(f"{arm}, seed {seed}: sampling"):
            evaluation.evaluate(folder, comparison.truth, arm=arm, device=trainer.device)
    except NonFiniteLoss as stop:
        problem = {"step": stop.step, "message": stop.problem}
    except NotFinite as stop:
        problem = {"step": trainer.config.training.steps, "message": str(stop)}
    if main:
        if problem is not None:
            write_json(folder / FAILURE, problem)
        console.print(comparison.outcome(arm, seed))
        comparison.record()
    trainer.accelerator.wait_for_everyone()


def _calibrate(comparison: Comparison, seed: int, console: Console) -> None:
    """Evaluate the calibrated network of a finished baseline, and update the summary."""
    state, folder = processes.state(), comparison.at(CALIBRATED, seed)
    failure = comparison.failure(BASELINE, seed)
    if failure is None:
        try:
            with console.status(f"{CALIBRATED}, seed {seed}: sampling"):
                evaluation.evaluate(
                    comparison.at(BASELINE, seed),
                    comparison.truth,
                    arm=CALIBRATED,
                    device=state.device,
                    calibrated_in=folder,
                )
        except NotFinite as stop:
            failure = {"step": comparison.config.training.steps, "message": str(stop)}
    if state.is_main_process:
        if failure is not None:
            write_json(folder / FAILURE, failure)
        console.print(comparison.outcome(CALIBRATED, seed))
        comparison.record()
    state.wait_for_everyone()
