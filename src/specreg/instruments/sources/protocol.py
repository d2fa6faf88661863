"""What the instruments ask of a set of samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch


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
