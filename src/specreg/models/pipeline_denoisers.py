"""Pipeline folders of diffusers as denoisers: network, scheduler and, for latents, the encoder; nothing is downloaded.

The time axis is that of training: timesteps of the scheduler's ᾱ table, t of the straight path, or σ inside EDM's
preconditioning. Euler's schedulers and their kin have DDPM's table; what they call scaling the input is DDPM's x_t.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from specreg._files import read_json
from specreg.diffusion import diffusers_schedulers
from specreg.diffusion.precond import EDM, Preconditioned
from specreg.models import unet2d

INDEX = "model_index.json"

_ENCODERS = ("vae", "vqvae")
_NEEDS = 'pipeline folders need diffusers: pip install "specreg[diffusers]"'


class Pipeline(NamedTuple):
    """What a pipeline folder holds, ready to be called as the other networks are."""

    network: nn.Module
    axis: Literal["timesteps", "flow", "sigma"]
    prediction: str  # a name that `recover_x0` knows
    alphas_cumprod: Tensor | None  # [T], for timesteps
    scale: float  # for flow: what the network is told is scale·t
    channels: int
    side: int | None  # of x0, where the network says it
    classes: int  # class labels that the network is told; 0 for none
    encoder: nn.Module | None  # images to latents, called on `[B, C, H, W]` in [-1, 1]


def is_pipeline(folder: Path) -> bool:
    """Return whether a folder is a diffusers pipeline."""
    return (folder / INDEX).is_file()


def read_pipeline(folder: Path) -> Pipeline:
    """Return the network, scheduler and encoder of a pipeline folder with a UNet2DModel, read from safetensors.

    Raises FileNotFoundError for a folder without them, ValueError that names the folder for other networks and for
    schedulers whose noise levels or predictions are not known.
    """
    index = _json(folder / INDEX)
    if not (folder / "unet" / "config.json").is_file():
        parts = ", ".join(sorted(name for name in index if not name.startswith("_"))) or "none"
        raise FileNotFoundError(f"{folder}: expected a pipeline with unet/config.json; its parts are {parts}")
    unet = unet2d.from_folder(folder)
    unet.eval()
    options = unet2d.options_of(unet)
    classes = int(options.get("num_class_embeds") or 0)
    if options.get("class_embed_type") not in (None, "timestep") and not classes:
        raise ValueError(f"{folder}: expected classes by number; got class_embed_type {options['class_embed_type']!r}")
    scheduler = _scheduler(folder, index)
    try:
        family, found = diffusers_schedulers.family(scheduler), diffusers_schedulers.prediction_of(scheduler)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{folder / 'scheduler'}: {error}") from None
    side = options.get("sample_size")
    sides = [int(n) for n in side] if isinstance(side, list | tuple) else [int(side)] if side else []
    if len(set(sides)) > 1:
        raise ValueError(f"{folder}: expected a square sample_size; got {sides}")
    channels, returned = int(options["in_channels"]), int(options["out_channels"])
    if returned not in (channels, 2 * channels):
        raise ValueError(f"{folder}: expected a network that returns its {channels} channels; it returns {returned}")
    network: nn.Module = unet if returned == channels else _Mean(unet, channels)
    pipeline = Pipeline(
        network, "timesteps", found.prediction, None, 1.0, channels, sides[0] if sides else None,
        classes, _encoder(folder),
    )  # fmt: skip
    if family in ("vp", "ve"):
        return pipeline._replace(alphas_cumprod=scheduler.alphas_cumprod.float())
    if family == "flow":
        return pipeline._replace(axis="flow", scale=float(scheduler.config["num_train_timesteps"]))
    if family == "edm" and found.sigma_data is not None:
        raw = network if found.sign == 1 else _Negated(network)
        denoiser = Preconditioned(raw, EDM(found.sigma_data)).eval()
        return pipeline._replace(axis="sigma", prediction="x0", network=denoiser)
    raise ValueError(
        f"{folder / 'scheduler'}: expected a scheduler of DDPM's, Euler's, flow matching's or EDM's kind; "
        f"got {type(scheduler).__name__}"
    )


class _Mean(nn.Module):
    """A network that predicts a variance too, in the second half of its channels, without it."""

    def __init__(self, network: nn.Module, channels: int):
        super().__init__()
        self.network, self.channels = network, channels

    def forward(self, x: Tensor, t: Tensor, **condition: Tensor) -> Tensor:
        found: Tensor = self.network(x, t, **condition)
        return found[:, : self.channels]


class _Negated(nn.Module):
    """A network times −1: what EDM's schedulers call v_prediction."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, t: Tensor, **condition: Tensor) -> Tensor:
        negated: Tensor = -self.network(x, t, **condition)
        return negated


class _Encoder(nn.Module):
    """diffusers' autoencoder as a function: images to the latents that the network is trained on (the mode)."""

    def __init__(self, autoencoder: Any):
        super().__init__()
        self.autoencoder = autoencoder

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        config, found = self.autoencoder.config, self.autoencoder.encode(images)
        latents: Tensor = found.latent_dist.mode() if hasattr(found, "latent_dist") else found.latents
        shift, scale = config.get("shift_factor") or 0.0, config.get("scaling_factor")
        return (latents - shift) * (1.0 if scale is None else scale)


def _encoder(folder: Path) -> nn.Module | None:
    """Return the encoder of a folder with an autoencoder; None for a pipeline in pixels."""
    import diffusers

    home = next((folder / name for name in _ENCODERS if (folder / name / "config.json").is_file()), None)
    if home is None:
        return None
    name = _json(home / "config.json").get("_class_name")
    if name not in ("AutoencoderKL", "VQModel"):
        raise ValueError(f"{home}: expected an AutoencoderKL or a VQModel; got {name!r}")
    loaded = getattr(diffusers, name).from_pretrained(home, local_files_only=True, use_safetensors=True)
    return _Encoder(loaded.eval()).requires_grad_(False)


def _scheduler(folder: Path, index: dict[str, Any]) -> Any:
    try:
        import diffusers
    except ImportError as error:
        raise ImportError(_NEEDS) from error

    home = folder / "scheduler"
    path = home / "scheduler_config.json"
    if not path.is_file():
        raise FileNotFoundError(f"{folder}: expected scheduler/{path.name}; there is none")
    config = _json(path)
    name = config.get("_class_name") or (index.get("scheduler") or [None, None])[1]
    found = getattr(diffusers, name, None) if isinstance(name, str) else None
    if not (isinstance(found, type) and issubclass(found, diffusers.SchedulerMixin)):
        raise ValueError(f"{path}: expected a scheduler of diffusers; got {name!r}")
    kind: Any = found
    return kind.from_config({key: value for key, value in config.items() if not key.startswith("_")})


def _json(path: Path) -> dict[str, Any]:
    found = read_json(path)
    if not isinstance(found, dict):
        raise ValueError(f"{path}: expected a JSON object; got {type(found).__name__}")
    return found
