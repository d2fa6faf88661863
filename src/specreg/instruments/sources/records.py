"""What a reader of one kind of file provides: pictures, clips, fields or volumes before they are cut into samples."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from copy import copy
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray


class Records(ABC):
    """Records of any size, by index, for one thread; a copy, in this process or another, opens its files anew.

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
    dtype: np.dtype[Any] | None = None
    """Of the first record as stored, where other files may have another; None where all have one."""
    remedy: str
    """What the user can do about records of several sizes."""
    gaps = False
    """Whether NaN stands for a missing value, so that samples with NaN are left out."""
    notes: list[str]
    """Sentences about what was left out or read in a way that the user should know."""

    _handles: ClassVar[tuple[str, ...]] = ()
    """Names of attributes that hold open files: a copy has None there."""
    _last: tuple[int, NDArray[Any]] | None = None

    @abstractmethod
    def size(self, i: int) -> tuple[int, ...]:
        """Return the size of space of record i, from its header."""

    @abstractmethod
    def whole(self, i: int) -> NDArray[Any]:
        """Return record i, `[C, *space]`, as stored: integers of 8 or 16 bits, which `values.scaled` scales, or floats.

        Raises ValueError that names a file that is damaged.
        """

    def part(self, i: int, begin: tuple[int, ...], size: tuple[int, ...]) -> NDArray[Any]:
        """Return `[C, *size]` of record i at the offset `begin`."""
        if self._last is None or self._last[0] != i:  # the parts of one record are read one after another
            self._last = i, self.whole(i)
        index = (slice(None), *(slice(at, at + side) for at, side in zip(begin, size, strict=True)))
        return self._last[1][index]

    def at(self, i: int) -> str:
        """Return where record i is, for messages."""
        return self.where if len(self.names) == 1 else f"{self.names[i]} in {self.where}"

    def __getstate__(self) -> dict[str, Any]:
        state = {**self.__dict__, "_last": None, **dict.fromkeys(self._handles)}
        if "_container" in state:
            state["_container"] = copy(state["_container"])
        return state
