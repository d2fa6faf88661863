"""From a config to what it describes: data, network, spectral term, objective."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from specreg import losses, models
from specreg.auto_weight import AutoWeight
from specreg.data import Checkerboards, ImageDataset
from specreg.diffusion import NoiseLevel, alphas_cumprod, band_weight, noise_weight
from specreg.objectives import DDPMObjective
from specreg.regularizer import SpectralRegularizer
from specreg.training.config import Config, ConfigError, DataConfig, SpectralConfig
from specreg.training.randomness import Stream, integer_seed


class ImageItems(Protocol):
    """A data set of images: `item(i)` is `[C, H, W]` in [-1, 1]."""

    def item(self, i: int) -> Tensor:
        """Image `i`."""

    def __len__(self) -> int: ...


def build_data(config: DataConfig, *, path: Path | None = None) -> ImageItems:
    """The data set of a run, or the images at `path` read the same way."""
    if config.kind == "checkerboard":
        return Checkerboards(config.count, resolution=config.resolution, squares=config.squares)
    path = path or config.path
    if path is None:
        raise ConfigError("data.path: expected a folder, zip or array of images (data.kind is images); got nothing")
    return ImageDataset(path, resolution=config.resolution, channels=config.channels)


def build_model(config: Config, channels: int) -> nn.Module:
    """The network of a run with its initial weights, a function of the run's seed alone."""
    options = config.model.model_dump()
    seed = integer_seed(config.seed, Stream.INIT)
    return models.build(channels=channels, resolution=config.data.resolution, seed=seed, **options)


def build_regularizer(config: SpectralConfig | None, *, calls_per_step: int = 1) -> SpectralRegularizer | None:
    """The spectral term of a run; None when it trains without. Warm-up and smoothing are in steps of so many calls."""
    if config is None:
        return None
    smoothing = config.smoothing ** (1 / calls_per_step)
    weight = AutoWeight(config.ratio, smoothing=smoothing) if config.weight == "auto" else config.weight
    return SpectralRegularizer(
        losses.build(config.name, **config.options),
        weight=weight,
        noise_weight=noise_weight.build(config.noise_weight, **config.noise_options),
        band_weight=band_weight.build(config.band_weight, **config.band_options) if config.band_weight else None,
        warmup=config.warmup * calls_per_step,
        ramp=config.ramp,
    )


def restore_regularizer(regularizer: SpectralRegularizer | None, state: Mapping[str, float] | None) -> None:
    """Give a term the λ state that a checkpoint holds, if both are there."""
    if regularizer is not None and state:
        regularizer.load_state_dict({name: torch.tensor(value) for name, value in state.items()})


def build_schedule(config: Config) -> Tensor:
    """ᾱ of a run, float64 `[T]`."""
    return alphas_cumprod(config.diffusion.schedule, config.diffusion.timesteps)


def build_objective(config: Config, device: torch.device | str = "cpu") -> DDPMObjective:
    """The objective of a run, on `device`."""
    schedule = build_schedule(config).float().to(device)
    regularizer = build_regularizer(config.spectral, calls_per_step=config.training.accumulate)
    return DDPMObjective(schedule, config.diffusion.prediction, regularizer)


def try_regularizer(config: SpectralConfig | None, shape: Sequence[int]) -> None:
    """Evaluate a term once on an image of `shape` `(C, H, W)`, so that options that do not fit it fail at once."""
    regularizer = build_regularizer(config)
    if regularizer is not None:
        x = torch.zeros(1, *shape)
        regularizer.eval()(x, x, NoiseLevel.edm(torch.ones(1)))
