"""The sections of a run's config that do not depend on the kind of data, and the base classes of those that do.

A modality (`specreg.modalities`) derives its own `Config` from the one here and gives it its own `data`, `model`,
`diffusion`, `sampling` and `metrics` sections, with the checks across them.
"""

from __future__ import annotations

import contextlib
import datetime
import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PositiveInt,
    StringConstraints,
    field_validator,
    model_validator,
)

from specreg import _checks, losses
from specreg.config import plain, yaml_text
from specreg.diffusion import band_weight, noise_weight

NAME_LENGTH = 120
"""Characters of a name: file systems take 255 bytes, and names of arms, seeds and temporary files are added to it."""


def _text(value: Any) -> Any:
    return str(value) if isinstance(value, (int, float, datetime.date)) and not isinstance(value, bool) else value


Name = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:@+-]*$", max_length=NAME_LENGTH),
    BeforeValidator(_text),
]
"""Name of a run; it becomes the name of a folder."""

ArmName = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:@+(),=-]*$", max_length=NAME_LENGTH),
    BeforeValidator(_text),
]
"""Name of an arm of a comparison, such as "swt(db4):l1@auto"; `compare` makes a folder's name of it."""


class ConfigError(ValueError):
    """A run that cannot be done as described: one sentence for each bad field, written for the user."""


class Section(BaseModel):
    """A section of a config: unknown keys are refused, values do not change after validation."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _as_meant(cls, value: Any, info: Any) -> Any:
        """Read the number that a path is named, refuse what pydantic would read as a number or as text."""
        kinds = yaml_text.field_kinds(cls, [info.field_name])
        if yaml_text.takes_path(kinds):
            return _text(value)
        plain.check(value, kinds)
        return value

    @field_validator("*", mode="after")
    @classmethod
    def _path(cls, value: Any) -> Any:
        """Expand ~ in paths, as a shell does where it sees one; refuse what no file can be called."""
        if not isinstance(value, Path):
            return value
        plain.check_path(str(value))
        return Path(os.path.expanduser(value))


class DataSection(Section):
    """What to train on. `kind` selects the modality, which brings the other fields."""

    kind: str
    path: Path | None = None
    test_path: Path | None = Field(None, description="held-out data that results are measured against")


class SamplingSection(Section):
    """What to draw after training."""

    count: PositiveInt = Field(64, description="number of samples")
    seed: int = Field(0, ge=0, lt=_checks.SEEDS, description="seed of the first sample; sample i has seed + i")
    sampler: str

    @model_validator(mode="after")
    def _last_seed(self) -> SamplingSection:
        if self.seed + self.count > _checks.SEEDS:
            raise ValueError(f"expected seed + count of at most 2^63; got {self.seed} + {self.count}")
        return self


class SpectralConfig(Section):
    """The spectral term; `spectral: null` trains without one."""

    name: str = Field(
        "amplitude",
        max_length=NAME_LENGTH,
        description="amplitude, amplitude_phase, haar, bior1.3, wavelet:NAME, TRANSFORM:COMPARISON, or a sum: a+b",
    )
    weight: float | Literal["auto"] = Field("auto", description="λ; auto finds it while training")
    ratio: float = Field(
        1.0, gt=0, allow_inf_nan=False, description="ratio of the two gradients at the output (weight: auto)"
    )
    smoothing: float = Field(0.98, ge=0, lt=1, description="share of the mean kept at each step (weight: auto)")
    warmup: int = Field(0, ge=0, description="steps over which λ ramps up from 0")
    cooldown: float = Field(0.0, ge=0, le=1, description="last share of training over which λ fades to 0")
    ramp: Literal["linear", "cosine"] = Field("linear", description="shape of these ramps")
    noise_weight: str = Field("snr", description="constant, edm, snr, hard_gate, smooth_gate")
    noise_options: dict[str, float] = Field({}, description="options of the noise weight")
    band_weight: str | None = Field(None, description="wiener, signal_gate")
    band_options: dict[str, float] = Field({}, description="options of the band weight")
    options: dict[str, Any] = Field({}, description="options of the loss, e.g. coupling: projection")

    @field_validator("weight", mode="before")
    @classmethod
    def _number_or_auto(cls, weight: Any) -> Any:
        with contextlib.suppress(TypeError, ValueError, OverflowError):
            if weight == "auto" or (not isinstance(weight, (bool, str)) and 0 <= float(weight) < float("inf")):
                return weight if weight == "auto" else float(weight)
        came = _checks.quoted(weight)
        raise ValueError(f"λ must be a finite number of at least 0, or auto (its ratio is spectral.ratio); got {came}")

    @field_validator("options")
    @classmethod
    def _loss_exists(cls, options: dict[str, Any], info: Any) -> dict[str, Any]:
        if "name" in info.data:
            plain.check_finite(options)
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


class TrainingConfig(Section):
    """The optimizer and its schedule."""

    steps: PositiveInt = Field(1000, le=99_999_999, description="names of checkpoints have eight digits")
    batch_size: PositiveInt = Field(16, description="over all processes and accumulated parts")
    accumulate: PositiveInt = Field(1, description="parts that a batch is run in")
    lr: float = Field(5e-4, gt=0)
    warmup: int = Field(100, ge=0, description="steps of linear learning-rate warm-up")
    warmup_images: float | None = Field(
        None, gt=0, description="instead, samples over which it ramps from 0 (EDM's public loop: 10 million)"
    )
    decay: Literal["constant", "cosine"] = Field("cosine", description="learning rate after the warm-up")
    weight_decay: float = Field(0.0, ge=0)
    clip: float | None = Field(1.0, gt=0, description="largest gradient norm; null leaves gradients as they are")
    ema: float = Field(0.995, ge=0, lt=1, description="decay of the weight average, ramped up from 0")
    ema_halflife: float | None = Field(None, gt=0, description="instead, its half-life in samples (EDM: 500000)")
    ema_rampup: float | None = Field(
        0.05, gt=0, description="half-life is at most this share of the samples seen so far"
    )
    precision: Literal["no", "fp16", "bf16"] = "no"
    compile: bool = Field(False, description="torch.compile the network")
    checkpoint_every: PositiveInt = 500
    keep: PositiveInt = Field(2, description="checkpoints kept")
    log_every: PositiveInt = 10
    workers: int = Field(0, ge=0, le=1024, description="processes that load data")

    @field_validator("precision", mode="before")
    @classmethod
    def _yaml_reads_no_as_false(cls, value: Any) -> Any:
        return "no" if value is False else value


class Config(Section):
    """One run, or the base of a comparison; a modality replaces the classes of the sections that it brings."""

    name: Name = Field("run", description="name of the run's folder under runs/")
    title: str = "A run"
    seed: int = Field(0, ge=0, lt=_checks.SEEDS)
    data: DataSection
    model: Section = Section()
    diffusion: Section = Section()
    spectral: SpectralConfig | None = None
    training: TrainingConfig = TrainingConfig()
    sampling: SamplingSection
    metrics: Section = Section()
    arms: dict[ArmName, SpectralConfig | None] = Field({}, description="named arms of a comparison")
