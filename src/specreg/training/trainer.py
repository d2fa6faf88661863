"""Training of one network on one data set, with or without the spectral term; the same run again resumes."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Generator, Iterator
from contextlib import closing, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from accelerate import Accelerator
from rich.console import Console
from rich.text import Text
from torch import Tensor

from specreg import config as configs
from specreg import modalities, processes
from specreg._files import write_text
from specreg._signals import Stopped, StopRequest, noted
from specreg.config import Config, ConfigError
from specreg.randomness import Stream, draw, integer_seed, seed_torch
from specreg.training import checkpoint, one_lambda
from specreg.training.batches import Batch, DataError, Places, load, shares_of
from specreg.training.checkpoint import Checkpoint, CheckpointError
from specreg.training.ema import EMA
from specreg.training.gradient import Gradient
from specreg.training.identity import refuse_other_run, sources_of
from specreg.training.record import NonFiniteLoss, batch_means
from specreg.training.run_folder import Claim, refuse_second, resume_from
from specreg.training.runlog import Bar, RunLog
from specreg.training.schedule import learning_rate
from specreg.training.supported import refuse_sharding, refuse_unsupported
from specreg.training.term import build_objective, restore_regularizer, try_regularizer

if TYPE_CHECKING:
    from typing_extensions import Self  # typing has it from Python 3.11 on; torch brings this


class Trainer:
    """One run in one folder: `config.yaml`, `metrics.jsonl`, `checkpoints/`.

    The folder belongs to this process until `close`, or the end of a `with` block: a second process that wants to train
    there is refused. Within one process it is not.

    Args:
        config: the run; a folder that holds a run of another config is refused.
        folder: created if it does not exist. Where it holds checkpoints, training resumes from the newest whole one.
        console: where progress is shown; only the main process shows it.
        label: name of the run in the progress bar.

    Raises ConfigError where the run cannot be done as described.
    """

    def __init__(self, config: Config, folder: Path, *, console: Console | None = None, label: str | None = None):
        self.config, self.folder = config, folder
        refuse_unsupported(config, processes.state())
        modalities.refuse_too_large(config, processes=processes.state().num_processes)
        self.accelerator = Accelerator(mixed_precision=config.training.precision)
        self.console = console or Console(stderr=True)
        self.label = label or config.name
        self.device = self.accelerator.device
        refuse_sharding(self.accelerator)
        refuse_other_run(folder, config)
        self.claim = Claim(folder)
        try:
            if not self.claim.acquire_if_begun():
                raise refuse_second(folder)
            self._set_up()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let other processes train in the folder."""
        self.claim.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def _set_up(self) -> None:
        """Build what the config describes, load the newest whole checkpoint, and write the config."""
        config, settings = self.config, self.config.training
        self.part_size = settings.batch_size // (settings.accumulate * self.accelerator.num_processes)
        begun = resume_from(self.folder, self._warn) if self.claim.held else None
        described = begun[1].state.get("network") if begun else None
        (model, self.description), self.items, self.shape, memory_format = modalities.of(config).prepare(
            config, described
        )
        self.objective = build_objective(config, self.device, saved=self.description)
        try_regularizer(config.spectral, self.shape)
        model = model.to(self.device)
        if self.device.type == "cuda":
            model = model.to(memory_format=memory_format)
        self.ema = EMA(
            model,
            settings.ema,
            halflife=settings.ema_halflife,
            rampup=settings.ema_rampup,
            batch_size=settings.batch_size,
        )
        if settings.compile:
            model.compile()  # in place: names of weights stay
        optimizer = torch.optim.AdamW(model.parameters(), lr=settings.lr, weight_decay=settings.weight_decay)
        self.network = model  # without what accelerate wraps it in
        self.model, self.optimizer = self.accelerator.prepare(model, optimizer)
        self.gradient = Gradient(self.accelerator, list(model.parameters()), settings)
        self.step = 0
        self.seconds = 0.0
        self._saved = 0  # the step of the last checkpoint
        self.sources = sources_of(config)
        self._request = StopRequest()
        self._stopping = False
        self._prepare_folder(begun)

    def run(self) -> None:
        """Train to the last step, with checkpoints on the way.

        Raises:
            Stopped: a signal (SIGINT, SIGTERM, SIGHUP) asked to stop; the step that was being made then is saved.
            NonFiniteLoss: the state before the step, if finite, is saved.
            DataError: an item of the data cannot be read; the step before is saved.
            WriteError: the disk is full, or the folder was deleted or made read-only; the checkpoints before are safe.
        """
        if self.step >= self.config.training.steps:
            return
        main = self.accelerator.is_main_process
        log = RunLog(self.folder / "metrics.jsonl", from_step=self.step) if main else None
        bar = Bar(self.console, self.label, self.config.training.steps, self.step) if main else None
        try:
            with noted() as self._request, closing(self.batches()) as batches:
                self._train(batches, log, bar)
        except NonFiniteLoss as stop:
            raise NonFiniteLoss(stop.step, f"{stop.problem}; {self._save_if_finite()}") from None
        except DataError as unread:
            raise DataError(f"{unread}{self._save_finished()}") from unread.__cause__
        except Stopped as stop:
            raise Stopped(stop.number, self._said(stop.number)) from None
        finally:
            if log and bar:
                bar.close()
                log.close()

    def _train(self, batches: Iterator[Batch], log: RunLog | None, bar: Bar | None) -> None:
        """Train to the last step or until a process is asked to stop."""
        settings = self.config.training
        self.model.train()
        while self.step < settings.steps:
            began = time.perf_counter()
            logged = (self.step + 1) % settings.log_every == 0 or self.step + 1 == settings.steps
            parts = [next(batches) for _ in range(settings.accumulate)]
            record = self.train_step(parts, measure_ratio=logged)
            took = time.perf_counter() - began
            self.seconds += took
            if log and bar:
                shown = {"base": record["base"], "spectral": record["spectral"], "λ": record["lambda"]}
                skipped = {"skipped": self.gradient.skipped} if self.gradient.skipped else {}
                bar.advance({**shown, **skipped} if logged else None)
                if logged:
                    log.write({"step": self.step, **record, **skipped, "seconds_per_step": took})
            if self.accelerator.num_processes == 1:
                self._stopping = self._request.number is not None
            if self.step % settings.checkpoint_every == 0 or self.step == settings.steps or self._stopping:
                self.save()
            if self._stopping:
                raise Stopped(self._request.number or signal.SIGTERM)

    def train_step(self, parts: list[Batch], *, measure_ratio: bool = False) -> dict[str, float | None]:
        """One optimizer step on the parts of a batch; returns what is logged, the gradient ratio if measured.

        Raises NonFiniteLoss before any weight has changed.
        """
        lr = learning_rate(self.config, self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        regularizer = self.objective.regularizer
        before = {k: v.clone() for k, v in regularizer.state_dict().items()} if regularizer is not None else {}
        rank = self.accelerator.process_index
        dropout = integer_seed(self.config.seed, Stream.DROPOUT, self.step, rank)
        seed_torch(dropout, self.device)
        self.optimizer.zero_grad()
        terms = []
        in_parts = regularizer is not None and len(parts) > 1
        norms = None
        try:
            if in_parts:
                with self.accelerator.no_sync(self.model), self.accelerator.autocast():
                    norms = one_lambda.advance(self.objective, self.model, parts)
                seed_torch(dropout, self.device)
            with regularizer.held() if regularizer is not None and in_parts else nullcontext():
                for i, batch in enumerate(parts):
                    last = i == len(parts) - 1
                    measure = measure_ratio and norms is None
                    with nullcontext() if last else self.accelerator.no_sync(self.model):
                        with self.accelerator.autocast():
                            term = self.objective(
                                self.model, batch.x0, batch.t, batch.noise, batch.condition, measure_ratio=measure
                            )
                        self.accelerator.backward(term.loss / len(parts))
                    terms.append(term)
            record, self._stopping = batch_means(
                terms, self._mean, norms=norms, step=self.step + 1, asked=self._request.number is not None
            )
            norm = self.gradient.clip(step=self.step + 1)
        except NonFiniteLoss:  # the state to be saved is the one before this step, λ included
            if regularizer is not None:
                regularizer.load_state_dict(before)
            raise
        self.optimizer.step()
        self.gradient.count_skipped(step=self.step + 1)
        self.ema.update(self.network)
        self.step += 1
        return {**record, "lr": lr, "grad_norm": norm if math.isfinite(norm) else None}

    def _mean(self, values: Tensor) -> Tensor:
        """Return the mean of a tensor over processes."""
        reduced: Tensor = self.accelerator.reduce(values, reduction="mean")
        return reduced

    def save(self, *, alone: bool = False) -> Path | None:
        """Write a checkpoint of the current step; returns when it is there for every process.

        With `alone` this process writes, whichever it is, and waits for no other: all have the same state, and the
        others may be in the next step, which waits for this one.

        Raises NonFiniteLoss instead for a state that is not finite, and WriteError where it cannot be written.
        """
        if self.step == self._saved:
            return checkpoint.latest(self.folder / "checkpoints")
        state = self._state()
        if bad := checkpoint.non_finite(state):
            raise NonFiniteLoss(self.step, f"{bad} after it")
        path = None
        if alone or self.accelerator.is_main_process:
            text, keep = configs.dump(self.config), self.config.training.keep
            path = checkpoint.save(self.folder / "checkpoints", state, config=text, keep=keep)
        if not alone:
            self.accelerator.wait_for_everyone()
        self._saved = self.step
        return path

    def _save_if_finite(self) -> str:
        """Save the state before a step that failed, and say so; or say which state is the last that is finite."""
        folder = self.folder / "checkpoints"
        try:
            self.save()
        except NonFiniteLoss:
            last = checkpoint.latest(folder)
            return f"the last finite state is in {last}" if last else "no finite state was saved before"
        return f"the state before this step is saved in {folder}"

    def _save_finished(self) -> str:
        """Save the last finished step after the data could not be read, and say so, to follow what cannot be read."""
        try:
            self.save(alone=True)
        except (NonFiniteLoss, OSError) as error:
            last = checkpoint.latest(self.folder / "checkpoints")  # another process may have been first
            if last is None or checkpoint.step_of(last) != self.step:
                return f"; nor can step {self.step} be saved: {error}"
        if not self.step:
            return ""
        return f"; step {self.step} is saved in {self.folder}: run the same command again to resume once it can be read"

    def _state(self) -> Checkpoint:
        """Return all that resuming from the current step needs."""
        scaler, regularizer = self.accelerator.scaler, self.objective.regularizer
        return Checkpoint(
            self.step,
            self.network.state_dict(),
            self.ema.model.state_dict(),
            self.optimizer.state_dict(),
            {
                "shape": self.shape,
                "network": self.description,
                "ema_updates": self.ema.updates,
                "seconds": self.seconds,
                "skipped": self.gradient.skipped,
                "scaler": scaler and scaler.state_dict(),
                "regularizer": regularizer and {k: v.item() for k, v in regularizer.state_dict().items()},
                "sources": self.sources,
            },
        )

    def _said(self, number: int) -> str:
        """Return what to say when a signal stops the run."""
        name, saved = signal.Signals(number).name, self._saved
        where = f"step {saved} is saved in {self.folder}" if saved else "no step is saved yet"
        return f"Stopped by {name}: {where}. Run the same command again to resume."

    def _warn(self, text: str) -> None:
        self.console.print(Text(f"warning: {text}"), soft_wrap=True)

    def batches(self) -> Generator[Batch]:
        """This process's share of each part of each batch, from the current step on. Raises DataError."""
        settings, these = self.config.training, self.accelerator
        shares = shares_of(these.process_index, these.num_processes, size=self.part_size, parts=settings.accumulate)
        places = Places(self.step, settings.steps, shares)
        with closing(load(self.items, places, workers=settings.workers)) as loaded:
            for (step, share), found in zip(places.parts(), loaded, strict=True):
                noise, t = draw(self.config.seed, step, share, self.shape, self.objective.time.draw)
                yield Batch(found.pop("x0"), t, noise, found).to(self.device)

    def _prepare_folder(self, begun: tuple[Path, Checkpoint] | None) -> None:
        """Claim a new folder, load the checkpoint that the run has, and write the config."""
        if not self.claim.acquire():
            raise refuse_second(self.folder)
        refuse_other_run(self.folder, self.config)
        if begun is None and checkpoint.latest(self.folder / "checkpoints") is not None:
            raise ConfigError(f"{self.folder}: another process has just trained this run; run the command again")
        if begun is not None:
            self._restore(*begun)
        path, text = self.folder / "config.yaml", configs.dump(self.config)
        if self.accelerator.is_main_process and not (path.exists() and path.read_text(encoding="utf-8") == text):
            write_text(path, text)

    def _restore(self, path: Path, saved: Checkpoint) -> None:
        """Take over the state of a checkpoint."""
        if saved.step > self.config.training.steps:
            raise ConfigError(
                f"{path}: this run is at step {saved.step}, beyond training.steps = {self.config.training.steps}"
            )
        try:
            self.network.load_state_dict(saved.model)
            self.ema.model.load_state_dict(saved.ema)
            self.optimizer.load_state_dict(saved.optimizer)
            if self.accelerator.scaler is not None and saved.state.get("scaler"):
                self.accelerator.scaler.load_state_dict(saved.state["scaler"])
            restore_regularizer(self.objective.regularizer, saved.state.get("regularizer"), step=saved.step)
        except (RuntimeError, ValueError, KeyError) as error:
            why = " ".join(str(error).split())[:200]
            raise CheckpointError(f"{path}: does not fit the network of this run ({why})") from None
        gone = {key for key, source in self.sources.items() if source.content is None}
        self.sources |= {key: known for key, known in checkpoint.sources(saved.state).items() if key in gone}
        self.ema.updates, self.seconds = saved.state["ema_updates"], saved.state["seconds"]
        self.step = self._saved = saved.step
        self.gradient.skipped = saved.state.get("skipped", 0)
