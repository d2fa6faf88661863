"""Real images as the truth that samples are measured against, and the metrics of images."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from specreg.data.synthetic import board_bands, boards
from specreg.metrics import spectra
from specreg.metrics.info import MetricInfo
from specreg.metrics.kernel_distance import EfficientNetFeatures, kernel_distance
from specreg.metrics.scores import Unavailable
from specreg.training.build import build_data
from specreg.training.config import Config, ConfigError

TRUTH_SEED = 1
"""Checkerboards of the truth are drawn from this seed, those of training from 0; the family of boards is the same."""


METRICS = {
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
        "energy of x0_hat − x0 relative to x0's on real images (held out if the run names any), mean over levels",
        side="denoising",
    ),
    "denoising_high_db": MetricInfo(
        "denoising error above half Nyquist", "dB", "lower", 3,
        "the same at frequencies from 0.25 cycles per pixel up", side="denoising",
    ),
}  # fmt: skip


class Truth(NamedTuple):
    """Real images that samples are measured against."""

    images: Tensor  # uint8 [N, C, H, W]
    spectrum: spectra.MeanSpectrum
    labels: Tensor | None = None  # int64 [N], where the images have classes
    features: Tensor | None = None  # [N, D], where the kernel distance was asked for and can be had
    missing: Mapping[str, str] | None = None  # why a metric that was asked for cannot be had, by its name in METRICS

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the images and what is known of them, by which results know what they were measured against."""
        digest = hashlib.sha256(self.images.contiguous().numpy().tobytes())
        if self.features is not None:
            digest.update(b"kernel distance")
        digest.update("".join(self.missing or ()).encode())
        return digest.hexdigest()

    def part(self, chosen: Tensor) -> Truth:
        """The images where `chosen` `[N]` is true."""
        images = self.images[chosen]
        return Truth(
            images,
            spectra.mean_spectrum(spectra.from_uint8(images)),
            None if self.labels is None else self.labels[chosen],
            None if self.features is None else self.features[chosen],
            self.missing,
        )

    @property
    def item_shape(self) -> tuple[int, ...]:
        """Of an image, (C, H, W)."""
        return tuple(self.images.shape[1:])

    def save(self, folder: Path) -> None:
        """Write the first images as `samples.npy`."""
        save_images(folder / "samples.npy", self.images[:64])


def load_images(config: Config, *, count: int = 2048, device: torch.device | str = "cpu") -> Truth:
    """Up to `count` real images: held-out ones where the run names some, the training images otherwise.

    Their features, where asked for, are computed on `device`. Raises ValueError where the images are not of the
    training images' size and channels, or fewer than two (four where half of them is to have a kernel distance to the
    others).
    """
    least = 4 if config.metrics.kernel_distance else 2
    if config.data.kind == "checkerboard":
        from specreg.data import Checkerboards

        data: Any = Checkerboards(
            count, resolution=config.data.resolution, squares=config.data.squares, seed=TRUTH_SEED
        )
    else:
        channels = build_data(config.data).item(0).shape[0]
        data = build_data(config.data.model_copy(update={"channels": channels}), path=config.data.test_path)
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
            features = _extractor(device)(images)
        except Unavailable as error:
            missing["kernel_distance"] = str(error)
    return Truth(images, spectra.mean_spectrum(spectra.from_uint8(images)), known, features, missing)


@lru_cache(maxsize=1)
def _extractor(device: torch.device | str) -> EfficientNetFeatures:
    return EfficientNetFeatures(device=device)


def measure(
    images: Tensor,
    config: Config,
    truth: Truth,
    *,
    features: Tensor | None = None,
    device: torch.device | str = "cpu",
) -> tuple[dict[str, float], spectra.MeanSpectrum]:
    """All metrics of 8-bit images `[N, C, H, W]` against the truth, by name (see METRICS), and their mean spectrum.

    `features` are those of the images where they are known; if they are needed and not known, they are computed on
    `device`.
    """
    x = spectra.from_uint8(images)
    spectrum = spectra.mean_spectrum(x)
    values = {
        "log_spectral_distance_db": spectra.log_spectral_distance(spectrum, truth.spectrum),
        "high_frequency_db": spectra.power_ratio(spectrum, truth.spectrum, low=0.25),
        "contrast_db": spectra.power_ratio(spectrum, truth.spectrum),
    }
    if truth.features is not None:
        features = _extractor(device)(images) if features is None else features
        values["kernel_distance"] = 1e3 * kernel_distance(features, truth.features)
    if config.data.kind == "checkerboard":
        family = (config.data.resolution, config.data.squares)
        values["band_energy_share"] = spectra.band_energy_share(x, board_bands(*family))
        values["board_fidelity"] = float(spectra.board_fidelity(x, boards(*family)).mean())
    return values, spectrum


def save_images(path: Path, images: Tensor) -> None:
    """Write uint8 `[N, C, H, W]` as a `[N, H, W, C]` array."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, images.permute(0, 2, 3, 1).numpy())
