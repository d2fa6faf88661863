"""The network and the objective of a run on images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from specreg import models, objectives
from specreg.config import ConfigError
from specreg.diffusion import Preconditioned, alphas_cumprod
from specreg.modalities.images.config import DENOISERS, ImageConfig, build_density
from specreg.modalities.protocol import Description, Device, Network
from specreg.models import pipelines, pretrained, unet2d
from specreg.models.network_config import NetworkConfig
from specreg.models.pipelines import ForwardProcess
from specreg.models.pretrained import Pretrained
from specreg.models.unet2d import UNet2D
from specreg.objectives import Objective
from specreg.randomness import Stream, integer_seed
from specreg.regularizer import SpectralRegularizer


def build_network(config: ImageConfig, channels: int, saved: Description | None = None) -> Network:
    """Return the network of a run with its initial weights: a checkpoint's, or a function of the run's seed alone.

    `saved` is the description that one of the run's own checkpoints holds: then model.checkpoint need not be there.
    Raises ConfigError where a pretrained network does not fit the run.
    """
    if saved is not None:
        return _described(saved, config)
    kind, seed = config.model.kind, integer_seed(config.seed, Stream.INIT)
    if kind == "pretrained":
        network = _pretrained(config)
    elif kind in DENOISERS:
        described = _denoiser_config(config, channels)
        network = Network(described.build(seed=seed), {"denoiser": described.to_dict()})
    else:
        options = config.model.model_dump(exclude={"checkpoint", "classes", "periodic"})
        return Network(models.build(channels=channels, resolution=config.data.resolution, seed=seed, **options), None)
    _check_fit(network.module, config, channels)
    return network


def build_objective(config: ImageConfig, regularizer: SpectralRegularizer | None, device: Device) -> Objective:
    """Return the objective of a run on `device`."""
    diffusion = config.diffusion
    unroll: Any = {"updates": diffusion.updates, "recompute": diffusion.recompute}
    if diffusion.objective == "ddpm":
        return objectives.ddpm(schedule(config).float().to(device), config.prediction, regularizer, **unroll)
    density = build_density(config)
    if diffusion.objective == "flow":
        return objectives.flow(density, config.prediction, regularizer, **unroll)
    weight = None if diffusion.objective == "edm" else objectives.inverse_variance
    return objectives.denoiser(density, weight, regularizer, **unroll)


def schedule(config: ImageConfig) -> Tensor:
    """Return ᾱ of a run with timesteps, float64 `[T]`."""
    start, end = betas(config)
    return alphas_cumprod(config.diffusion.schedule, config.diffusion.timesteps, beta_start=start, beta_end=end)


def betas(config: ImageConfig) -> tuple[float, float]:
    """Return the first and the last β of a run with timesteps; "cosine" does not use them."""
    return config.diffusion.betas or (1e-4, 0.02)


def save_pipeline(target: Path, config: ImageConfig, network: UNet2D, saved: Description | None) -> str:
    """Write a diffusers network and its scheduler as a pipeline folder; ConfigError where no pipeline is the same."""
    diffusion = config.diffusion
    if target.suffix in (".safetensors", ".pt"):
        raise ConfigError(f"{target}: a diffusers network is written as a pipeline, expected the name of a folder")
    if diffusion.objective != "ddpm" or config.prediction not in pipelines.PREDICTIONS.values():
        raise ConfigError(
            f"{target}: a DDPMPipeline is expected to predict {', '.join(pipelines.PREDICTIONS.values())} under ddpm; "
            f"got a run that predicts {config.prediction} under {diffusion.objective}"
        )
    scheduler = (saved or {}).get("scheduler") or pipelines.scheduler_config(
        diffusion.schedule, betas(config), diffusion.timesteps, config.prediction, clip=config.sampling.clip
    )
    pipelines.save(target, network.unet, scheduler)
    return f"DDPMPipeline, {sum(p.numel() for p in network.parameters()):,} parameters"


def averaged(config: ImageConfig, network: nn.Module, saved: Description | None) -> Pretrained:
    """Return a trained EDM network in the form that can be saved as a checkpoint; ConfigError for other networks."""
    if saved is None or "denoiser" not in saved:
        raise ConfigError(
            f"model.kind: expected a run of an EDM network ({', '.join(DENOISERS)}); got {config.model.kind}"
        )
    return Pretrained(NetworkConfig(**saved["denoiser"]), network.state_dict(), f"the network of the run {config.name}")


def _described(saved: Description, config: ImageConfig) -> Network:
    if "denoiser" in saved:
        return Network(NetworkConfig(**saved["denoiser"]).build(dropout=config.model.dropout), dict(saved))
    return Network(unet2d.from_options(saved["unet2d"]), dict(saved))


def _pretrained(config: ImageConfig) -> Network:
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
        process = _checked_process(path, config)
        unet = unet2d.from_folder(path)
        described = {"unet2d": unet2d.options_of(unet)}
        return Network(unet, described if process is None else {**described, "scheduler": process.config})
    found = pretrained.read(path)
    return Network(found.build(dropout=config.model.dropout), {"denoiser": found.config.to_dict()})


def _checked_process(path: Path, config: ImageConfig) -> ForwardProcess | None:
    """Return a pipeline's forward process; ConfigError where the run has another one than its network was trained with.

    Nothing else would show it: the run trains, and first unlearns what the network knows.
    """
    try:
        process = pipelines.forward_process(path)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    if process is None:
        return None
    meant = " ".join(pipelines.settings(process))
    if config.diffusion.objective != "ddpm" or config.prediction != process.prediction:
        got = f"{config.prediction} under {config.diffusion.objective}"
        raise ConfigError(f"{path}: its network predicts {process.prediction} under ddpm ({meant}); got {got}")
    ours, theirs = schedule(config), process.alphas_cumprod.double()
    if ours.shape != theirs.shape or not torch.allclose(ours, theirs, rtol=1e-3, atol=1e-7):
        raise ConfigError(
            f"{path}: its scheduler's ᾱ falls over {len(theirs)} timesteps to {theirs[-1]:.4g} ({meant}); "
            f"got {len(ours)} to {ours[-1]:.4g}, diffusion.schedule={config.diffusion.schedule}"
        )
    return process


def _denoiser_config(config: ImageConfig, channels: int) -> NetworkConfig:
    """Return a network of this run's size, with the preconditioning of its objective."""
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
    objective: Any = config.diffusion.objective  # edm, vp or ve: the config sees to it
    if model.kind == "adm":
        return NetworkConfig("adm", objective, options)
    if model.periodic:
        options["periodic"] = True
    return NetworkConfig("songunet", objective, {**options, **models.SONGUNET_FORMS[model.kind]})


def _check_fit(module: nn.Module, config: ImageConfig, channels: int) -> None:
    """Raise ConfigError where a network does not fit the run's objective or data."""
    path, objective = config.model.checkpoint, config.diffusion.objective
    denoiser = isinstance(module, Preconditioned)
    if denoiser != config.in_sigma:
        expected = "edm, vp or ve" if denoiser else "ddpm or flow"
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
    if not denoiser:
        _check_unet(network.config, path)
    if config.data.augment and models.conditioning(module).augment != models.AUGMENT_LABELS:
        raise ConfigError(f"data.augment: {path} is not told of augmentation; expected 0, got {config.data.augment}")


def _check_unet(options: Mapping[str, Any], path: Path | None) -> None:
    """Raise ConfigError for a UNet2DModel that needs more than x and t, or returns more than it is given."""
    if options["class_embed_type"] or options["num_class_embeds"]:
        raise ConfigError(f"{path}: its network is told classes, which this trainer does not; expected one that is not")
    if options["out_channels"] != options["in_channels"]:
        raise ConfigError(
            f"{path}: its network returns {options['out_channels']} channels for {options['in_channels']}, a learned "
            "variance perhaps; expected as many"
        )


MEMORY_FORMATS = {"denoiser": torch.channels_last, "unet2d": torch.channels_last}
"""Layout that a network takes on a GPU, by what describes it."""
