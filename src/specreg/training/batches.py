"""What a training step gets: which items each process loads, and a batch with its noise and times."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Sampler


class Batch(NamedTuple):
    """One process's share of one part of a global batch."""

    x0: Tensor  # [b, C, *space], augmented
    t: Tensor  # [b], times of the objective's time axis
    noise: Tensor  # [b, C, *space]
    condition: dict[str, Tensor]  # by the network's keywords, each [b, ...]

    def to(self, device: torch.device) -> Batch:
        """Return the same batch on a device."""
        move = {name: value.to(device, non_blocking=True) for name, value in self.condition.items()}
        x0, t, noise = (value.to(device, non_blocking=True) for value in (self.x0, self.t, self.noise))
        return Batch(x0, t, noise, move)


class Places(Sampler[list[tuple[int, int]]]):
    """The (step, index in the global batch) of every item that a process loads, one list for each part of a batch."""

    def __init__(self, start: int, stop: int, shares: Sequence[range]):
        self.start, self.stop, self.shares = start, stop, shares

    def parts(self) -> Iterator[tuple[int, range]]:
        """Yield the step and the indices in the global batch of each part."""
        return ((step, share) for step in range(self.start, self.stop) for share in self.shares)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        return ([(step, index) for index in share] for step, share in self.parts())

    def __len__(self) -> int:
        return (self.stop - self.start) * len(self.shares)
