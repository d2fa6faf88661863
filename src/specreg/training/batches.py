"""What a training step gets: items read by each process, and a batch with its noise and times."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from specreg._signals import ignore

Place = tuple[int, int]
"""Step and index in the global batch."""


class DataError(ValueError):
    """An item of the training data that cannot be read: which, and why."""


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


class Places(Sampler[list[Place]]):
    """The (step, index in the global batch) of every item that a process loads, one list for each part of a batch."""

    def __init__(self, start: int, stop: int, shares: Sequence[range]):
        self.start, self.stop, self.shares = start, stop, shares

    def parts(self) -> Iterator[tuple[int, range]]:
        """Yield the step and the indices in the global batch of each part."""
        return ((step, share) for step in range(self.start, self.stop) for share in self.shares)

    def __iter__(self) -> Iterator[list[Place]]:
        return ([(step, index) for index in share] for step, share in self.parts())

    def __len__(self) -> int:
        return (self.stop - self.start) * len(self.shares)


def shares_of(rank: int, processes: int, *, size: int, parts: int) -> list[range]:
    """Return the indices in the global batch that a process runs, one range of `size` for each part."""
    starts = [(part * processes + rank) * size for part in range(parts)]
    return [range(start, start + size) for start in starts]


def load(items: Dataset[dict[str, Tensor]], places: Places, *, workers: int) -> Generator[dict[str, Tensor]]:
    """Yield the items of each part of each batch as one, each tensor `[b, ...]`; they are read by `workers` processes.

    The workers end with the iterator, so close it, also after an error. Without workers this process reads.

    Raises DataError where an item cannot be read (ValueError, OSError), with the same words however many workers read.
    """
    loader: DataLoader[Any] = DataLoader(
        _Readable(items), batch_sampler=places, num_workers=workers, collate_fn=_collate, worker_init_fn=ignore
    )
    reading = iter(loader)
    try:
        for found in reading:
            if isinstance(found, DataError):
                raise found
            yield found
    finally:
        if isinstance(reading, _MultiProcessingDataLoaderIter):
            _end_workers(reading)


class _Readable(Dataset[Any]):
    """Items by place; for one that cannot be read, the DataError itself.

    An exception raised in a worker would come out of the loader as a traceback in the words of another one.
    """

    def __init__(self, items: Dataset[dict[str, Tensor]]):
        self.items = items

    def __getitem__(self, place: Any) -> dict[str, Tensor] | DataError:
        try:
            return self.items[place]
        except (ValueError, OSError) as error:
            unread = DataError(str(error))
            unread.__cause__ = error  # for SPECREG_TRACEBACK; it stays in a worker
            return unread


def _collate(items: list[dict[str, Tensor] | DataError]) -> dict[str, Tensor] | DataError:
    """Return items as one, each tensor `[b, ...]`, or the first DataError among them."""
    for item in items:
        if isinstance(item, DataError):
            return item
    batch: dict[str, Tensor] = default_collate(items)
    return batch


def _end_workers(reading: _MultiProcessingDataLoaderIter) -> None:
    """End the workers of a loader now: left to the exit of Python, they get SIGTERM alone, which they ignore."""
    try:
        reading._shutdown_workers()  # waits until each has read what it is reading, twice 5 s at most
    finally:
        for worker in getattr(reading, "_workers", []):
            worker.kill()
