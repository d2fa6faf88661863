"""The config of a run on images: its sections, and what fits what."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PositiveInt, model_validator

from specreg.config import Config, DataSection, SamplingSection, Section
from specreg.diffusion import noise_density

DENOISERS = ("ddpmpp", "ncsnpp", "adm")
"""Kinds of networks that are denoisers in σ."""

PREDICTIONS = {"ddpm": ("v", "epsilon", "x0", "score"), "flow": ("flow", "x0")}
"""What a network may predict under an objective; the first is the default. ε and score say nothing of x0 at t = 1."""

SAMPLERS = {"ddpm": ("ddim", "ancestral"), "flow": ("heun", "euler")}
"""Samplers of an objective; those of denoisers in σ are `SIGMA_SAMPLERS`."""

SIGMA_SAMPLERS = ("heun", "ddim")


class ImageData(DataSection):
    """What to train on."""

    kind: Literal["checkerboard", "dead_leaves", "images"] = Field(
        "checkerboard", description="checkerboards or dead leaves drawn from a seed; images: data.path"
    )
    path: Path | None = Field(None, description="folder, zip or array of images (kind: images)")
    test_path: Path | None = Field(None, description="held-out images that results are measured against")
    resolution: PositiveInt = 64
    channels: Literal[1, 3] | None = Field(None, description="None: as the first image has; 3 for dead leaves")
    squares: tuple[PositiveInt, ...] = Field(
        (2, 4, 8), min_length=1, max_length=64, description="sides of the checkerboards' squares, pixels"
    )
    count: PositiveInt = Field(10_000, description="images in an epoch (checkerboard, dead_leaves)")
    radii: tuple[float, float] | None = Field(
        None, description="smallest and largest disc, pixels (dead_leaves); None: a 12th and half of the resolution"
    )
    contrast: float = Field(0.35, ge=0, le=1, description="of the discs' texture; 0 for flat discs (dead_leaves)")
    flip: bool = Field(False, description="mirror each image left to right with probability 1/2")
    augment: float = Field(0.0, ge=0, le=1, description="probability of each of EDM's augmentations; 0 for none")


class ImageModel(Section):
    """The network."""

    kind: Literal["small_unet", "unet2d", "ddpmpp", "ncsnpp", "adm", "pretrained"] = Field(
        "small_unet", description="unet2d: diffusers' UNet2DModel; pretrained: model.checkpoint"
    )
    checkpoint: Path | None = Field(None, description="EDM .pkl, .safetensors, .pt or diffusers folder to start from")
    width: PositiveInt = 32
    multipliers: tuple[PositiveInt, ...] = Field((1, 2, 2), min_length=1, max_length=16)
    blocks: PositiveInt = Field(1, le=64)
    attention: tuple[int, ...] = Field((2,), max_length=16, description="levels, from 0, whose blocks attend")
    patch_size: PositiveInt = 1
    dropout: float = Field(0.0, ge=0, lt=1, description="in every residual block; replaces that of a checkpoint")
    periodic: bool = Field(False, description="samples go on at their opposite edges: periodic fields (ddpmpp)")
    classes: int = Field(0, ge=0, le=100_000, description="class labels that the network is told (ddpmpp, ncsnpp, adm)")


class ImageDiffusion(Section):
    """The forward process and what the network predicts."""

    objective: Literal["ddpm", "flow", "edm", "vp", "ve"] = Field(
        "ddpm", description="flow: straight paths; edm, vp, ve: denoisers in σ, with their noise densities"
    )
    schedule: Literal["linear", "scaled_linear", "cosine"] = Field("cosine", description="ᾱ of the timesteps (ddpm)")
    betas: tuple[float, float] | None = Field(
        None, description="first and last β of linear (None: 1e-4 and 0.02) and scaled_linear"
    )
    timesteps: PositiveInt = Field(1000, le=1_000_000, description="training timesteps (ddpm)")
    prediction: Literal["epsilon", "v", "x0", "score", "flow"] | None = Field(
        None, description="None: v for ddpm, the velocity (flow) for flow, x0 for edm, vp and ve"
    )
    density: str | None = Field(None, description="of t: logit_normal (default) or uniform (flow)")
    density_options: dict[str, float] = Field({}, description="options of the density of noise levels: mean and std …")
    updates: PositiveInt = Field(1, le=1000, description="network calls of the DDIM estimate of x0_hat")
    recompute: bool = Field(False, description="recompute activations of further updates, to save memory")


class ImageSampling(SamplingSection):
    """What to draw after training."""

    sampler: Literal["ddim", "ancestral", "heun", "euler"] = Field(
        "ddim", description="ddpm: ddim, ancestral; flow: heun, euler; edm, vp, ve: heun, ddim"
    )
    batch_size: PositiveInt = Field(64, description="images drawn at a time")
    steps: PositiveInt = Field(50, le=1_000_000, description="steps of the sampler; ancestral takes all timesteps")
    eta: float = Field(0.0, ge=0, le=1, description="of DDIM: 0 deterministic, 1 ancestral")
    clip: bool = Field(True, description="clip x0_hat to [-1, 1] at every step (ddpm)")
    sigma_min: float = Field(0.002, gt=0, description="last noise level before 0 (edm, vp, ve)")
    sigma_max: float = Field(80.0, gt=0, description="first noise level (edm, vp, ve)")
    rho: float = Field(7.0, gt=0, description="how much noise levels crowd towards sigma_min (edm, vp, ve)")
    classes: Literal["equal", "data"] = Field(
        "equal", description="classes of samples: equally likely, as EDM draws them, or as frequent as in data.path"
    )
    churn: float = Field(0.0, ge=0, description="S_churn of Heun (edm, vp, ve), 0 deterministic")
    churn_min: float = Field(0.0, ge=0, description="S_tmin")
    churn_max: float = Field(1e9, ge=0, allow_inf_nan=True, description="S_tmax")
    churn_noise: float = Field(1.0, gt=0, description="S_noise")


class ImageMetrics(Section):
    """What is measured beside the usual."""

    kernel_distance: bool = Field(False, description="on EfficientNet-Lite features; needs specreg[eval]")


class ImageConfig(Config):
    """A run on images."""

    data: ImageData = ImageData()
    model: ImageModel = ImageModel()
    diffusion: ImageDiffusion = ImageDiffusion()
    sampling: ImageSampling = ImageSampling()
    metrics: ImageMetrics = ImageMetrics()

    @property
    def in_sigma(self) -> bool:
        """Whether the network is a denoiser in σ."""
        return self.diffusion.objective in ("edm", "vp", "ve")

    @property
    def prediction(self) -> Any:
        """What the network predicts: as asked for, or the objective's default."""
        usual = PREDICTIONS.get(self.diffusion.objective, ("x0",))[0]
        return self.diffusion.prediction or usual

    @model_validator(mode="after")
    def _parts_fit(self) -> ImageConfig:
        """Refuse here what would otherwise fail after hours of training."""
        self.check_parts()
        _check_boards(self)
        return self

    def check_parts(self) -> None:
        """Raise ValueError where network, diffusion and sampling do not fit each other and the data's size."""
        _check_network(self)
        _check_diffusion(self)
        _check_sampling(self)


def _check_network(config: ImageConfig) -> None:
    side, model, kind = config.data.resolution, config.model, config.model.kind
    pretrained = kind == "pretrained"
    if model.checkpoint is not None and not pretrained:
        raise ValueError(f"model.checkpoint: expected model.kind = pretrained beside it; got {kind}")
    fold = model.patch_size * 2 ** (len(model.multipliers) - 1)
    if side % fold and not pretrained:
        raise ValueError(f"data.resolution must be a multiple of {fold} for this network; got {side}")
    if bad := [level for level in model.attention if not 0 <= level < len(model.multipliers)]:
        raise ValueError(f"model.attention: there are levels 0 to {len(model.multipliers) - 1}; got {bad[0]}")
    if model.width % 2:
        raise ValueError(f"model.width must be even; got {model.width}")
    denoiser = kind in DENOISERS
    if denoiser and model.patch_size != 1:
        raise ValueError(f"model.patch_size: a {kind} has none, expected 1; got {model.patch_size}")
    if model.periodic and kind != "ddpmpp":
        raise ValueError(f"model.periodic: only ddpmpp can be; got model.kind = {kind}")
    if not denoiser and model.classes:
        raise ValueError(f"model.classes: only {', '.join(DENOISERS)} take them here; got {model.classes}")


def _check_diffusion(config: ImageConfig) -> None:
    diffusion, kind = config.diffusion, config.model.kind
    objective, in_sigma = diffusion.objective, config.in_sigma
    if kind != "pretrained" and in_sigma != (kind in DENOISERS):
        fitting = "edm, vp or ve" if kind in DENOISERS else "ddpm or flow"
        raise ValueError(f"diffusion.objective: a {kind} is trained with {fitting}; got {objective}")
    predictions = PREDICTIONS.get(objective, ("x0",))
    if config.prediction not in predictions:
        raise ValueError(
            f"diffusion.prediction must be {' or '.join(predictions)} for {objective}; got {config.prediction}"
        )
    if not in_sigma and config.data.augment:
        raise ValueError(f"data.augment: only edm, vp and ve networks are told of it; got {config.data.augment}")
    densities = {"flow": ("logit_normal", "uniform")}.get(objective, ())
    if diffusion.density is not None and diffusion.density not in densities:
        raise ValueError(
            f"diffusion.density must be {' or '.join(densities) or 'null'} for {objective}; got {diffusion.density}"
        )
    if objective == "ddpm" and diffusion.density_options:
        raise ValueError(
            f"diffusion.density_options: timesteps are drawn uniformly, expected none; got {diffusion.density_options}"
        )
    if objective != "ddpm":
        build_density(config)
    if diffusion.betas is not None and (objective != "ddpm" or diffusion.schedule == "cosine"):
        raise ValueError(
            "diffusion.betas: only ddpm's linear and scaled_linear have them, expected null; "
            f"got {list(diffusion.betas)}"
        )
    if diffusion.betas is not None and not 0 < diffusion.betas[0] <= diffusion.betas[1] < 1:
        raise ValueError(f"diffusion.betas: expected 0 < first <= last < 1; got {list(diffusion.betas)}")


def build_density(config: ImageConfig) -> noise_density.NoiseDensity:
    """Return the density of noise levels that training draws (flow, edm, vp, ve)."""
    diffusion = config.diffusion
    name = (diffusion.density or "logit_normal") if diffusion.objective == "flow" else diffusion.objective
    return noise_density.build(name, **diffusion.density_options)


def _check_sampling(config: ImageConfig) -> None:
    sampling, objective = config.sampling, config.diffusion.objective
    samplers = SAMPLERS.get(objective, SIGMA_SAMPLERS)
    if sampling.sampler not in samplers:
        raise ValueError(f"sampling.sampler must be {' or '.join(samplers)} for {objective}; got {sampling.sampler}")
    if sampling.classes == "data" and not (config.model.classes or config.model.kind == "pretrained"):
        raise ValueError("sampling.classes: data is for networks with model.classes; expected equal")
    if objective != "ddpm" and sampling.eta:
        raise ValueError(f"sampling.eta: expected 0 for {objective}; got {sampling.eta:g}")
    if config.in_sigma and sampling.sigma_min >= sampling.sigma_max:
        raise ValueError(
            f"sampling: expected sigma_min < sigma_max; got {sampling.sigma_min:g} and {sampling.sigma_max:g}"
        )
    if objective == "ddpm" and sampling.sampler == "ddim" and sampling.steps > config.diffusion.timesteps:
        raise ValueError(f"sampling.steps must be at most diffusion.timesteps; got {sampling.steps}")


def _check_boards(config: ImageConfig) -> None:
    data = config.data
    if data.radii is not None and not 0 < data.radii[0] < data.radii[1]:
        raise ValueError(f"data.radii must be two numbers, 0 < smallest < largest; got {list(data.radii)}")
    if data.kind != "checkerboard":
        return
    if bad := [s for s in data.squares if data.resolution % (2 * s)]:
        raise ValueError(f"data.squares: twice a side must divide the resolution {data.resolution}; got {bad[0]}")
    if data.channels == 3:
        raise ValueError("data.channels: checkerboards have 1 channel; got 3")
