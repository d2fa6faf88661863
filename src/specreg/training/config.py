"""A run as data: one validated tree, read from YAML and `key=value`, printed by --dry-run and saved with the run."""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PositiveInt,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)

from specreg import _checks, losses
from specreg.diffusion import band_weight, noise_weight
from specreg.training.config_audio import MetricsConfig, VocoderConfig, check_sound, is_sound


def _text(value: Any) -> Any:
    return str(value) if isinstance(value, (int, float, datetime.date)) else value


Name = Annotated[str, BeforeValidator(_text), StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:@+-]*$")]
"""Of a run or an arm; it becomes a folder's name."""


DENOISERS = ("ddpmpp", "ncsnpp", "adm")
"""Kinds of networks that are denoisers in σ."""


class ConfigError(ValueError):
    """A run that cannot be: one sentence a field, for the user."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class DataConfig(_Strict):
    """What to train on."""

    kind: Literal["checkerboard", "images", "audio"] = "checkerboard"
    path: Path | None = Field(None, description="folder, zip or array of images; folder of sound files (kind: audio)")
    test_path: Path | None = Field(None, description="held-out images or clips that results are measured against")
    resolution: PositiveInt = 64
    channels: Literal[1, 3] | None = Field(None, description="None: as the first image has")
    squares: tuple[PositiveInt, ...] = Field((2, 4, 8), description="sides of the checkerboards' squares, pixels")
    count: PositiveInt = Field(10_000, description="checkerboards in an epoch")
    flip: bool = Field(False, description="mirror images left to right on a coin toss")
    augment: float = Field(0.0, ge=0, le=1, description="probability of each of EDM's augmentations; 0 for none")
    held_out: Annotated[float, Field(gt=0, lt=1)] | tuple[str, ...] | None = Field(
        None, description="clips to score on: a fraction or file-name patterns (audio); None: LJSpeech's LJ001, LJ002"
    )
    short: Literal["pad", "skip"] = Field("pad", description="what becomes of clips shorter than a crop (audio)")
    max_damaged: int = Field(10, ge=0, description="damaged files before it is an error (audio)")
    cache: Path | None = Field(None, description="folder for decoded clips and their log-mel (audio)")


class ModelConfig(_Strict):
    """The network."""

    kind: Literal["small_unet", "unet2d", "ddpmpp", "ncsnpp", "adm", "diffwave", "pretrained"] = Field(
        "small_unet", description="unet2d: diffusers' UNet2DModel; diffwave: see vocoder; pretrained: model.checkpoint"
    )
    checkpoint: Path | None = Field(None, description="EDM .pkl, .safetensors, .pt or diffusers folder to start from")
    width: PositiveInt = 32
    multipliers: tuple[PositiveInt, ...] = (1, 2, 2)
    blocks: PositiveInt = 1
    attention: tuple[int, ...] = Field((2,), description="levels, from 0, whose blocks attend")
    patch_size: PositiveInt = 1
    dropout: float = Field(0.0, ge=0, lt=1, description="in every residual block; replaces a checkpoint's own")
    classes: int = Field(0, ge=0, description="class labels that the network is told (ddpmpp, ncsnpp, adm)")


class DiffusionConfig(_Strict):
    """The forward process and what the network predicts."""

    objective: Literal["ddpm", "edm", "vp", "ve", "diffwave"] = Field(
        "ddpm", description="edm, vp, ve: denoisers in σ, with their noise densities; diffwave: L1 on ε of sound"
    )
    schedule: Literal["linear", "cosine"] = "cosine"
    timesteps: PositiveInt = 1000
    prediction: Literal["epsilon", "v", "x0"] = "v"
    updates: PositiveInt = Field(1, description="network calls of the DDIM estimate of x0_hat (diffwave)")


class SpectralConfig(_Strict):
    """The spectral term; `spectral: null` trains without one."""

    name: str = Field("amplitude_phase", description="amplitude, amplitude_phase, haar, bior1.3, wavelet:NAME")
    weight: float | Literal["auto"] = Field(0.1, description="λ; auto finds it while training")
    ratio: float = Field(5.0, gt=0, allow_inf_nan=False, description="of gradients at the output (weight: auto)")
    smoothing: float = Field(0.98, ge=0, lt=1, description="share of the mean kept a step (weight: auto)")
    warmup: int = Field(0, ge=0, description="steps over which λ ramps up from 0")
    ramp: Literal["linear", "cosine"] = Field("linear", description="shape of that ramp")
    noise_weight: str = Field("constant", description="constant, edm, snr, hard_gate, smooth_gate")
    noise_options: dict[str, float] = Field({}, description="options of the noise weight")
    band_weight: str | None = Field(None, description="wiener, signal_gate")
    band_options: dict[str, float] = Field({}, description="options of the band weight")
    options: dict[str, Any] = Field({}, description="options of the loss, e.g. coupling: projection")

    @field_validator("weight", mode="before")
    @classmethod
    def _number_or_auto(cls, weight: Any) -> Any:
        with contextlib.suppress(TypeError, ValueError):
            if weight == "auto" or (not isinstance(weight, bool) and 0 <= float(weight) < float("inf")):
                return weight if weight == "auto" else float(weight)  # YAML reads 1e-4 as text
        raise ValueError(f"λ must be a finite number of at least 0, or auto; got {weight!r}")

    @field_validator("options")
    @classmethod
    def _loss_exists(cls, options: dict[str, Any], info: Any) -> dict[str, Any]:
        if "name" in info.data:
            try:
                losses.build(info.data["name"], **options)
            except TypeError as error:
                raise ValueError(str(error)) from None
        return options

    @field_validator("noise_options")
    @classmethod
    def _noise_weight_exists(cls, options: dict[str, float], info: Any) -> dict[str, float]:
        if "noise_weight" in info.data:
            noise_weight.build(info.data["noise_weight"], **options)
        return options

    @field_validator("band_options")
    @classmethod
    def _band_weight_exists(cls, options: dict[str, float], info: Any) -> dict[str, float]:
        name = info.data.get("band_weight")
        if name is None and options:
            raise ValueError(f"there is no band_weight to give options to; got {options}")
        if name is not None:
            band_weight.build(name, **options)
        return options


class TrainingConfig(_Strict):
    """The optimizer and its schedule."""

    steps: PositiveInt = 1000
    batch_size: PositiveInt = Field(16, description="over all processes and accumulated parts")
    accumulate: PositiveInt = Field(1, description="parts that a batch is run in")
    lr: float = Field(5e-4, gt=0)
    warmup: int = Field(100, ge=0, description="steps of linear learning-rate warm-up")
    warmup_images: float | None = Field(
        None, gt=0, description="instead, images over which it ramps from 0 (EDM's public loop: 10 million)"
    )
    decay: Literal["constant", "cosine"] = Field("cosine", description="learning rate after the warm-up")
    weight_decay: float = Field(0.0, ge=0)
    clip: float | None = Field(1.0, gt=0, description="largest gradient norm; null leaves gradients as they are")
    ema: float = Field(0.995, ge=0, lt=1, description="decay of the weight average, ramped up from 0")
    ema_halflife: float | None = Field(None, gt=0, description="instead, its half-life in images (EDM: 500000)")
    ema_rampup: float | None = Field(0.05, gt=0, description="half-life at most this share of the images seen so far")
    precision: Literal["no", "fp16", "bf16"] = "no"
    compile: bool = Field(False, description="torch.compile the network")
    checkpoint_every: PositiveInt = 500
    keep: PositiveInt = Field(2, description="checkpoints kept")
    log_every: PositiveInt = 10
    workers: int = Field(0, ge=0, description="processes that load data")

    @field_validator("precision", mode="before")
    @classmethod
    def _yaml_reads_no_as_false(cls, value: Any) -> Any:
        return "no" if value is False else value


class SamplingConfig(_Strict):
    """What to draw after training."""

    count: PositiveInt = Field(64, description="samples; of sound, held-out clips at most")
    sampler: Literal["ddim", "ancestral", "heun", "fast", "full"] = Field(
        "ddim", description="heun: for edm, vp and ve; fast, full: DiffWave's inference or training schedule"
    )
    steps: PositiveInt = Field(50, description="of DDIM or Heun")
    eta: float = Field(0.0, ge=0, le=1, description="of DDIM: 0 deterministic, 1 ancestral")
    clip: bool = Field(True, description="clip x0_hat to [-1, 1] at every step (ddpm)")
    sigma_min: float = Field(0.002, gt=0, description="last noise level before 0 (edm, vp, ve)")
    sigma_max: float = Field(80.0, gt=0, description="first noise level (edm, vp, ve)")
    rho: float = Field(7.0, gt=0, description="how much noise levels crowd towards sigma_min")
    churn: float = Field(0.0, ge=0, description="of Heun: S_churn, 0 deterministic")
    churn_min: float = Field(0.0, ge=0, description="S_tmin")
    churn_max: float = Field(1e9, ge=0, description="S_tmax")
    churn_noise: float = Field(1.0, gt=0, description="S_noise")
    batch_size: PositiveInt = 64
    seed: int = Field(0, ge=0, description="of the first sample; sample i has seed + i")


class Config(_Strict):
    """One run, or the base of a comparison."""

    name: Name = Field("run", description="the run's folder under runs/")
    title: str = "A run"
    seed: int = Field(0, ge=0)
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    diffusion: DiffusionConfig = DiffusionConfig()
    spectral: SpectralConfig | None = None
    training: TrainingConfig = TrainingConfig()
    sampling: SamplingConfig = SamplingConfig()
    vocoder: VocoderConfig = VocoderConfig()
    metrics: MetricsConfig = MetricsConfig()
    arms: dict[Name, SpectralConfig | None] = Field({}, description="named arms of a comparison")

    @model_validator(mode="after")
    def _parts_fit(self) -> Config:
        """What would otherwise fail after hours of training fails here."""
        side, model, sampling, kind = self.data.resolution, self.model, self.sampling, self.model.kind
        pretrained = kind == "pretrained"
        if model.checkpoint is not None and not pretrained:
            raise ValueError(f"model.checkpoint: expected model.kind = pretrained beside it; got {kind}")
        if self.metrics.kernel_distance and self.sampling.count < 2:
            raise ValueError("metrics.kernel_distance needs sampling.count of at least 2; got 1")
        if is_sound(self):
            check_sound(self)
            return self
        fold = model.patch_size * 2 ** (len(model.multipliers) - 1)
        if side % fold and not pretrained:
            raise ValueError(f"data.resolution must be a multiple of {fold} for this network; got {side}")
        if bad := [level for level in model.attention if not 0 <= level < len(model.multipliers)]:
            raise ValueError(f"model.attention: there are levels 0 to {len(model.multipliers) - 1}; got {bad[0]}")
        if model.width % 2:
            raise ValueError(f"model.width must be even; got {model.width}")
        ddpm, denoiser = self.diffusion.objective == "ddpm", kind in DENOISERS
        if not pretrained and ddpm == denoiser:
            fitting = "edm, vp or ve" if denoiser else "ddpm"
            raise ValueError(f"diffusion.objective: a {kind} is trained with {fitting}; got {self.diffusion.objective}")
        if denoiser and model.patch_size != 1:
            raise ValueError(f"model.patch_size: a {kind} has none, expected 1; got {model.patch_size}")
        if not denoiser and model.classes:
            raise ValueError(f"model.classes: only {', '.join(DENOISERS)} take them here; got {model.classes}")
        if ddpm and self.data.augment:
            raise ValueError(f"data.augment: only edm, vp and ve networks are told of it; got {self.data.augment}")
        samplers = ("ddim", "ancestral") if ddpm else ("heun", "ddim")
        if sampling.sampler not in samplers:
            raise ValueError(
                f"sampling.sampler must be {' or '.join(samplers)} for {self.diffusion.objective}; "
                f"got {sampling.sampler}"
            )
        if not ddpm and (sampling.eta or sampling.sigma_min >= sampling.sigma_max):
            raise ValueError(
                "sampling: expected eta = 0 and sigma_min < sigma_max; "
                f"got {sampling.eta:g}, {sampling.sigma_min:g} and {sampling.sigma_max:g}"
            )
        if ddpm and sampling.sampler == "ddim" and sampling.steps > self.diffusion.timesteps:
            raise ValueError(f"sampling.steps must be at most diffusion.timesteps; got {sampling.steps}")
        if self.data.kind == "checkerboard":
            if bad := [s for s in self.data.squares if side % (2 * s)]:
                raise ValueError(f"data.squares: twice a side must divide the resolution {side}; got {bad[0]}")
            if self.data.channels == 3:
                raise ValueError("data.channels: checkerboards have 1 channel; got 3")
        return self


def parse(values: Mapping[str, Any], overrides: Sequence[str] = (), *, where: str = "config") -> Config:
    """Build a Config from nested values and `section.key=value` overrides; values of overrides are YAML.

    Raises ConfigError with one sentence a bad field: where it is, what was expected, what came.
    """
    tree: dict[str, Any] = _copy(values)
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals:
            raise ConfigError(f"expected key=value, such as training.steps=500; got {override!r}")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"{key}: {text!r} is not a YAML value: {error}") from None
        _assign(tree, key.split("."), value)
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise ConfigError("\n".join(_sentence(where, problem) for problem in error.errors())) from None


def load(path: Path, overrides: Sequence[str] = ()) -> Config:
    """Read a Config from a YAML file."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: is not YAML: {error}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected a mapping of sections; got {type(values).__name__}")
    return parse(values, overrides, where=str(path))


def dump(config: Config) -> str:
    """Write a Config as YAML, every field shown."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _copy(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _copy(value) if isinstance(value, Mapping) else value for key, value in values.items()}


def _assign(tree: dict[str, Any], keys: list[str], value: Any) -> None:
    for key in keys[:-1]:
        if not isinstance(tree.get(key), dict):
            tree[key] = {}
        tree = tree[key]
    tree[keys[-1]] = value


def _sentence(where: str, problem: Any) -> str:
    location = [str(part) for part in problem["loc"]]
    field = ".".join(location)
    if problem["type"] == "extra_forbidden":
        known = _fields(location[:-1])
        return f"{where}: no such key {field!r}{_checks.nearest(location[-1], known)}; known: {', '.join(known)}"
    message = problem["msg"].removeprefix("Value error, ")
    if not location or "; got " in message:
        return f"{where}: {field}{': ' if field else ''}{message}"
    return f"{where}: {field}: {message[0].lower() + message[1:]}; got {problem['input']!r}"


def _fields(location: Sequence[str]) -> list[str]:
    """The keys that the section at `location` knows."""
    sections: dict[str, type[BaseModel]] = {
        "data": DataConfig,
        "model": ModelConfig,
        "diffusion": DiffusionConfig,
        "spectral": SpectralConfig,
        "training": TrainingConfig,
        "sampling": SamplingConfig,
        "vocoder": VocoderConfig,
        "metrics": MetricsConfig,
    }
    if not location:
        return list(Config.model_fields)
    section = SpectralConfig if location[0] == "arms" else sections[location[0]]
    return list(section.model_fields)
