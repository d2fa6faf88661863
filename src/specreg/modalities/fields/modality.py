"""Fields: the modality of images, on floats in data units."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from specreg.config import ConfigError
from specreg.data.fields import FieldDataset, Normalization
from specreg.denoising import denoising_map
from specreg.modalities.fields.config import FieldConfig
from specreg.modalities.fields.truth import FIELD_METRICS, FieldTruth, compared, load_truth, save_fields, statistics
from specreg.modalities.images.modality import DENOISED, Images
from specreg.modalities.images.sampling import draw_images
from specreg.modalities.images.truth import spectrum_record
from specreg.modalities.protocol import Denoised, Description, Device, Network, Prepared, Real, Scores
from specreg.objectives import Objective

KEY = "normalization"
"""Under it, the description of a network holds what its data were normalized by."""


class Fields(Images):
    """See `specreg.modalities.protocol.Modality`. Networks see normalized fields; samples are in data units."""

    config = FieldConfig
    metrics = FIELD_METRICS

    def open(self, config: Any, path: Path | None = None, *, held_out: bool = False) -> FieldDataset:
        """See `Images`; all are normalized as the training data are."""
        if config.data.path is None:
            raise ConfigError(
                "data.path: expected a .npy or .npz of fields (data.kind is fields; `specreg turbulence FOLDER` "
                "simulates some); got nothing"
            )
        training = FieldDataset(config.data.path, resolution=config.data.resolution)
        chosen = path or config.data.test_path
        if not held_out or chosen is None:
            return training
        return FieldDataset(chosen, resolution=config.data.resolution, normalization=training.normalization)

    def prepare(self, config: Any, saved: Description | None) -> Prepared:
        """See the protocol."""
        prepared = super().prepare(config, _without(saved))
        return prepared._replace(network=_normalizing(prepared.network, self.open(config).normalization))

    def network(self, config: Any, shape: Sequence[int], saved: Description | None) -> Network:
        """See the protocol."""
        network = super().network(config, shape, _without(saved))
        if saved is not None and KEY in saved:
            normalization = Normalization(*(tuple(values) for values in saved[KEY]))
        else:
            normalization = self.open(config).normalization
        return _normalizing(network, normalization)

    def truth(self, config: Any, *, device: Device, scored: bool = True) -> FieldTruth:  # type: ignore[override]
        """See the protocol."""
        if config.data.test_path is not None and not config.data.test_path.exists():
            raise FileNotFoundError(
                f"data.test_path: no such file: {config.data.test_path}; without data.test_path, results are measured "
                "against the training fields"
            )
        data = self.open(config, held_out=True)
        if len(data) < 4:
            raise ConfigError(f"{data.path}: expected at least 4 fields; got {len(data)}")
        vorticity = config.metrics.vorticity
        if vorticity and data.raw(0).shape[0] != 1:
            raise ConfigError(f"metrics.vorticity: expected one variable; got {data.raw(0).shape[0]}")
        return load_truth(data, samples=config.sampling.count, vorticity=vorticity)

    def draw(  # type: ignore[override]
        self, config: Any, network: nn.Module, shape: Sequence[int], prompts: None, indices: range, *, device: Device
    ) -> Tensor:
        """See the protocol; fields are in data units."""
        normalization: Normalization = network.__dict__[KEY]
        return draw_images(config, network, shape, indices, device=device, finish=normalization.restored)

    def analyse(self, config: Any, samples: Tensor, truth: FieldTruth, *, device: Device) -> Tensor:  # type: ignore[override]
        """See the protocol; here nothing."""
        return samples

    def join(self, parts: Sequence[Tensor]) -> Tensor:  # type: ignore[override]
        """See the protocol."""
        return torch.cat(list(parts))

    def score(self, config: Any, samples: Tensor, truth: FieldTruth) -> Scores:  # type: ignore[override]
        """See the protocol."""
        found = statistics(samples, truth.normalization, vorticity=config.metrics.vorticity)
        return Scores(compared(found, truth.statistics), record={"spectrum": spectrum_record(found.spectrum)})

    def denoise(  # type: ignore[override]
        self, config: Any, objective: Objective, network: nn.Module, truth: FieldTruth, *, device: Device
    ) -> Denoised:
        """Measure one-step denoising of the first `DENOISED` real fields, by noise level and frequency band."""
        x0 = truth.normalization.normalized(truth.fields[:DENOISED]).to(device)
        found = denoising_map(objective, network, x0)
        values = {"denoising_error_db": found.error_db(), "denoising_high_db": found.error_db(low=0.25)}
        return Denoised(found, values)

    def real(self, config: Any, network: nn.Module, *, path: Path | None, count: int) -> Real:
        """See the protocol."""
        return super().real(config, network, path=path, count=count)._replace(unit="cycles per sample")

    def calibrate(self, config: Any, objective: Objective, network: nn.Module, *, device: Device) -> nn.Module:
        """See `Images`."""
        found = super().calibrate(config, objective, network, device=device)
        found.__dict__[KEY] = network.__dict__[KEY]
        return found

    def pack(self, samples: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        """See the protocol."""
        return {"fields": samples}

    def unpack(self, tensors: Any) -> Tensor:  # type: ignore[override]
        """See the protocol."""
        fields: Tensor = tensors["fields"]
        return fields

    def save(self, samples: Tensor, folder: Path) -> None:  # type: ignore[override]
        """Write `samples.npy`, float32 `[N, C, H, H]` in data units."""
        save_fields(folder / "samples.npy", samples)

    def export_samples(self, samples: Tensor, folder: Path, *, first: int) -> str:  # type: ignore[override]
        """Write `fields.npy`, float32 `[N, C, H, H]` in data units, in the order of their seeds from `first` on."""
        save_fields(folder / f"fields-{first:06d}.npy", samples)
        return f"{len(samples)} fields"


def _without(saved: Description | None) -> Description | None:
    """Return the description of a network without its normalization, None where nothing else is described."""
    rest = {key: value for key, value in (saved or {}).items() if key != KEY}
    return rest or None


def _normalizing(network: Network, normalization: Normalization) -> Network:
    """Return a network that knows what its data are normalized by, as a plain attribute: it is no weight."""
    network.module.__dict__[KEY] = normalization
    return Network(network.module, {**(network.description or {}), KEY: [list(values) for values in normalization]})
