"""Train one network on one data set, with or without the spectral term; run the same command again to resume."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from rich.console import Console
from torch import nn
from torch.utils.data import DataLoader

from specreg import models
from specreg._files import write_text
from specreg.objectives import ObjectiveTerms
from specreg.training import checkpoint
from specreg.training import config as configs
from specreg.training.batches import Batch, Crops, Items, Places
from specreg.training.build import (
    build_data,
    build_network,
    build_objective,
    restore_regularizer,
    try_regularizer,
)
from specreg.training.build_audio import build_clips, diffwave_config
from specreg.training.config import Config, ConfigError
from specreg.training.ema import EMA
from specreg.training.randomness import Stream, draw, integer_seed
from specreg.training.runlog import Bar, RunLog

COLUMNS = ("base", "spectral", "weight", "term", "lambda", "gradient_ratio")
"""What metrics.jsonl says of the losses, as batch means: base loss, spectral loss, λ with its noise-level weight, their
product, λ alone, and the ratio of the two gradients at the network's output."""


class NonFiniteLoss(RuntimeError):
    """The loss or its gradient is NaN or infinite: which step and which term."""

    def __init__(self, step: int, problem: str):
        super().__init__(f"step {step}: {problem}")
        self.step, self.problem = step, problem


class Trainer:
    """One run in one folder: `config.yaml`, `metrics.jsonl`, `checkpoints/`.

    Args:
        config: the run; a folder that holds another run's config is refused.
        folder: created if it does not exist. When it holds checkpoints, training goes on from the last.
        console: where progress goes; only the main process draws it.
        label: what the progress bar calls the run.
    """

    def __init__(self, config: Config, folder: Path, *, console: Console | None = None, label: str | None = None):
        settings = config.training
        self.config, self.folder = config, folder
        self.accelerator = Accelerator(mixed_precision=settings.precision)
        self.console = console or Console(stderr=True)
        self.label = label or config.name
        self.device = self.accelerator.device
        parts = settings.accumulate * self.accelerator.num_processes
        if settings.batch_size % parts:
            raise ConfigError(
                f"training.batch_size: expected a multiple of {parts} (accumulate × processes); "
                f"got {settings.batch_size}"
            )
        self.part_size = settings.batch_size // parts
        begun = checkpoint.latest(folder / "checkpoints")
        saved = checkpoint.load_state(begun).get("network") if begun else None
        model = self._prepare_sound(saved) if config.data.kind == "audio" else self._prepare_images(saved)
        self.objective = build_objective(config, self.device, network=self.description)
        try_regularizer(config.spectral, self.shape)
        model = model.to(self.device)
        if self.device.type == "cuda" and self.description is not None and config.data.kind != "audio":
            model = model.to(memory_format=torch.channels_last)
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
        self._prepare_folder()

    def _prepare_images(self, saved: Mapping[str, Any] | None) -> nn.Module:
        data = build_data(self.config.data)
        self.shape: tuple[int, ...] = tuple(data.item(0).shape)
        model, self.description = build_network(self.config, self.shape[0], saved=saved)
        self.items: Items | Crops = Items(data, self.config, models.conditioning(model))
        return model

    def _prepare_sound(self, saved: Mapping[str, Any] | None) -> nn.Module:
        network = diffwave_config(self.config, saved)
        data = build_clips(self.config, network, "train")
        self.shape = (1, data.crop_samples)
        model, self.description = build_network(self.config, 1, saved=saved)
        self.items = Crops(data, self.config, conditional=not network.unconditional)
        return model

    def run(self) -> None:
        """Train to the last step, saving as it goes; on an interrupt or error the last checkpoint stays."""
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
                    bar.advance(shown if logged else None)
                    if logged:
                        log.write({"step": self.step, **record, "seconds_per_step": took})
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
        settings = self.config.training
        lr = learning_rate(self.config, self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        regularizer = self.objective.regularizer
        before = {k: v.clone() for k, v in regularizer.state_dict().items()} if regularizer is not None else {}
        rank = self.accelerator.process_index
        torch.manual_seed(integer_seed(self.config.seed, Stream.DROPOUT, self.step, rank))
        self.optimizer.zero_grad()
        terms = []
        for i, batch in enumerate(parts):
            last = i == len(parts) - 1
            with nullcontext() if last else self.accelerator.no_sync(self.model):
                with self.accelerator.autocast():
                    term = self.objective(
                        self.model, batch.x0, batch.t, batch.noise, batch.condition, measure_ratio=measure_ratio
                    )
                self.accelerator.backward(term.loss / len(parts))
            terms.append(term)
        try:
            record = self._means(terms)
        except NonFiniteLoss:
            if regularizer is not None:
                regularizer.load_state_dict(before)
            raise
        limit = math.inf if settings.clip is None else settings.clip
        norm = float(self.accelerator.clip_grad_norm_(self.model.parameters(), limit))
        overflow = settings.precision == "fp16"  # the gradient scaler skips such a step and shrinks its scale
        if not math.isfinite(norm) and not overflow:
            raise NonFiniteLoss(self.step + 1, f"the gradient norm is {norm} though the loss is finite")
        self.optimizer.step()
        self.ema.update(self.accelerator.unwrap_model(self.model))
        self.step += 1
        return {**record, "lr": lr, "grad_norm": norm if math.isfinite(norm) else None}

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
                    "scaler": scaler and scaler.state_dict(),
                    "regularizer": regularizer and {k: v.item() for k, v in regularizer.state_dict().items()},
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
            noise, t = draw(self.config.seed, step, share, self.shape, self.objective.draw_time)
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
            self.step, self.seconds = saved.step, saved.state["seconds"]
        if self.accelerator.is_main_process and not (path.exists() and path.read_text(encoding="utf-8") == text):
            write_text(path, text)


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


def refuse_other_run(folder: Path, config: Config) -> None:
    """Raise ConfigError if a folder has a run begun that differs from `config` in anything that training depends on."""
    path = folder / "config.yaml"
    if not path.exists() or checkpoint.latest(folder / "checkpoints") is None:
        return
    saved = configs.load(path)
    aside: Any = {
        "name": True,
        "title": True,
        "arms": True,
        "sampling": True,
        "metrics": True,
        "data": {"test_path", "cache"},
        "training": {"keep", "log_every", "checkpoint_every", "workers", "compile"},
    }
    if config.training.decay == "constant":
        aside["training"] = {"steps", "keep", "log_every", "checkpoint_every", "workers", "compile"}
    old, new = (_flat(c.model_dump(mode="json", exclude=aside)) for c in (saved, config))
    changed = [key for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key)]
    if changed:
        key = changed[0]
        raise ConfigError(
            f"{path}: this folder holds a run with {key} = {old.get(key)!r}; got {new.get(key)!r}. "
            "Choose another name, or delete the folder"
        )


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat
