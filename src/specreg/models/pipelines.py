"""diffusers pipeline folders with a UNet2DModel: the forward process that their scheduler means, and saving one.

A pipeline is a network and a scheduler. The scheduler's table of ᾱ and its prediction type are what the network was
trained with, so a run that starts from a pipeline takes them over, and a run's network is saved with its own.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

from torch import Tensor, nn

from specreg import _files
from specreg.diffusion import diffusers_schedulers
from specreg.models import unet2d

SCHEDULES = {"linear": "linear", "scaled_linear": "scaled_linear", "squaredcos_cap_v2": "cosine"}
"""diffusers' names of β schedules and the names here."""

PREDICTIONS = {"epsilon": "epsilon", "v_prediction": "v", "sample": "x0"}
"""diffusers' prediction types and the names here."""


class ForwardProcess(NamedTuple):
    """What a pipeline's scheduler says of training."""

    schedule: str
    betas: tuple[float, float] | None  # the first and the last; None for a schedule that has no choice
    timesteps: int
    prediction: str
    alphas_cumprod: Tensor  # [timesteps]
    config: dict[str, Any]  # the scheduler's own


def scheduler_file(folder: Path) -> Path | None:
    """Return the scheduler's config in a pipeline folder; None where the folder is a network's alone."""
    path = folder / "scheduler" / "scheduler_config.json"
    return path if path.is_file() else None


def forward_process(folder: Path) -> ForwardProcess | None:
    """Return the forward process of a pipeline folder, None where it has no scheduler.

    Raises ValueError, which names the file, for schedulers whose networks the trainer cannot train: those that are no
    variance-preserving chain of timesteps, and β schedules other than `SCHEDULES`.
    """
    path = scheduler_file(folder)
    if path is None:
        return None
    import diffusers

    config: dict[str, Any] = _files.read_json(path)
    name = config.get("_class_name")
    kind = getattr(diffusers, name, None) if isinstance(name, str) else None
    if not (isinstance(kind, type) and issubclass(kind, diffusers.SchedulerMixin)):
        raise ValueError(f"{path}: expected a scheduler of diffusers under _class_name; got {name!r}")
    scheduler = cast("Any", kind).from_config(config)
    if (family := diffusers_schedulers.family(scheduler)) != "vp":
        raise ValueError(
            f"{path}: expected a scheduler with a table of ᾱ that keeps the variance (DDPM, DDIM, …); "
            f"got {name}, {family}"
        )
    said = scheduler.config
    for key, known in (("beta_schedule", SCHEDULES), ("prediction_type", PREDICTIONS)):
        if said[key] not in known:
            raise ValueError(f"{path}: {key}: expected {', '.join(known)}; got {said[key]}")
    schedule = SCHEDULES[said["beta_schedule"]]
    return ForwardProcess(
        schedule,
        None if schedule == "cosine" else (said["beta_start"], said["beta_end"]),
        said["num_train_timesteps"],
        PREDICTIONS[said["prediction_type"]],
        scheduler.alphas_cumprod,
        config,
    )


def settings(process: ForwardProcess) -> list[str]:
    """Return a forward process as the settings `key=value` of a run."""
    return [
        f"diffusion.schedule={process.schedule}",
        f"diffusion.betas={'null' if process.betas is None else list(process.betas)}",
        f"diffusion.timesteps={process.timesteps}",
        f"diffusion.prediction={process.prediction}",
    ]


def settings_of(folder: Path) -> list[str]:
    """Return what a diffusers model or pipeline folder says of a run that starts from it, as settings `key=value`.

    Raises ValueError as `forward_process` does.
    """
    config = _files.read_json(unet2d.home(folder) / "config.json")
    found = []
    if type(size := config.get("sample_size")) is int:
        found.append(f"data.resolution={size}")
    if (channels := config.get("in_channels")) in (1, 3):
        found.append(f"data.channels={channels}")
    process = forward_process(folder)
    return found if process is None else [*found, "diffusion.objective=ddpm", *settings(process)]


def scheduler_config(
    schedule: str, betas: tuple[float, float], timesteps: int, prediction: str, *, clip: bool
) -> dict[str, Any]:
    """Return the config of a DDPMScheduler for a run's forward process, by the names here."""
    theirs = {ours: name for name, ours in SCHEDULES.items()}
    return {
        "beta_schedule": theirs[schedule],
        "beta_start": betas[0],
        "beta_end": betas[1],
        "num_train_timesteps": timesteps,
        "prediction_type": {ours: name for name, ours in PREDICTIONS.items()}[prediction],
        "clip_sample": clip,
    }


def save(folder: Path, unet: nn.Module, scheduler: Mapping[str, Any]) -> None:
    """Write a pipeline that `DDPMPipeline.from_pretrained(folder)` loads; refused where `folder` holds other things."""
    from diffusers import DDPMPipeline, DDPMScheduler

    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder}: expected a new or an empty folder; it is not")
    pipeline = DDPMPipeline(unet=unet, scheduler=DDPMScheduler.from_config(dict(scheduler)))
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    with _files.writing(folder):
        pipeline.save_pretrained(partial, safe_serialization=True)
        if folder.exists():
            folder.rmdir()
        partial.replace(folder)
