"""What the instruments ask of a set of samples, and what a reader of one kind of file provides."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from numpy.typing import NDArray


class Source(Protocol):
    """A set of samples of one shape, read by index; picklable, so that worker processes can share the reading."""

    name: str
    """As the user gave it, for tables: the last component of the path."""
    shape: tuple[int, ...]
    """`[C, *space]` of each sample; space has 1 to 3 axes."""
    channels: tuple[str, ...]
    """Names of the C channels: "red", "green", "blue"; "luma"; variables; "left", "right"."""
    spacing: tuple[float, ...] | None
    """Sampling distance along each axis of space, in `unit`; None: 1 sample."""
    unit: str
    """Unit of the spacing: "pixel", "sample", "s", "m", "km", "degree", …"""
    rounding: float
    """Variance of the rounding of stored values, (2/255)²/12 for 8-bit images in [-1, 1]; 0.0 for floats."""

    def __len__(self) -> int: ...

    def keys(self) -> Sequence[str]:
        """Return `[N]` unique names; samples of two sources with equal keys are paired."""
        ...

    def groups(self) -> Sequence[int]:
        """Return `[N]`, non-decreasing: the independent unit (picture, clip, file) that each sample is a part of."""
        ...

    def read(self, start: int, stop: int) -> torch.Tensor:
        """Return samples `[stop - start, *shape]`, float32 or float64, on the CPU, all finite."""
        ...


class Records(ABC):
    """Pictures, clips, fields or volumes before they are cut into samples; picklable.

    Sizes come from headers. A record may have another size or number of channels than the first: `Samples` decides
    whether that is an error.
    """

    where: str
    """The path, for messages."""
    names: Sequence[str]
    """`[M]`, for messages, unique."""
    keys: Sequence[str]
    """`[M]`, for pairing, unique."""
    groups: Sequence[int]
    """`[M]`, non-decreasing."""
    channels: tuple[str, ...]
    """Of the first record."""
    space: int
    """Number of axes of space."""
    spacing: tuple[float, ...] | None
    unit: str
    """As those of a `Source`."""
    step: float
    """Distance of neighbouring stored values after scaling; 0.0 for floats."""
    remedy: str
    """What the user can do about records of several sizes."""
    gaps: bool
    """Whether NaN stands for a missing value, so that samples with NaN are left out."""
    notes: list[str]
    """Sentences about what was left out or read in a way that the user should know."""

    @abstractmethod
    def size(self, i: int) -> tuple[int, ...]:
        """Return the size of space of record i, from its header."""

    @abstractmethod
    def part(self, i: int, begin: tuple[int, ...] | None, size: tuple[int, ...]) -> NDArray[Any]:
        """Return `[C, *size]` at the offset `begin`, or the whole record, of any size, where that is None.

        Values are as stored: integers of 8 or 16 bits, which `values.scaled` scales, or floats.
        """
