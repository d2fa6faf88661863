"""Score many samples of one network without keeping them: spectrum and Inception statistics, batch by batch."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from specreg import evaluation
from specreg.data import ImageDataset
from specreg.metrics import spectra
from specreg.metrics.frechet import (
    FeatureAccumulator,
    GaussianStatistics,
    frechet_distance,
    load_statistics,
    save_statistics,
)
from specreg.training.config import Config

Extract = Callable[[Tensor], Tensor]
"""uint8 images `[N, C, H, W]` to features `[N, D]`."""

SAVE_EVERY = 2_000
"""Images after which unfinished sums are saved."""


class Reference(NamedTuple):
    """Real images that samples are scored against."""

    spectrum: spectra.MeanSpectrum
    features: GaussianStatistics | None  # where features are extracted


class _Sums:
    """Sums over images that make a mean spectrum and feature statistics."""

    def __init__(self, extract: Extract | None, dimensions: int):
        self.extract = extract
        self.count, self.power = 0, torch.zeros(0, dtype=torch.float64)
        self.grid: spectra.MeanSpectrum | None = None
        self.features = FeatureAccumulator(dimensions) if extract is not None else None

    def add(self, images: Tensor) -> None:
        """Add uint8 images `[N, C, H, W]`."""
        self.grid = spectra.mean_spectrum(spectra.from_uint8(images))
        total = self.grid.power * len(images)
        self.power = total if self.count == 0 else self.power + total
        self.count += len(images)
        if self.extract is not None and self.features is not None:
            self.features.add(self.extract(images))

    def spectrum(self) -> spectra.MeanSpectrum:
        """Mean spectrum of what was added."""
        if self.grid is None:
            raise ValueError("expected at least one image; got none")
        return self.grid._replace(power=self.power / self.count)

    def save(self, path: Path) -> None:
        """Write everything, whole or not at all."""
        assert self.grid is not None
        arrays: dict[str, Any] = {"images": np.array(self.count), "power": self.power.numpy()}
        arrays |= {"frequency": self.grid.frequency.numpy(), "size": self.grid.size.numpy()}
        if self.features is not None:
            arrays |= {f"features_{name}": value for name, value in self.features.state().items()}
        partial = path.with_name(f".{path.name}.partial.npz")
        np.savez(partial, **arrays)
        partial.replace(path)

    def restore(self, path: Path) -> bool:
        """Go on from what `save` wrote; False where it lacks the features that are wanted now."""
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        features = {name.removeprefix("features_"): a for name, a in arrays.items() if name.startswith("features_")}
        if self.features is not None and not features:
            return False
        if self.features is not None:
            self.features.restore(features)
        self.count, self.power = int(arrays["images"]), torch.from_numpy(arrays["power"])
        tensors = (torch.from_numpy(arrays[name]) for name in ("frequency", "power", "size"))
        self.grid = spectra.MeanSpectrum(*tensors)
        return True


def reference(archive: Path, cache: Path, config: Config, extract: Extract | None, dimensions: int) -> Reference:
    """Statistics of every image of a data set, cached by the archive's SHA-256.

    An .npz of the archive's name beside it (EDM's own reference: mu, sigma) takes the place of its features.
    """
    with archive.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()[:16]
    given, cached = archive.with_suffix(".npz"), cache / f"{archive.stem}-{digest}-features.npz"
    spectrum_path = cache / f"{archive.stem}-{digest}-spectrum.npz"
    features = None
    if extract is not None:
        found = next((path for path in (given, cached) if path.is_file()), None)
        features = load_statistics(found) if found else None
        if features is not None and len(features.mean) != dimensions:
            raise ValueError(f"{found}: expected {dimensions} features; got {len(features.mean)}")
    sums = _Sums(extract if features is None else None, dimensions)
    if (extract is None or features is not None) and spectrum_path.is_file():
        sums.restore(spectrum_path)
    else:
        for images in _dataset(archive, config):
            sums.add(images)
        cache.mkdir(parents=True, exist_ok=True)
        if sums.features is not None:
            features = sums.features.statistics()
            save_statistics(cached, features)
            sums.features = None
        sums.save(spectrum_path)
    return Reference(sums.spectrum(), features)


def _dataset(archive: Path, config: Config, batch_size: int = 64) -> Iterator[Tensor]:
    data = ImageDataset(archive, resolution=config.data.resolution, channels=config.data.channels)
    for start in range(0, len(data), batch_size):
        items = [data.item(i) for i in range(start, min(start + batch_size, len(data)))]
        yield spectra.to_uint8(torch.stack(items))


def score(
    config: Config,
    model: nn.Module,
    shape: tuple[int, ...],
    folder: Path,
    truth: Reference,
    *,
    images: int,
    extract: Extract | None,
    dimensions: int,
    device: torch.device | str = "cpu",
) -> dict[str, float]:
    """Draw `images` samples from seeds sampling.seed + i, and score them; unfinished sums in `folder` are gone on with.

    Writes the first samples as `samples.png`. Returns "fid" (with `extract` alone), "log_spectral_distance_db",
    "high_frequency_db" and "contrast_db".
    """
    folder.mkdir(parents=True, exist_ok=True)
    partial, sums = folder / "partial.npz", _Sums(extract, dimensions)
    if partial.exists() and not sums.restore(partial):
        sums = _Sums(extract, dimensions)
    settings, saved = config.sampling, sums.count
    while sums.count < images:
        chunk = min(settings.batch_size, images - sums.count)
        seeded = settings.model_copy(update={"count": chunk, "seed": settings.seed + sums.count})
        drawn = evaluation.draw_samples(config.model_copy(update={"sampling": seeded}), model, shape, device=device)
        if sums.count == 0:
            _grid(drawn).save(folder / "samples.png")
        sums.add(drawn)
        if sums.count - saved >= SAVE_EVERY and sums.count < images:
            sums.save(partial)
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


def _grid(images: Tensor, columns: int = 8) -> Any:
    """Images side by side, as a PIL image."""
    from PIL import Image

    columns = min(columns, len(images))
    rows = len(images) // columns
    n, (c, h, w) = rows * columns, images.shape[1:]
    tiled = images[:n].reshape(rows, columns, c, h, w).permute(0, 3, 1, 4, 2).reshape(rows * h, columns * w, c)
    return Image.fromarray(tiled.squeeze(-1).numpy())
