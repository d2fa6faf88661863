"""The images of a run, and what a training step takes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from specreg.config import ConfigError
from specreg.data import Checkerboards, DeadLeaves, ImageDataset
from specreg.data.augment import Augment
from specreg.modalities.images.config import ImageConfig, ImageData
from specreg.models import Conditioning
from specreg.randomness import DataOrder, Stream, rng


class ImageSet(Protocol):
    """A data set of images: `item(i)` is `[C, H, W]` in [-1, 1]."""

    def item(self, i: int) -> Tensor:
        """Return image `i`."""

    def label(self, i: int) -> int | None:
        """Return the class of image `i`, if the set has classes."""

    def __len__(self) -> int: ...


def open_images(data: ImageData, *, path: Path | None = None, seed: int = 0) -> ImageSet:
    """Return the data set of a run, or the images at `path` read in the same way; `seed` is that of drawn images."""
    if data.kind == "checkerboard":
        return Checkerboards(data.count, resolution=data.resolution, squares=data.squares, seed=seed)
    if data.kind == "dead_leaves":
        return DeadLeaves(
            data.count,
            resolution=data.resolution,
            channels=data.channels or 3,
            radii=data.radii,
            contrast=data.contrast,
            seed=seed,
        )
    path = path or data.path
    if path is None:
        raise ConfigError("data.path: expected a folder, zip or array of images (data.kind is images); got nothing")
    return ImageDataset(path, resolution=data.resolution, channels=data.channels)


class ImageItems(Dataset[dict[str, Tensor]]):
    """Images by (step, index in the global batch): "x0" and its conditioning, flipped and augmented as the run asks.

    Raises ConfigError when the network has classes and the data do not, or has too few.
    """

    def __init__(self, data: ImageSet, config: ImageConfig, conditioning: Conditioning):
        self.data, self.seed, self.flip = data, config.seed, config.data.flip
        self.augment = Augment(config.data.augment) if config.data.augment else None
        self.order = DataOrder(config.seed, len(data), config.training.batch_size)
        self.classes, self.augment_dim = conditioning
        if self.classes:
            all_labels(data, config, self.classes)

    def __getitem__(self, place: tuple[int, int]) -> dict[str, Tensor]:
        step, index = place
        item = self.order.item(step, index)
        x0 = self.data.item(item)
        found: dict[str, Tensor] = {}
        if self.augment_dim:  # zeros for an image left alone, so that every weight takes part in every step
            found["augment_labels"] = torch.zeros(self.augment_dim)
        if self.flip or self.augment is not None:
            random = rng(self.seed, Stream.AUGMENT, step, index)
            if self.flip and random.random() < 0.5:
                x0 = x0.flip(-1)
            if self.augment is not None:
                x0, found["augment_labels"] = self.augment(x0, random)
        if self.classes:
            found["labels"] = torch.tensor(self.data.label(item))
        return {"x0": x0, **found}


def labels_of(data: ImageSet, chosen: list[int], classes: int, path: Path | None) -> list[int]:
    """Return the classes of some images; ConfigError where a network with `classes` classes cannot be told them."""
    labels = [label for i in chosen if (label := data.label(i)) is not None]
    if len(labels) < len(chosen) or not all(0 <= label < classes for label in labels):
        found = f"{min(labels)} to {max(labels)}" if labels else "none"
        raise ConfigError(f"{path}: expected labels from 0 to {classes - 1} for this network; got {found}")
    return labels


def all_labels(data: ImageSet, config: ImageConfig, classes: int) -> npt.NDArray[np.int64]:
    """Return the class of every training image; ConfigError where a network with `classes` cannot be told it."""
    labels: npt.NDArray[np.int64] | None = getattr(data, "labels", None)
    if labels is None:
        raise ConfigError(f"data.path: this network has {classes} classes; expected labels in {config.data.path}")
    if labels.min() < 0 or labels.max() >= classes:
        raise ConfigError(
            f"{config.data.path}: expected labels from 0 to {classes - 1} for this network; "
            f"got {labels.min()} to {labels.max()}"
        )
    return labels
