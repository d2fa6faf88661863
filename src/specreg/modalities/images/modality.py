"""Images: checkerboards drawn on the fly, and folders, zips or arrays of images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from specreg import calibrated, models
from specreg._memory import Need
from specreg.denoising import denoising_map
from specreg.metrics import spectra
from specreg.modalities.images import needs, networks, sampling, streaming
from specreg.modalities.images.config import ImageConfig
from specreg.modalities.images.data import ImageItems, ImageSet, labels_of, open_images
from specreg.modalities.images.truth import (
    IMAGE_METRICS,
    TRUTH_SEED,
    ImageTruth,
    extractor,
    load_truth,
    measure,
    save_images,
    spectrum_record,
)
from specreg.modalities.protocol import (
    Denoised,
    Description,
    Device,
    Features,
    Modality,
    Network,
    Prepared,
    Real,
    Scores,
)
from specreg.models import pretrained
from specreg.models.unet2d import UNet2D
from specreg.objectives import Objective
from specreg.regularizer import SpectralRegularizer

DENOISED = 64
"""Real images on which one-step denoising is measured."""

CALIBRATED = 256
"""Training images on which a network's gain is measured."""


class ImageSamples(NamedTuple):
    """Samples with what metrics need of each alone."""

    images: Tensor  # uint8 [N, C, H, W]
    features: Tensor | None = None  # [N, D], where a metric needs them


class Images(Modality):
    """See `specreg.modalities.protocol.Modality`."""

    config = ImageConfig
    metrics = IMAGE_METRICS

    def open(self, config: Any, path: Path | None = None, *, held_out: bool = False) -> ImageSet:
        """Return the training data; `held_out`: those at `path`, or the run's own that are held out where it can."""
        if not held_out:
            return open_images(config.data)
        settings = config.data if path is None else config.data.model_copy(update={"kind": "images"})
        return open_images(settings, path=path or config.data.test_path, seed=TRUTH_SEED)

    def needs(self, config: ImageConfig, *, processes: int | None) -> Iterator[Need]:
        """See the protocol."""
        if processes is not None:
            yield from needs.of_training(config, processes)
        yield from needs.of_sampling(config)

    def prepare(self, config: ImageConfig, saved: Description | None) -> Prepared:
        """See the protocol."""
        data = self.open(config)
        shape = tuple(data.item(0).shape)
        network = networks.build_network(config, shape[0], saved)
        items = ImageItems(data, config, models.conditioning(network.module))
        described = next(iter(network.description or ()), "")
        return Prepared(network, items, shape, networks.MEMORY_FORMATS.get(described, torch.preserve_format))

    def network(self, config: ImageConfig, shape: Sequence[int], saved: Description | None) -> Network:
        """See the protocol."""
        return networks.build_network(config, shape[0], saved)

    def objective(
        self,
        config: ImageConfig,
        regularizer: SpectralRegularizer | None,
        *,
        device: Device,
        saved: Description | None,
    ) -> Objective:
        """See the protocol."""
        return networks.build_objective(config, regularizer, device)

    def truth(self, config: ImageConfig, *, device: Device, scored: bool = True) -> ImageTruth:
        """See the protocol."""
        return load_truth(config, device=device)

    def draw(
        self,
        config: ImageConfig,
        network: nn.Module,
        shape: Sequence[int],
        prompts: None,
        indices: range,
        *,
        device: Device,
    ) -> ImageSamples:
        """See the protocol."""
        return ImageSamples(sampling.draw_images(config, network, shape, indices, device=device))

    def analyse(self, config: ImageConfig, samples: ImageSamples, truth: ImageTruth, *, device: Device) -> ImageSamples:
        """Return the samples with their features, where the kernel distance is measured."""
        if truth.features is None or not len(samples.images):
            return samples
        return samples._replace(features=extractor(device)(samples.images))

    def join(self, parts: Sequence[ImageSamples]) -> ImageSamples:
        """See the protocol."""
        features = [part.features for part in parts if part.features is not None]
        return ImageSamples(torch.cat([part.images for part in parts]), torch.cat(features) if features else None)

    def score(self, config: ImageConfig, samples: ImageSamples, truth: ImageTruth) -> Scores:
        """See the protocol."""
        values, spectrum = measure(config, samples.images, samples.features, truth)
        return Scores(values, dict(truth.missing), record={"spectrum": spectrum_record(spectrum)})

    def denoise(
        self, config: ImageConfig, objective: Objective, network: nn.Module, truth: ImageTruth, *, device: Device
    ) -> Denoised:
        """Measure one-step denoising of the first `DENOISED` real images, by noise level and frequency band."""
        x0 = spectra.from_uint8(truth.images[:DENOISED]).to(device)
        condition = None
        if truth.labels is not None and models.conditioning(network).classes:
            condition = {"labels": truth.labels[:DENOISED].to(device)}
        found = denoising_map(objective, network, x0, condition=condition)
        values = {"denoising_error_db": found.error_db(), "denoising_high_db": found.error_db(low=0.25)}
        return Denoised(found, values)

    def real(self, config: ImageConfig, network: nn.Module, *, path: Path | None, count: int) -> Real:
        """See the protocol."""
        data = self.open(config, path, held_out=True)
        chosen = np.linspace(0, len(data) - 1, min(count, len(data))).round().astype(int).tolist()
        condition = None
        if classes := models.conditioning(network).classes:
            condition = {"labels": torch.tensor(labels_of(data, chosen, classes, path or config.data.path))}
        return Real(torch.stack([data.item(i) for i in chosen]), condition)

    calibrates = True

    def calibrate(self, config: ImageConfig, objective: Objective, network: nn.Module, *, device: Device) -> nn.Module:
        """Measure the gain on `CALIBRATED` training images, spread over the set, and apply it."""
        data = self.open(config)
        chosen = np.linspace(0, len(data) - 1, min(CALIBRATED, len(data))).round().astype(int).tolist()
        x0 = torch.stack([data.item(i) for i in chosen]).to(device)
        condition = None
        if models.conditioning(network).classes:
            condition = {"labels": torch.tensor([data.label(i) for i in chosen]).to(device)}
        return calibrated.calibrate(objective, network, x0, condition=condition)

    def pack(self, samples: ImageSamples) -> dict[str, Tensor]:
        """See the protocol."""
        return {"images": samples.images}

    def unpack(self, tensors: Mapping[str, Tensor]) -> ImageSamples:
        """See the protocol."""
        return ImageSamples(tensors["images"])

    def describe_sampler(self, config: ImageConfig, network: nn.Module) -> str:
        """See the protocol."""
        return sampling.describe_sampler(config)

    def save(self, samples: ImageSamples, folder: Path) -> None:
        """Write `samples.npy`, uint8 `[N, H, W, C]`."""
        save_images(folder / "samples.npy", samples.images)

    def export_samples(self, samples: ImageSamples, folder: Path, *, first: int) -> str:
        """Write PNG files named by their seeds."""
        from PIL import Image

        for i, image in enumerate(samples.images):
            Image.fromarray(image.permute(1, 2, 0).squeeze(-1).numpy()).save(folder / f"{first + i:06d}.png")
        return f"{len(samples.images)} images"

    def export_network(
        self, target: Path, config: ImageConfig, network: nn.Module, saved: Description | None, step: int
    ) -> str:
        """Write an EDM network as safetensors or .pt, or a diffusers network as a pipeline folder; else ConfigError."""
        if isinstance(network, UNet2D):
            return networks.save_pipeline(target, config, network, saved)
        found = networks.averaged(config, network, saved)
        pretrained.save(target, found)
        return pretrained.describe(found)

    def reference(self, config: ImageConfig, cache: Path, features: Features | None) -> streaming.Reference:
        """See `Streamed`."""
        return streaming.reference(config, cache, features)

    def stream(
        self,
        config: ImageConfig,
        network: nn.Module,
        shape: Sequence[int],
        folder: Path,
        reference: streaming.Reference,
        *,
        features: Features | None,
        made_of: Mapping[str, Any],
        device: Device,
    ) -> dict[str, float]:
        """See `Streamed`."""
        return streaming.score(
            config, network, shape, folder, reference, features=features, made_of=made_of, device=device
        )
