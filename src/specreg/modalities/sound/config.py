"""The config of a run on sound: its sections, and what fits what."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt, field_validator, model_validator

from specreg.config import Config, DataSection, SamplingSection, Section
from specreg.models.diffwave import FAST_SCHEDULE, NOISE_SCHEDULE, DiffWaveConfig


class SoundData(DataSection):
    """What to train on."""

    kind: Literal["audio"] = "audio"
    path: Path | None = Field(None, description="folder of sound files, or LJSpeech's")
    test_path: Path | None = Field(None, description="folder of held-out clips; then none are held out of data.path")
    held_out: Annotated[float, Field(gt=0, lt=1)] | tuple[str, ...] | None = Field(
        None, description="clips to score on: a fraction or file-name patterns; None: LJSpeech's LJ001, LJ002"
    )
    short: Literal["pad", "skip"] = Field("pad", description="what happens to clips shorter than a crop")
    max_damaged: int = Field(10, ge=0, description="damaged files before it is an error")
    cache: Path | None = Field(None, description="folder for decoded clips and their log-mel")


class SoundModel(Section):
    """The network."""

    kind: Literal["diffwave", "pretrained"] = Field("diffwave", description="diffwave: from scratch, see vocoder")
    checkpoint: Path | None = Field(None, description="DiffWave .pt to start from (kind: pretrained)")


class VocoderConfig(Section):
    """A DiffWave from scratch, under the names of the public checkpoint's `params`; a checkpoint brings its own."""

    sample_rate: PositiveInt | None = Field(None, description="Hz; None: that of the first clip that can be read")
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


class SoundDiffusion(Section):
    """The training objective."""

    objective: Literal["diffwave"] = Field("diffwave", description="mean absolute error on ε")
    updates: PositiveInt = Field(1, le=1000, description="network calls of the DDIM estimate of x0_hat")
    recompute: bool = Field(False, description="recompute activations of further updates, to save memory")


class SoundSampling(SamplingSection):
    """What to draw after training."""

    count: PositiveInt = Field(64, description="held-out clips to vocode, at most")
    sampler: Literal["fast", "full"] = Field("fast", description="DiffWave's inference or training schedule")


class SoundMetrics(Section):
    """Weights that metrics need; a metric without its weights is reported as missing."""

    vggish: Path | None = Field(None, description="vggish-10086976.pth, for FAD")
    utmos: Path | None = Field(None, description="checkout of github.com/tarepan/SpeechMOS; its code is run")
    utmos_weights: Path | None = Field(None, description="utmos22_strong_step7459_v1.pt")

    @model_validator(mode="after")
    def _utmos_is_whole(self) -> SoundMetrics:
        if (self.utmos is None) != (self.utmos_weights is None):
            raise ValueError("UTMOS needs both utmos and utmos_weights; got one of them")
        return self


class SoundConfig(Config):
    """A run on sound."""

    data: SoundData
    model: SoundModel = SoundModel()
    vocoder: VocoderConfig = VocoderConfig()
    diffusion: SoundDiffusion = SoundDiffusion()
    sampling: SoundSampling = SoundSampling()
    metrics: SoundMetrics = SoundMetrics()

    @model_validator(mode="after")
    def _parts_fit(self) -> SoundConfig:
        if self.model.checkpoint is not None and self.model.kind != "pretrained":
            raise ValueError(f"model.checkpoint: expected model.kind = pretrained beside it; got {self.model.kind}")
        return self
