"""Real images that samples are measured against, and the metrics of images."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from specreg.config import ConfigError
from specreg.data import board_bands, boards
from specreg.metrics import spectra
from specreg.metrics.info import MetricInfo
from specreg.metrics.kernel_distance import EfficientNetFeatures, kernel_distance
from specreg.metrics.scores import Unavailable
from specreg.modalities.images.config import ImageConfig
from specreg.modalities.images.data import open_images

TRUTH_SEED = 1
"""Seed of drawn images of the truth; those of training have seed 0."""

COUNT = 2048
"""Real images at most that samples are measured against."""

LEAST_SPREAD = 1e-4
"""Variance of mean colours below which real images have none to compare with: boards are all grey in the mean."""

SHOWN = 64
"""Real images that the report may show."""

IMAGE_METRICS = {
    "log_spectral_distance_db": MetricInfo(
        "log-spectral distance", "dB", "lower", 2,
        "RMS over radial frequency bins of the difference in mean power to the truth; floor: 8-bit quantization noise",
    ),
    "high_frequency_db": MetricInfo(
        "energy above half Nyquist", "dB", "zero", 2,
        "samples' energy above 0.25 cycles per pixel relative to the truth's",
    ),
    "contrast_db": MetricInfo(
        "contrast", "dB", "zero", 2, "samples' total energy without the mean, relative to the truth's"
    ),
    "mean_spread_db": MetricInfo(
        "spread of image means", "dB", "zero", 2,
        "variance over samples of their means (brightness, colour), which spectra leave out, relative to the truth's",
    ),
    "kernel_distance": MetricInfo(
        "kernel distance, EfficientNet-Lite", "×10⁻³", "lower", 2,
        "unbiased squared MMD, cubic kernel, to the truth on features of EfficientNet-Lite0; around 0 for real images",
    ),
    "band_energy_share": MetricInfo(
        "energy in the boards' bands", "", "higher", 4,
        "share of the samples' energy at frequencies that checkerboards have", True,
    ),
    "board_fidelity": MetricInfo(
        "board fidelity", "", "higher", 3,
        "mean correlation of a sample with the checkerboard nearest to it; 1 is a perfect board", True,
    ),
    "denoising_error_db": MetricInfo(
        "denoising error", "dB", "lower", 3,
        "energy of x0_hat − x0 relative to that of x0 on real images (held out if the run names any), "
        "mean over noise levels",
        side="denoising",
    ),
    "denoising_high_db": MetricInfo(
        "denoising error above half Nyquist", "dB", "lower", 3,
        "the same at frequencies from 0.25 cycles per pixel up", side="denoising",
    ),
}  # fmt: skip


class ImageTruth(NamedTuple):
    """Real images that samples are measured against."""

    images: Tensor  # uint8 [N, C, H, W]
    spectrum: spectra.MeanSpectrum
    labels: Tensor | None = None  # int64 [N], where the images have classes
    features: Tensor | None = None  # [N, D], where the kernel distance was asked for and can be computed
    missing: Mapping[str, str] = {}  # why a metric that was asked for cannot be computed, by name
    scores: Mapping[str, float] = {}  # what real images score; distances under "floor: " + name
    prompts: None = None

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the images and of what is measured against them."""
        digest = hashlib.sha256(self.images.contiguous().numpy().tobytes())
        if self.features is not None:
            digest.update(b"kernel distance")
        digest.update("".join(self.missing).encode())
        return digest.hexdigest()

    @property
    def item_shape(self) -> tuple[int, ...]:
        """Shape of an image, (C, H, W)."""
        return tuple(self.images.shape[1:])

    def part(self, chosen: Tensor) -> ImageTruth:
        """Return the images where `chosen` `[N]` is true as a truth of their own."""
        images = self.images[chosen]
        return ImageTruth(
            images,
            spectra.mean_spectrum(spectra.from_uint8(images)),
            None if self.labels is None else self.labels[chosen],
            None if self.features is None else self.features[chosen],
            self.missing,
        )

    def save(self, folder: Path) -> None:
        """Write the first images as `samples.npy`."""
        save_images(folder / "samples.npy", self.images[:SHOWN])

    def record(self) -> dict[str, Any]:
        """Return the truth as results.json has it."""
        return {
            "kind": "real images",
            "unit": "images",
            "samples": len(self.images),
            "spectrum": spectrum_record(self.spectrum),
            "metrics": dict(self.scores),
        }


def load_truth(config: ImageConfig, *, count: int = COUNT, device: torch.device | str = "cpu") -> ImageTruth:
    """Return up to `count` real images: held-out ones where the run names some, training images otherwise.

    Features, where they are needed, are computed on `device`. `scores` compare some real images with the others, which
    is the floor that samples can reach: as many as there are samples, or half of the images where there are few.

    Raises ConfigError where there are fewer than two images (four with the kernel distance, which needs two in each
    half), or where it is measured on one sample; ValueError where they do not have the size and channels of the
    training images.
    """
    least = 4 if config.metrics.kernel_distance else 2
    # A rule of scoring, so it is here: `specreg sample` draws any number.
    if config.metrics.kernel_distance and config.sampling.count < 2:
        raise ConfigError("sampling.count must be at least 2 with metrics.kernel_distance; got 1")
    if config.data.kind != "images":
        data = open_images(config.data.model_copy(update={"count": count}), seed=TRUTH_SEED)
    else:
        if config.data.test_path is not None and not config.data.test_path.exists():
            raise FileNotFoundError(
                f"data.test_path: no such file or folder: {config.data.test_path}; without data.test_path, results are "
                "measured against the training images"
            )
        channels = open_images(config.data).item(0).shape[0]
        data = open_images(config.data.model_copy(update={"channels": channels}), path=config.data.test_path)
    if len(data) < least:
        where = config.data.test_path or config.data.path
        raise ConfigError(f"{where}: expected at least {least} images; got {len(data)}")
    # Spread over the set and mixed: neighbours in an archive are often tiles of one picture.
    chosen = np.linspace(0, len(data) - 1, min(count, len(data))).round().astype(int)
    chosen = np.random.default_rng(0).permutation(chosen)
    images = spectra.to_uint8(torch.stack([data.item(int(i)) for i in chosen]))
    labels = [data.label(int(i)) for i in chosen]
    known = torch.tensor(labels) if all(label is not None for label in labels) else None
    features, missing = None, {}
    if config.metrics.kernel_distance:
        try:
            features = extractor(device)(images)
        except Unavailable as error:
            missing["kernel_distance"] = str(error)
    truth = ImageTruth(images, spectra.mean_spectrum(spectra.from_uint8(images)), known, features, missing)
    return truth._replace(scores=_floor(config, truth))


def _floor(config: ImageConfig, truth: ImageTruth) -> dict[str, float]:
    """Return what some real images score against the others; absolute metrics have no "floor: " before their name."""
    count = min(config.sampling.count, len(truth.images) // 2)
    chosen = torch.zeros(len(truth.images), dtype=torch.bool)
    chosen[torch.linspace(0, len(chosen) - 1, count).round().long()] = True
    some, others = truth.part(chosen), truth.part(~chosen)
    values, _ = measure(config, some.images, some.features, others)
    return {("" if IMAGE_METRICS[name].absolute else "floor: ") + name: value for name, value in values.items()}


@lru_cache(maxsize=1)
def extractor(device: torch.device | str) -> EfficientNetFeatures:
    """Return the network of the kernel distance's features; raises Unavailable without its packages."""
    return EfficientNetFeatures(device=device)


def measure(
    config: ImageConfig, images: Tensor, features: Tensor | None, truth: ImageTruth
) -> tuple[dict[str, float], spectra.MeanSpectrum]:
    """Return the metrics of 8-bit images `[N, C, H, W]` against the truth, by name, and their mean spectrum.

    `features` are those of the images, needed where the truth has features.
    """
    x = spectra.from_uint8(images)
    spectrum = spectra.mean_spectrum(x)
    values = {
        "log_spectral_distance_db": spectra.log_spectral_distance(spectrum, truth.spectrum),
        "high_frequency_db": spectra.power_ratio(spectrum, truth.spectrum, low=0.25),
        "contrast_db": spectra.power_ratio(spectrum, truth.spectrum),
    }
    spread, real = mean_spread(images), mean_spread(truth.images)
    if real > LEAST_SPREAD:
        values["mean_spread_db"] = 10 * math.log10(max(spread, 1e-9) / real)
    if truth.features is not None and features is not None:
        values["kernel_distance"] = 1e3 * kernel_distance(features, truth.features)
    if config.data.kind == "checkerboard":
        family = (config.data.resolution, config.data.squares)
        values["band_energy_share"] = spectra.band_energy_share(x, board_bands(*family))
        values["board_fidelity"] = float(spectra.board_fidelity(x, boards(*family)).mean())
    return values, spectrum


def mean_spread(images: Tensor) -> float:
    """Return the variance over 8-bit images `[N, C, H, W]` of their mean colours, summed over channels, of [−1, 1]."""
    means = images.double().mean((2, 3)) / 127.5
    return float(means.var(0, correction=0).sum())


def spectrum_record(spectrum: spectra.MeanSpectrum) -> dict[str, list[float]]:
    """Return a spectrum as results.json has it."""
    return {"frequency": spectrum.frequency.tolist(), "power": spectrum.power.tolist()}


def save_images(path: Path, images: Tensor) -> None:
    """Write uint8 `[N, C, H, W]` as a `[N, H, W, C]` array."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, images.permute(0, 2, 3, 1).numpy())
