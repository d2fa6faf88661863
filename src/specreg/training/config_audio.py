"""The parts of a run about sound: a DiffWave from scratch, which metrics have their weights, what fits what."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, field_validator

from specreg.models.diffwave import FAST_SCHEDULE, NOISE_SCHEDULE, DiffWaveConfig

if TYPE_CHECKING:
    from specreg.training.config import Config

SAMPLERS = ("fast", "full")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class VocoderConfig(_Strict):
    """A DiffWave from scratch, under the names of the public checkpoint's `params`; a checkpoint brings its own."""

    sample_rate: PositiveInt | None = Field(None, description="Hz; None: the first clip's")
    hop_samples: PositiveInt = Field(256, description="samples from one mel frame to the next")
    n_fft: PositiveInt = Field(1024, description="window of the mel spectrogram, samples")
    n_mels: PositiveInt = 80
    crop_mel_frames: PositiveInt = Field(62, description="mel frames of a training crop")
    residual_layers: PositiveInt = 30
    residual_channels: PositiveInt = 64
    dilation_cycle_length: PositiveInt = Field(10, description="layer i has dilation 2^(i mod this)")
    unconditional: bool = False
    noise_schedule: tuple[float, ...] = Field(NOISE_SCHEDULE, description="β of the training steps")
    inference_noise_schedule: tuple[float, ...] = Field(FAST_SCHEDULE, description="β of the fast sampler's steps")

    @field_validator("inference_noise_schedule")
    @classmethod
    def _network_exists(cls, fast: tuple[float, ...], info: Any) -> tuple[float, ...]:
        options = {**info.data, "inference_noise_schedule": fast}
        options["sample_rate"] = options.get("sample_rate") or DiffWaveConfig.sample_rate
        DiffWaveConfig(**options)
        return fast


class MetricsConfig(_Strict):
    """What is measured beside the usual, and weights that metrics need; one without them is reported as missing."""

    kernel_distance: bool = Field(False, description="of images, on EfficientNet-Lite features; needs specreg[eval]")
    vggish: Path | None = Field(None, description="vggish-10086976.pth, for FAD")
    utmos: Path | None = Field(None, description="checkout of github.com/tarepan/SpeechMOS; its code is run")
    utmos_weights: Path | None = Field(None, description="utmos22_strong_step7459_v1.pt")


def is_sound(config: Config) -> bool:
    """Whether any part of a run is about sound."""
    parts = (config.data.kind == "audio", config.model.kind == "diffwave", config.diffusion.objective == "diffwave")
    return any(parts)


def check_sound(config: Config) -> None:
    """Raise ValueError where the parts of a run about sound do not fit each other."""
    data, model, objective = config.data.kind, config.model.kind, config.diffusion.objective
    if data != "audio" or objective != "diffwave" or model not in ("diffwave", "pretrained"):
        raise ValueError(
            "diffusion.objective: expected diffwave with data.kind audio and model.kind diffwave or pretrained; "
            f"got {objective} with {data} and {model}"
        )
    if config.sampling.sampler not in SAMPLERS:
        raise ValueError(f"sampling.sampler must be fast or full for diffwave; got {config.sampling.sampler}")
    if config.data.augment or config.data.flip:
        raise ValueError("data: sound is neither flipped nor augmented; expected flip = false and augment = 0")
    if config.metrics.kernel_distance:
        raise ValueError("metrics.kernel_distance is of images; expected false for sound")
    if (config.metrics.utmos is None) != (config.metrics.utmos_weights is None):
        raise ValueError("metrics: UTMOS needs both utmos and utmos_weights; got one of them")
