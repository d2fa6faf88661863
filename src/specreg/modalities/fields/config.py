"""The config of a run on fields: that of images, without what only pictures have."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, PositiveInt, model_validator

from specreg.config import DataSection, Section
from specreg.modalities.images.config import ImageConfig, ImageSampling


class FieldData(DataSection):
    """What to train on."""

    kind: Literal["fields"] = "fields"
    path: Path | None = Field(None, description=".npy or .npz of floats [N, H, H] or [N, C, H, H]")
    test_path: Path | None = Field(None, description="held-out fields that results are measured against")
    resolution: PositiveInt = Field(64, description="samples a side")

    flip: ClassVar[bool] = False
    augment: ClassVar[float] = 0.0
    channels: ClassVar[int | None] = None


class FieldSampling(ImageSampling):
    """What to draw after training."""

    clip: Literal[False] = Field(False, description="fields have no range to clip to")


class FieldMetrics(Section):
    """What is measured beside the usual."""

    vorticity: bool = Field(
        False, description="the fields are vorticity on a periodic square: spectra of energy and enstrophy, fluxes …"
    )


class FieldConfig(ImageConfig):
    """A run on fields."""

    data: FieldData = FieldData()  # type: ignore[assignment]
    sampling: FieldSampling = FieldSampling()
    metrics: FieldMetrics = FieldMetrics()  # type: ignore[assignment]

    @model_validator(mode="after")
    def _parts_fit(self) -> FieldConfig:
        """See `ImageConfig`."""
        self.check_parts()
        if self.metrics.vorticity and self.data.resolution % 2:
            raise ValueError(f"metrics.vorticity: expected an even data.resolution; got {self.data.resolution}")
        return self
