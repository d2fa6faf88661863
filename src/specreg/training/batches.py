"""What a training step is fed: items by (step, index in the global batch), in parts, with their conditioning."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from specreg.data.audio import AudioDataset
from specreg.data.augment import Augment
from specreg.models import Conditioning
from specreg.training.build import ImageItems
from specreg.training.config import Config, ConfigError
from specreg.training.randomness import DataOrder, Stream, rng


class Batch(NamedTuple):
    """One process's share of one part of a global batch."""

    x0: Tensor  # [b, C, *space], augmented
    t: Tensor  # [b], timesteps or σ
    noise: Tensor  # [b, C, *space]
    condition: dict[str, Tensor]  # by the network's keywords, each [b, ...]

    def to(self, device: torch.device) -> Batch:
        """The same batch on a device."""
        move = {name: value.to(device, non_blocking=True) for name, value in self.condition.items()}
        x0, t, noise = (value.to(device, non_blocking=True) for value in (self.x0, self.t, self.noise))
        return Batch(x0, t, noise, move)


class Items(Dataset[dict[str, Tensor]]):
    """Items by (step, index in the global batch): "x0" and its conditioning, flipped and augmented as the run asks.

    Raises ConfigError when the network has classes and the data do not, or has too few.
    """

    def __init__(self, data: ImageItems, config: Config, conditioning: Conditioning):
        self.data, self.seed, self.flip = data, config.seed, config.data.flip
        self.augment = Augment(config.data.augment) if config.data.augment else None
        self.order = DataOrder(config.seed, len(data), config.training.batch_size)
        self.classes, self.augment_dim = conditioning
        if self.classes:
            _check_labels(data, config, self.classes)

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


class Crops(Dataset[dict[str, Tensor]]):
    """Random crops of clips by (step, index in the global batch): "x0" `[1, T]` and, for a vocoder, "mel"."""

    def __init__(self, data: AudioDataset, config: Config, *, conditional: bool):
        self.data, self.seed, self.conditional = data, config.seed, conditional
        self.order = DataOrder(config.seed, len(data), config.training.batch_size)

    def __getitem__(self, place: tuple[int, int]) -> dict[str, Tensor]:
        step, index = place
        clip = self.data.crop(self.order.item(step, index), rng(self.seed, Stream.AUGMENT, step, index))
        return {"x0": clip.audio, "mel": clip.mel} if self.conditional else {"x0": clip.audio}


def _check_labels(data: ImageItems, config: Config, classes: int) -> None:
    labels = getattr(data, "labels", None)
    if labels is None:
        raise ConfigError(f"data.path: this network has {classes} classes; expected labels in {config.data.path}")
    if labels.min() < 0 or labels.max() >= classes:
        raise ConfigError(
            f"{config.data.path}: expected labels from 0 to {classes - 1} for this network; "
            f"got {labels.min()} to {labels.max()}"
        )


class Places(Sampler[list[tuple[int, int]]]):
    """The (step, index) of every item that a process loads, one list a part of a batch."""

    def __init__(self, start: int, stop: int, shares: Sequence[range]):
        self.start, self.stop, self.shares = start, stop, shares

    def parts(self) -> Iterator[tuple[int, range]]:
        """Each part's step and its indices in the global batch."""
        return ((step, share) for step in range(self.start, self.stop) for share in self.shares)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        return ([(step, index) for index in share] for step, share in self.parts())

    def __len__(self) -> int:
        return (self.stop - self.start) * len(self.shares)
