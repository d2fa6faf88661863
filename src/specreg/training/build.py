"""From a config to what it describes: data, network, spectral term, objective."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from specreg import losses, models
from specreg.auto_weight import AutoWeight
from specreg.data import Checkerboards, ImageDataset
from specreg.diffusion import NoiseLevel, Preconditioned, alphas_cumprod, band_weight, noise_density, noise_weight
from specreg.models import pretrained, unet2d
from specreg.models.diffwave import DiffWave, DiffWaveConfig
from specreg.models.network_config import NetworkConfig
from specreg.objectives import DDPMObjective, DenoiserObjective, Objective, inverse_variance
from specreg.objectives_audio import DiffWaveObjective
from specreg.regularizer import SpectralRegularizer
from specreg.training import build_audio
from specreg.training.config import DENOISERS, Config, ConfigError, DataConfig, SpectralConfig
from specreg.training.randomness import Stream, integer_seed


class ImageItems(Protocol):
    """A data set of images: `item(i)` is `[C, H, W]` in [-1, 1]."""

    def item(self, i: int) -> Tensor:
        """Image `i`."""

    def label(self, i: int) -> int | None:
        """Class of image `i`, if the set has classes."""

    def __len__(self) -> int: ...


def build_data(config: DataConfig, *, path: Path | None = None) -> ImageItems:
    """The data set of a run, or the images at `path` read the same way."""
    if config.kind == "checkerboard":
        return Checkerboards(config.count, resolution=config.resolution, squares=config.squares)
    path = path or config.path
    if path is None:
        raise ConfigError("data.path: expected a folder, zip or array of images (data.kind is images); got nothing")
    return ImageDataset(path, resolution=config.resolution, channels=config.channels)


class Network(NamedTuple):
    """A network, and what describes it where the run's config does not."""

    module: nn.Module
    description: dict[str, Any] | None


def build_network(config: Config, channels: int, *, saved: Mapping[str, Any] | None = None) -> Network:
    """The network of a run with its initial weights: a checkpoint's, or a function of the run's seed alone.

    `saved` is the description that one of the run's own checkpoints holds: then model.checkpoint need not be there.
    Raises ConfigError where a pretrained network does not fit the run.
    """
    if saved is not None:
        return _described(saved, config)
    kind, seed = config.model.kind, integer_seed(config.seed, Stream.INIT)
    if config.diffusion.objective == "diffwave":
        diffwave = build_audio.build_diffwave(config)
        return Network(diffwave, build_audio.describe(diffwave.config))
    if kind == "pretrained":
        network = _pretrained(config)
    elif kind in DENOISERS:
        described = _denoiser_config(config, channels)
        network = Network(described.build(seed=seed), {"denoiser": described.to_dict()})
    else:
        options = config.model.model_dump(exclude={"checkpoint", "classes"})
        return Network(models.build(channels=channels, resolution=config.data.resolution, seed=seed, **options), None)
    _check_fit(network.module, config, channels)
    return network


def _described(saved: Mapping[str, Any], config: Config) -> Network:
    if "diffwave" in saved:
        return Network(DiffWave(DiffWaveConfig(**saved["diffwave"])), dict(saved))
    if "denoiser" in saved:
        return Network(NetworkConfig(**saved["denoiser"]).build(dropout=config.model.dropout), dict(saved))
    return Network(unet2d.from_options(saved["unet2d"]), dict(saved))


def _pretrained(config: Config) -> Network:
    path = config.model.checkpoint
    if path is None:
        raise ConfigError(
            "model.checkpoint: expected an EDM .pkl, a .safetensors, a .pt or a diffusers folder (--checkpoint); "
            "got nothing"
        )
    if path.is_dir():
        if config.model.dropout:
            raise ConfigError(
                f"model.dropout: a diffusers network keeps its own; expected 0, got {config.model.dropout}"
            )
        unet = unet2d.from_folder(path)
        return Network(unet, {"unet2d": unet2d.options_of(unet)})
    found = pretrained.read(path)
    return Network(found.build(dropout=config.model.dropout), {"denoiser": found.config.to_dict()})


def _denoiser_config(config: Config, channels: int) -> NetworkConfig:
    """A network of this run's size, with the preconditioning of its objective."""
    model, side = config.model, config.data.resolution
    options: dict[str, Any] = {
        "img_resolution": side,
        "img_channels": channels,
        "label_dim": model.classes,
        "augment_dim": models.AUGMENT_LABELS if config.data.augment else 0,
        "model_channels": model.width,
        "channel_mult": list(model.multipliers),
        "num_blocks": model.blocks,
        "attn_resolutions": [side >> level for level in model.attention],
        "dropout": model.dropout,
    }
    objective = config.diffusion.objective
    assert objective != "ddpm"  # the config sees to both
    assert objective != "diffwave"
    if model.kind == "adm":
        return NetworkConfig("adm", objective, options)
    return NetworkConfig("songunet", objective, {**options, **models.SONGUNET_FORMS[model.kind]})


def _check_fit(module: nn.Module, config: Config, channels: int) -> None:
    """Raise ConfigError where a network does not fit the run's objective or data."""
    path, objective = config.model.checkpoint, config.diffusion.objective
    denoiser = isinstance(module, Preconditioned)
    if denoiser == (objective == "ddpm"):
        expected = "edm, vp or ve" if denoiser else "ddpm"
        raise ConfigError(f"diffusion.objective: expected {expected} for {path}; got {objective}")
    network: Any = module.model if denoiser else module.unet
    if denoiser:
        own = (network.img_channels, network.img_resolution)
    else:
        own = (network.config["in_channels"], network.config["sample_size"] or config.data.resolution)
    if own != (channels, config.data.resolution):
        raise ConfigError(
            f"{path}: its images have {own[0]} channels and {own[1]} pixels a side; "
            f"got {channels} and {config.data.resolution}"
        )
    if config.data.augment and models.conditioning(module).augment != models.AUGMENT_LABELS:
        raise ConfigError(f"data.augment: {path} is not told of augmentation; expected 0, got {config.data.augment}")


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


def build_objective(
    config: Config, device: torch.device | str = "cpu", *, network: Mapping[str, Any] | None = None
) -> Objective:
    """The objective of a run, on `device`; `network` describes the network, as the run's checkpoints do."""
    regularizer = build_regularizer(config.spectral, calls_per_step=config.training.accumulate)
    kind = config.diffusion.objective
    if kind == "ddpm":
        return DDPMObjective(build_schedule(config).float().to(device), config.diffusion.prediction, regularizer)
    if kind == "diffwave":
        alphas = build_audio.diffwave_config(config, network).alphas_cumprod.float().to(device)
        return DiffWaveObjective(alphas, regularizer, updates=config.diffusion.updates)
    weight = noise_weight.build("edm") if kind == "edm" else inverse_variance
    return DenoiserObjective(noise_density.build(kind), weight, regularizer)


def try_regularizer(config: SpectralConfig | None, shape: Sequence[int]) -> None:
    """Evaluate a term once on an image of `shape` `(C, H, W)`, so that options that do not fit it fail at once."""
    regularizer = build_regularizer(config)
    if regularizer is not None:
        x = torch.zeros(1, *shape)
        regularizer.eval()(x, x, NoiseLevel.edm(torch.ones(1)))
