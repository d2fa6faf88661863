"""Every random number of a run as a function of (seed, step, index in the global batch).

Never of world size, worker count or call order: that is what makes a resumed run, paired arms and several
processes agree. Streams are counter-based (Philox), so any of them can be reached without drawing the others.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from specreg import _checks


class Stream(IntEnum):
    """The purpose of a stream of random numbers."""

    ORDER = 0
    NOISE = 1
    AUGMENT = 2
    INIT = 3
    DROPOUT = 4


def rng(seed: int, stream: Stream, step: int = 0, index: int = 0) -> np.random.Generator:
    """Return the generator for one sample of one step; raises ValueError for a seed beyond 63 bits."""
    # From 2^63 up numpy would make floats of both numbers.
    return np.random.Generator(np.random.Philox(key=[_checks.seed(seed), stream], counter=[0, 0, index, step]))


def integer_seed(seed: int, stream: Stream, step: int = 0, index: int = 0) -> int:
    """Return a seed for libraries that take one, such as torch.manual_seed."""
    return int(rng(seed, stream, step, index).integers(2**63))


def seed_torch(seed: int, device: torch.device) -> None:
    """Seed torch's generators of a device; of the CPU alone takes a tenth of `torch.manual_seed`."""
    if device.type == "cpu":
        torch.default_generator.manual_seed(seed)
    else:
        torch.manual_seed(seed)


class DataOrder:
    """The data item at each place of each global batch: every epoch is a new permutation of all items."""

    def __init__(self, seed: int, items: int, batch_size: int):
        self.seed, self.items, self.batch_size = seed, items, batch_size
        self._epoch, self._permutation = -1, np.empty(0, dtype=np.int64)

    def item(self, step: int, index: int) -> int:
        """Return the data item at place `index` of the batch of `step`, both counted from 0."""
        epoch, place = divmod(step * self.batch_size + index, self.items)
        if epoch != self._epoch:
            self._epoch, self._permutation = (
                epoch,
                rng(self.seed, Stream.ORDER, epoch).permutation(self.items),
            )
        return int(self._permutation[place])


class Draw(NamedTuple):
    """Noise and times of some samples of a batch."""

    noise: Tensor  # [b, C, *space], unit normal float32
    t: Tensor  # [b], int64 timesteps, or float32 σ or t


def draw(
    seed: int, step: int, indices: range, shape: tuple[int, ...], draw_time: Callable[[np.random.Generator], float]
) -> Draw:
    """Draw noise of `shape` and a time for each of `indices` in the global batch of `step`."""
    generators = [rng(seed, Stream.NOISE, step, index) for index in indices]
    t = torch.tensor([draw_time(g) for g in generators])
    noise = np.stack([g.standard_normal(shape, dtype=np.float32) for g in generators])
    return Draw(torch.from_numpy(noise), t)
