"""Scoring many samples of one network without keeping them: spectrum and feature statistics, batch by batch.

Statistics of real images and the sums of an unfinished score are kept on disk with a description of all that made them;
a file that was made of something else is not used.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from specreg._files import sha256, whole_file
from specreg.config import ConfigError
from specreg.data import ImageDataset
from specreg.metrics import spectra
from specreg.metrics.frechet import (
    FeatureAccumulator,
    GaussianStatistics,
    frechet_distance,
    load_statistics,
    save_statistics,
)
from specreg.modalities.images.config import ImageConfig
from specreg.modalities.images.sampling import draw_images
from specreg.modalities.protocol import Device, Features

SAVE_EVERY = 2_000
"""Images after which the sums of an unfinished score are saved."""


class Reference(NamedTuple):
    """Real images that samples are scored against."""

    spectrum: spectra.MeanSpectrum
    features: GaussianStatistics | None  # where features are extracted
    fingerprint: str  # SHA-256 of the images' archive and of what else the statistics are made of


class _Sums:
    """Sums over images from which a mean spectrum and feature statistics follow."""

    def __init__(self, features: Features | None):
        self.extract = features
        self.count, self.power = 0, torch.zeros(0, dtype=torch.float64)
        self.grid: spectra.MeanSpectrum | None = None
        self.features = FeatureAccumulator(features.dimensions) if features is not None else None

    def add(self, images: Tensor) -> None:
        """Add uint8 images `[N, C, H, W]`; raises ValueError for another size than that of earlier ones."""
        spectrum = spectra.mean_spectrum(spectra.from_uint8(images))
        if self.grid is not None:
            spectra.same_grid(spectrum, self.grid)
        self.grid = spectrum
        total = spectrum.power * len(images)
        self.power = total if self.count == 0 else self.power + total
        self.count += len(images)
        if self.extract is not None and self.features is not None:
            self.features.add(self.extract(images))

    def spectrum(self) -> spectra.MeanSpectrum:
        """Return the mean spectrum of the images added so far."""
        if self.grid is None:
            raise ValueError("expected at least one image; got none")
        return self.grid._replace(power=self.power / self.count)

    def save(self, path: Path, made_of: Mapping[str, Any]) -> None:
        """Write the sums and what they are made of; the file appears whole or not at all."""
        assert self.grid is not None
        arrays: dict[str, Any] = {"images": np.array(self.count), "power": self.power.numpy()}
        arrays |= {"frequency": self.grid.frequency.numpy(), "size": self.grid.size.numpy()}
        if self.features is not None:
            arrays |= {f"features_{name}": value for name, value in self.features.state().items()}
        with whole_file(path) as file:
            np.savez(file, made_of=np.array(_canonical(made_of)), **arrays)

    def restore(self, path: Path, made_of: Mapping[str, Any]) -> bool:
        """Continue from the sums in a file; returns False where there is none, or it is made of something else."""
        if not path.is_file():
            return False
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        if "made_of" not in arrays or str(arrays["made_of"]) != _canonical(made_of):
            return False
        if self.features is not None:
            prefix = "features_"
            self.features.restore({n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)})
        self.count, self.power = int(arrays["images"]), torch.from_numpy(arrays["power"])
        tensors = (torch.from_numpy(arrays[name]) for name in ("frequency", "power", "size"))
        self.grid = spectra.MeanSpectrum(*tensors)
        return True


def reference(config: ImageConfig, cache: Path, features: Features | None) -> Reference:
    """Return the statistics of every image at data.path, cached by the archive's SHA-256 and all that made them.

    An .npz beside the archive and of its name (EDM's own reference: mu, sigma) takes the place of its features.
    """
    archive = config.data.path
    if archive is None:
        raise ConfigError("data.path: expected an archive of images; got nothing")
    digest = sha256(archive)
    made_of = {"archive": digest, "resolution": config.data.resolution, "channels": config.data.channels}
    given, found = archive.with_suffix(".npz"), None
    named = {**made_of, "features": features.name if features is not None else None}
    key = hashlib.sha256(_canonical(named).encode()).hexdigest()[:16]
    cached, spectrum_path = cache / f"{archive.stem}-{key}-features.npz", cache / f"{archive.stem}-{key}-spectrum.npz"
    if features is not None:
        path = next((path for path in (given, cached) if path.is_file()), None)
        found = load_statistics(path) if path else None
        if found is not None and len(found.mean) != features.dimensions:
            raise ValueError(f"{path}: expected {features.dimensions} features; got {len(found.mean)}")
        named["given"] = sha256(given) if given.is_file() else None
    sums = _Sums(features if found is None else None)
    wanted = features is not None and found is None
    if wanted or not sums.restore(spectrum_path, made_of):
        for images in _images(config):
            sums.add(images)
        cache.mkdir(parents=True, exist_ok=True)
        if sums.features is not None:
            found = sums.features.statistics()
            save_statistics(cached, found)
            sums.features = None
        sums.save(spectrum_path, made_of)
    fingerprint = hashlib.sha256(_canonical(named).encode()).hexdigest()
    return Reference(sums.spectrum(), found, fingerprint)


def score(
    config: ImageConfig,
    network: nn.Module,
    shape: Sequence[int],
    folder: Path,
    truth: Reference,
    *,
    features: Features | None,
    made_of: Mapping[str, Any],
    device: Device = "cpu",
) -> dict[str, float]:
    """Draw sampling.count samples and score them; the sums of an interrupted score in `folder` are continued.

    They are continued only where they are made of the same `made_of`, which must describe the network's weights, the
    same sampler and the same truth; otherwise the score starts again. Writes the first samples as `samples.png`.

    Returns "fid" (with `features` alone), "log_spectral_distance_db", "high_frequency_db" and "contrast_db".
    """
    folder.mkdir(parents=True, exist_ok=True)
    settings, partial, sums = config.sampling, folder / "partial.npz", _Sums(features)
    made_of = {
        **made_of,
        "sampling": settings.model_dump(mode="json", exclude={"batch_size"}),
        "truth": truth.fingerprint,
        "features": features.name if features is not None else None,
    }
    if not sums.restore(partial, made_of):
        sums = _Sums(features)
    saved = sums.count
    while sums.count < settings.count:
        indices = range(sums.count, min(sums.count + settings.batch_size, settings.count))
        drawn = draw_images(config, network, shape, indices, device=device)
        if sums.count == 0:
            _grid(drawn).save(folder / "samples.png")
        sums.add(drawn)
        if sums.count - saved >= SAVE_EVERY and sums.count < settings.count:
            sums.save(partial, made_of)
            saved = sums.count
    spectrum = sums.spectrum()
    values = {
        "log_spectral_distance_db": spectra.log_spectral_distance(spectrum, truth.spectrum),
        "high_frequency_db": spectra.power_ratio(spectrum, truth.spectrum, low=0.25),
        "contrast_db": spectra.power_ratio(spectrum, truth.spectrum),
    }
    if sums.features is not None and truth.features is not None:
        values = {"fid": frechet_distance(sums.features.statistics(), truth.features), **values}
    partial.unlink(missing_ok=True)
    return values


def _canonical(made_of: Mapping[str, Any]) -> str:
    """Return a description as text that is equal for equal descriptions."""
    return json.dumps(made_of, sort_keys=True)


def _images(config: ImageConfig, batch_size: int = 64) -> Iterator[Tensor]:
    assert config.data.path is not None
    data = ImageDataset(config.data.path, resolution=config.data.resolution, channels=config.data.channels)
    for start in range(0, len(data), batch_size):
        items = [data.item(i) for i in range(start, min(start + batch_size, len(data)))]
        yield spectra.to_uint8(torch.stack(items))


def _grid(images: Tensor, columns: int = 8) -> Any:
    """Return images side by side, as a PIL image."""
    from PIL import Image

    columns = min(columns, len(images))
    rows = len(images) // columns
    n, (c, h, w) = rows * columns, images.shape[1:]
    tiled = images[:n].reshape(rows, columns, c, h, w).permute(0, 3, 1, 4, 2).reshape(rows * h, columns * w, c)
    return Image.fromarray(tiled.squeeze(-1).numpy())
