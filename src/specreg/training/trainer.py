"""Training of one network on one data set, with or without the spectral term; the same run again resumes."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from rich.console import Console
from torch.utils.data import DataLoader

from specreg import config as configs
from specreg import modalities
from specreg._files import write_text
from specreg.config import Config, ConfigError
from specreg.objectives import ObjectiveTerms
from specreg.randomness import Stream, draw, integer_seed
from specreg.training import checkpoint
from specreg.training.batches import Batch, Places
from specreg.training.ema import EMA
from specreg.training.identity import refuse_other_run, sources_of
from specreg.training.runlog import Bar, RunLog
from specreg.training.term import build_objective, restore_regularizer, try_regularizer

COLUMNS = ("base", "spectral", "weight", "term", "lambda", "gradient_ratio")
"""Columns of metrics.jsonl about the losses, as batch means: base loss, spectral loss, λ times the noise weight, the
product of these two, λ alone, and the ratio of the two gradients at the network's output."""

MOST_SKIPPED = 30
"""Optimizer steps in a row that a gradient scaler may skip: each halves its scale, from 65,536 to 6e-5."""


class NonFiniteLoss(RuntimeError):
    """The loss or its gradient is NaN or infinite: which step and which term."""

    def __init__(self, step: int, problem: str):
        super().__init__(f"step {step}: {problem}")
        self.step, self.problem = step, problem


class Trainer:
    """One run in one folder: `config.yaml`, `metrics.jsonl`, `checkpoints/`.

    Args:
        config: the run; a folder that holds a run of another config is refused.
        folder: created if it does not exist. Where it holds checkpoints, training resumes from the last one.
        console: where progress is shown; only the main process shows it.
        label: name of the run in the progress bar.

    Raises ConfigError where the run cannot be done as described.
    """

    def __init__(self, config: Config, folder: Path, *, console: Console | None = None, label: str | None = None):
        settings = config.training
        self.config, self.folder = config, folder
        self.accelerator = Accelerator(mixed_precision=settings.precision)
        self.console = console or Console(stderr=True)
        self.label = label or config.name
        self.device = self.accelerator.device
        refuse_sharding(self.accelerator)
        parts = settings.accumulate * self.accelerator.num_processes
        if settings.batch_size % parts:
            raise ConfigError(
                f"training.batch_size: expected a multiple of {parts} (accumulate × processes); "
                f"got {settings.batch_size}"
            )
        self.part_size = settings.batch_size // parts
        begun = checkpoint.latest(folder / "checkpoints")
        saved = checkpoint.load_state(begun).get("network") if begun else None
        (model, self.description), self.items, self.shape, memory_format = modalities.of(config).prepare(config, saved)
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
        self.model, self.optimizer = self.accelerator.prepare(model, optimizer)
        self.step = 0
        self.seconds = 0.0
        self.skipped = 0
        self._skipped_in_a_row = 0
        self.sources = sources_of(config)
        self._prepare_folder()

    def run(self) -> None:
        """Train to the last step, with checkpoints on the way; after an interrupt or error the last one stays."""
        settings, main = self.config.training, self.accelerator.is_main_process
        if self.step >= settings.steps:
            return
        log = RunLog(self.folder / "metrics.jsonl", from_step=self.step) if main else None
        bar = Bar(self.console, self.label, settings.steps, self.step) if main else None
        batches = self.batches()
        self.model.train()
        try:
            while self.step < settings.steps:
                began = time.perf_counter()
                logged = (self.step + 1) % settings.log_every == 0 or self.step + 1 == settings.steps
                parts = [next(batches) for _ in range(settings.accumulate)]
                record = self.train_step(parts, measure_ratio=logged)
                took = time.perf_counter() - began
                self.seconds += took
                if log and bar:
                    shown = {"base": record["base"], "spectral": record["spectral"], "λ": record["lambda"]}
                    shown |= {"skipped": self.skipped} if self.skipped else {}
                    bar.advance(shown if logged else None)
                    if logged:
                        skipped = {"skipped": self.skipped} if self.skipped else {}
                        log.write({"step": self.step, **record, **skipped, "seconds_per_step": took})
                if self.step % settings.checkpoint_every == 0 or self.step == settings.steps:
                    self.save()
        except NonFiniteLoss:
            self.save()
            raise
        finally:
            if log and bar:
                bar.close()
                log.close()

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
        torch.manual_seed(integer_seed(self.config.seed, Stream.DROPOUT, self.step, rank))
        self.optimizer.zero_grad()
        terms = []
        try:
            for i, batch in enumerate(parts):
                last = i == len(parts) - 1
                with nullcontext() if last else self.accelerator.no_sync(self.model):
                    with self.accelerator.autocast():
                        term = self.objective(
                            self.model, batch.x0, batch.t, batch.noise, batch.condition, measure_ratio=measure_ratio
                        )
                    self.accelerator.backward(term.loss / len(parts))
                terms.append(term)
            record = self._means(terms)
            norm = self._clip_gradient()
        except NonFiniteLoss:  # the state to be saved is the one before this step, λ included
            if regularizer is not None:
                regularizer.load_state_dict(before)
            raise
        self.optimizer.step()
        self._count_skipped()
        self.ema.update(self.accelerator.unwrap_model(self.model))
        self.step += 1
        return {**record, "lr": lr, "grad_norm": norm if math.isfinite(norm) else None}

    def _clip_gradient(self) -> float:
        """Clip the gradient and return its norm before; raises NonFiniteLoss where no gradient scaler handles it."""
        limit = math.inf if self.config.training.clip is None else self.config.training.clip
        norm = float(self.accelerator.clip_grad_norm_(self.model.parameters(), limit))
        if not math.isfinite(norm) and self.accelerator.scaler is None:
            raise NonFiniteLoss(self.step + 1, f"the gradient norm is {norm} though the loss is finite")
        return norm

    def _count_skipped(self) -> None:
        """Count optimizer steps that the gradient scaler skipped; raises NonFiniteLoss after too many in a row."""
        if not self.accelerator.optimizer_step_was_skipped:
            self._skipped_in_a_row = 0
            return
        self.skipped += 1
        self._skipped_in_a_row += 1
        if self._skipped_in_a_row >= MOST_SKIPPED:
            raise NonFiniteLoss(
                self.step + 1,
                f"the gradient was not finite in {MOST_SKIPPED} steps in a row, whatever the scale of the loss "
                f"(training.precision = {self.config.training.precision}); no weight has changed in them",
            )

    def save(self) -> Path | None:
        """Write a checkpoint of the current step; returns when it is there for every process."""
        path = self._write_checkpoint() if self.accelerator.is_main_process else None
        self.accelerator.wait_for_everyone()
        return path

    def _write_checkpoint(self) -> Path:
        scaler, regularizer = self.accelerator.scaler, self.objective.regularizer
        return checkpoint.save(
            self.folder / "checkpoints",
            checkpoint.Checkpoint(
                self.step,
                self.accelerator.unwrap_model(self.model).state_dict(),
                self.ema.model.state_dict(),
                self.optimizer.state_dict(),
                {
                    "shape": self.shape,
                    "network": self.description,
                    "ema_updates": self.ema.updates,
                    "seconds": self.seconds,
                    "skipped": self.skipped,
                    "scaler": scaler and scaler.state_dict(),
                    "regularizer": regularizer and {k: v.item() for k, v in regularizer.state_dict().items()},
                    "sources": self.sources,
                },
            ),
            config=configs.dump(self.config),
            keep=self.config.training.keep,
        )

    def _means(self, terms: list[ObjectiveTerms]) -> dict[str, float | None]:
        """Batch means over parts and processes; raises if one of them is not finite."""
        base = torch.stack([term.base.mean() for term in terms]).mean()
        means = [base.detach()]
        spectral = [term.spectral for term in terms if term.spectral is not None]
        names = ["base"]
        if spectral:
            columns = {
                "spectral": [s.per_sample.mean() for s in spectral],
                "weight": [s.weight.mean() for s in spectral],
                "term": [s.loss for s in spectral],
                "lambda": [s.lam for s in spectral],
                "gradient_ratio": [s.gradient_ratio for s in spectral if s.gradient_ratio is not None],
            }
            measured = {name: torch.stack(values) for name, values in columns.items() if values}
            names += measured
            means += [values.mean().detach() for values in measured.values()]
        reduced: Any = self.accelerator.reduce(torch.stack(means), reduction="mean")
        values: dict[str, float | None] = dict.fromkeys(COLUMNS)
        values.update(zip(names, reduced.tolist(), strict=True))
        if not math.isfinite(values["gradient_ratio"] or 0.0):
            values["gradient_ratio"] = None  # the base loss has no gradient left
        bad = [name for name in COLUMNS if not math.isfinite(values[name] or 0.0)]
        if bad:
            shown = ", ".join(f"{name} {value}" for name, value in values.items() if value is not None)
            culprit = "base loss" if bad[0] == "base" else "spectral term"
            raise NonFiniteLoss(
                self.step + 1,
                f"the {culprit} is not finite ({shown}); "
                f"the state before this step is saved in {self.folder / 'checkpoints'}",
            )
        return {"loss": (values["base"] or 0.0) + (values["term"] or 0.0), **values}

    def batches(self) -> Iterator[Batch]:
        """This process's share of each part of each batch, from the current step on."""
        settings = self.config.training
        places = Places(self.step, settings.steps, self._shares())
        loader: DataLoader[Any] = DataLoader(self.items, batch_sampler=places, num_workers=settings.workers)
        for (step, share), found in zip(places.parts(), loader, strict=True):
            noise, t = draw(self.config.seed, step, share, self.shape, self.objective.time.draw)
            yield Batch(found.pop("x0"), t, noise, found).to(self.device)

    def _shares(self) -> list[range]:
        """Indices in the global batch that this process runs, one range a part."""
        rank, processes, size = self.accelerator.process_index, self.accelerator.num_processes, self.part_size
        starts = [(part * processes + rank) * size for part in range(self.config.training.accumulate)]
        return [range(start, start + size) for start in starts]

    def _prepare_folder(self) -> None:
        """Refuse another run's folder, load the last checkpoint, and write the config."""
        path, text = self.folder / "config.yaml", configs.dump(self.config)
        found = checkpoint.latest(self.folder / "checkpoints")
        if found is not None:
            refuse_other_run(self.folder, self.config)
            saved = checkpoint.load(found)
            if saved.step > self.config.training.steps:
                raise ConfigError(
                    f"{found}: this run is at step {saved.step}, beyond training.steps = {self.config.training.steps}"
                )
            self.accelerator.unwrap_model(self.model).load_state_dict(saved.model)
            self.ema.model.load_state_dict(saved.ema)
            self.ema.updates = saved.state["ema_updates"]
            self.optimizer.load_state_dict(saved.optimizer)
            if self.accelerator.scaler is not None and saved.state["scaler"]:
                self.accelerator.scaler.load_state_dict(saved.state["scaler"])
            restore_regularizer(self.objective.regularizer, saved.state.get("regularizer"))
            gone = {key for key, source in self.sources.items() if source.content is None}
            self.sources |= {key: known for key, known in checkpoint.sources(saved.state).items() if key in gone}
            self.step, self.seconds = saved.step, saved.state["seconds"]
            self.skipped = saved.state.get("skipped", 0)
        if self.accelerator.is_main_process and not (path.exists() and path.read_text(encoding="utf-8") == text):
            write_text(path, text)


def refuse_sharding(accelerator: Accelerator) -> None:
    """Raise ConfigError where a launcher shards the weights: checkpoints and the weight average need them whole."""
    supported = ("NO", "MULTI_CPU", "MULTI_GPU", "MULTI_XPU", "MULTI_NPU")
    if accelerator.distributed_type.name not in supported:
        raise ConfigError(
            "accelerate: expected one process or plain data parallelism (DDP); got "
            f"{accelerator.distributed_type.name}, which the trainer does not support. The losses do: add them to a "
            "training loop of your own"
        )


def learning_rate(config: Config, step: int) -> float:
    """Learning rate of a step (from 0): linear warm-up, then constant or a cosine down to 0 at the last step."""
    settings = config.training
    if settings.warmup_images is not None:  # the public loop counts the images before this step: its first has none
        ramp = min(1.0, step * settings.batch_size / settings.warmup_images)
    else:
        ramp = min(1.0, (step + 1) / settings.warmup) if settings.warmup else 1.0
    if settings.decay == "constant":
        return settings.lr * ramp
    done = max(0, step - settings.warmup) / max(1, settings.steps - settings.warmup)
    return settings.lr * ramp * 0.5 * (1 + math.cos(math.pi * done))
