"""Rows of numbers for each image of a set: shared over processes, and for real images cached by content.

Images are always taken in the same blocks, counted from the first image. So what a network's convolutions round is the
same whatever the number of processes.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from specreg import _checks, processes
from specreg._files import whole, write_safetensors
from specreg._torch_files import load_safetensors
from specreg.data import ImageDataset
from specreg.metrics import spectra
from specreg.metrics.features import InceptionFeatures, WeightsMissing, find_inception
from specreg.metrics.image_sets import METRICS, NEEDS, ImageRows
from specreg.metrics.kernel_distance import EfficientNetFeatures
from specreg.metrics.scores import Unavailable
from specreg.transforms.radial import power_spectrum

BLOCK = 16
"""Images that a feature network takes at a time."""

CACHE_FORMAT = 1
"""Part of the key of every cached file: raised when rows are computed in another way."""

SPECTRA = tuple(name for name in METRICS if name not in NEEDS)


class ImageSource(NamedTuple):
    """Images by index: `read(range)` returns uint8 `[N, C, H, W]`."""

    number: int
    read: Callable[[range], Tensor]


class Features(Protocol):
    """The interface of a feature network."""

    def __call__(self, images: Tensor) -> Tensor:
        """Return features `[N, D]` of uint8 images `[N, C, H, W]`."""


class Extractors(NamedTuple):
    """The feature networks that metrics need, and the metrics that cannot be measured with the reason."""

    networks: Mapping[str, Features]  # by the names in image_sets.NEEDS
    made_of: Mapping[str, str]  # what each network is, for the cache
    metrics: Sequence[str]
    missing: Mapping[str, str]


def files_source(path: Path, *, channels: int | None = None) -> ImageSource:
    """Return the images of a folder, archive or array."""
    wanted = None if channels is None else 1 if channels == 1 else 3
    data = ImageDataset(path, channels=wanted)

    def read(indices: range) -> Tensor:
        return spectra.to_uint8(torch.stack([data.item(i) for i in indices]))

    return ImageSource(len(data), read)


def find_extractors(
    metrics: Sequence[str] | None, inception: Path | None, *, device: torch.device | str = "cpu"
) -> Extractors:
    """Return what `metrics` need; None: all that can be measured here.

    Raises ValueError for unknown metrics, and where one that was asked for by name cannot be measured: the message says
    what to fetch or install.
    """
    names = [name for name in METRICS if metrics is None or name in metrics]
    for name in metrics or ():
        _checks.choice("metric", name, METRICS)
    networks: dict[str, Features] = {}
    made_of: dict[str, str] = {}
    missing: dict[str, str] = {}
    for kind in dict.fromkeys(NEEDS[name] for name in names if name in NEEDS):
        try:
            if kind == "inception":
                weights = find_inception(inception)
                networks[kind], made_of[kind] = InceptionFeatures(weights, device=device), InceptionFeatures.name
            else:
                networks[kind], made_of[kind] = EfficientNetFeatures(device=device), "efficientnet-lite0 at 128"
        except (WeightsMissing, Unavailable, ImportError) as error:
            if metrics is not None or (kind == "inception" and inception is not None):
                raise ValueError(str(error)) from None
            missing |= {name: str(error) for name in names if NEEDS.get(name) == kind}
    return Extractors(networks, made_of, [name for name in names if name not in missing], missing)


def rows_of(source: ImageSource, networks: Mapping[str, Features]) -> ImageRows:
    """Return the rows of a set; under a launcher every process must call, computes a share, and gets all rows."""
    if not source.number:
        raise ValueError("expected at least one image; got none")
    blocks = range(0, source.number, BLOCK)
    found = []
    for k in processes.share(len(blocks)):
        images = source.read(range(blocks[k], min(blocks[k] + BLOCK, source.number)))
        spectrum = power_spectrum(_checks.in_float64(spectra.from_uint8(images)))
        features = {name: network(images).cpu() for name, network in networks.items()}
        found.append((spectrum, features))
    parts = [each for part in processes.gather(found) for each in part]
    first = parts[0][0]
    for spectrum, _ in parts:
        spectra.same_grid(*(spectra.MeanSpectrum(s.frequency, s.power[0], s.size) for s in (spectrum, first)))
    features = {name: torch.cat([each[name] for _, each in parts]) for name in networks}
    return ImageRows(torch.cat([spectrum.power for spectrum, _ in parts]), first.frequency, first.size, features)


def reference_rows(source: ImageSource, extractors: Extractors, cache: Path | None) -> tuple[ImageRows, str]:
    """Return the rows of real images and the SHA-256 of their pixels; rows come from `cache` where it has them.

    A cached file is known by the pixels and by what made it; one that is damaged is computed again.
    """
    digest = _content(source)
    kinds = ["spectrum", *extractors.networks]
    paths = {kind: _cached(cache, digest, extractors.made_of.get(kind, "radial")) for kind in kinds} if cache else {}
    loaded = {kind: _load(path, source.number) for kind, path in paths.items()}
    known = [kind for kind in kinds if all(processes.gather(loaded.get(kind) is not None))]
    wanted = {name: network for name, network in extractors.networks.items() if name not in known}
    rows = rows_of(source, wanted) if wanted or "spectrum" not in known else None
    tensors: dict[str, dict[str, Tensor]] = {kind: loaded[kind] or {} for kind in known}
    if rows is not None:
        tensors["spectrum"] = {"power": rows.power, "frequency": rows.frequency, "size": rows.size}
        tensors |= {name: {"features": found} for name, found in rows.features.items()}
        if processes.state().is_main_process:
            for kind in kinds:
                if kind in paths and kind not in known:
                    _save(paths[kind], tensors[kind])
    spectrum = tensors["spectrum"]
    features = {name: tensors[name]["features"] for name in extractors.networks}
    return ImageRows(spectrum["power"], spectrum["frequency"], spectrum["size"], features), digest


def default_cache() -> Path:
    """Return the user's cache folder: $XDG_CACHE_HOME/specreg, by default ~/.cache/specreg."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "specreg"


def _content(source: ImageSource) -> str:
    """Return the SHA-256 of all pixels and their shape; processes share the reading."""
    blocks = range(0, source.number, BLOCK)
    found = []
    for k in processes.share(len(blocks)):
        images = source.read(range(blocks[k], min(blocks[k] + BLOCK, source.number)))
        found.append(hashlib.sha256(str(list(images.shape)).encode() + images.contiguous().numpy().tobytes()).digest())
    return hashlib.sha256(b"".join(each for part in processes.gather(found) for each in part)).hexdigest()


def _cached(cache: Path, digest: str, made_of: str) -> Path:
    key = json.dumps([CACHE_FORMAT, digest, made_of, BLOCK])
    return cache / f"images-{hashlib.sha256(key.encode()).hexdigest()[:32]}.safetensors"


def _save(path: Path, tensors: dict[str, Tensor]) -> None:
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    with whole(path) as partial:
        write_safetensors(partial, tensors, {"sha256": _sha256(tensors)})


def _load(path: Path, count: int) -> dict[str, Tensor] | None:
    """Return the tensors of a cached file; None where there is none, or it is not what was written."""
    if not path.is_file():
        return None
    try:
        metadata, tensors = load_safetensors(path)
    except ValueError:
        return None
    rows = tensors.get("power", tensors.get("features"))
    if metadata.get("sha256") != _sha256(tensors) or rows is None or len(rows) != count:
        return None
    return tensors


def _sha256(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(name.encode() + tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()
