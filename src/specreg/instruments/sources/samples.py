"""Samples of one shape from records: whole, or cut into tiles or segments; channels mixed, missing values left out."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from copy import copy
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from specreg.instruments.sources.records import Records
from specreg.instruments.sources.values import Channels, channels_after, mixed, rounding_of, scaled, shown

Tile = int | tuple[int, ...]


class Samples:
    """A `Source` made of records.

    Tiles do not overlap and begin at the first corner; what does not fill a tile is left out. Without tiles all records
    must have the size of the first. With `limit`, at most that many samples, evenly spaced through the set.

    `notes` are sentences about what was left out, with counts.
    """

    def __init__(
        self, records: Records, name: str, *, tile: Tile | None, channels: Channels = "all", limit: int | None = None
    ) -> None:
        """Lay out the samples.

        Args:
            records: what is cut.
            name: of the source, for tables.
            tile: sides of a tile, one number or one for each axis; None for whole records.
            channels: "all" as stored, or luma, or luma and chroma of colours.
            limit: largest number of samples.

        Raises:
            ValueError: no record, no tile that fits, no colours to mix, or nothing but missing values.
        """
        self.name = name
        self._records, self._channels, self._mine = records, channels, _Mine()
        if not len(records.names):
            raise ValueError(f"{records.where} is empty: it holds no sample")
        self.channels = channels_after(records.channels, channels, records.where)
        self.spacing, self.unit = records.spacing, records.unit
        self.rounding = rounding_of(records.step, records.channels, channels)
        self.notes: tuple[str, ...] = ()
        self._tile = None if tile is None else _sides(tile, records)
        self._size = records.size(0) if self._tile is None else self._tile
        self.shape = (len(self.channels), *self._size)
        if 0 in self.shape:
            raise ValueError(f"{records.at(0)}: expected values; its samples are {_by(self.shape)}, channels first")
        self._grids = None if self._tile is None else self._tiles_of(self._tile)
        starts = range(len(records.names) + 1) if self._grids is None else self._grids.prod(1).cumsum()
        # Sample s of all is in the last record that starts at or before it.
        self._starts: NDArray[np.int64] = np.asarray(starts if self._grids is None else [0, *starts], dtype=np.int64)
        self._picks: NDArray[np.int64] = np.arange(self._starts[-1])
        if records.gaps:
            self._leave_out_gaps()
        if limit is not None:
            if limit < 1:
                raise ValueError(f"limit must be 1 or more; got {limit}")
            if limit < len(self._picks):
                self._picks = self._picks[np.arange(limit) * len(self._picks) // limit]
        self.notes = (*records.notes, *self.notes)

    def __len__(self) -> int:
        return len(self._picks)

    def keys(self) -> Sequence[str]:
        """Return `[N]` unique names: that of the record, with the offset of a tile or segment after "@"."""
        places = (self._place(i) for i in range(len(self)))
        keys = self._records.keys
        return [keys[record] if at is None else f"{keys[record]}@{','.join(map(str, at))}" for record, at in places]

    def groups(self) -> Sequence[int]:
        """Return `[N]`, non-decreasing from 0: the picture, clip or file that each sample is a part of."""
        of_records = np.asarray(self._records.groups, dtype=np.int64)
        groups: list[int] = np.unique(of_records[self._record_of(self._picks)], return_inverse=True)[1].tolist()
        return groups

    def read(self, start: int, stop: int) -> torch.Tensor:
        """Return samples `[stop - start, *shape]`, float32 or float64, finite.

        Raises:
            ValueError: a file is damaged, has another size, number of channels or kind of values than the first, or
                holds NaN or infinity; the message names it.
            IndexError: `start` and `stop` are not within the set.
        """
        if not 0 <= start <= stop <= len(self):
            raise IndexError(f"samples {start} to {stop} of {self.name}, which has {len(self)}")
        if start == stop:
            return torch.empty(0, *self.shape)
        parts = self._parts(start, stop)
        x = mixed(scaled(parts), self._channels)
        # A sum is quicker than a look at each value; it may also overflow.
        if parts[0].dtype.kind == "f" and not x.sum().isfinite():
            finite = x.isfinite().flatten(1).all(1)
            if not finite.all():
                record, _ = self._place(start + int(finite.int().argmin()))
                raise ValueError(f"{self._records.at(record)}: it holds NaN or infinity")
        return x

    def _parts(self, start: int, stop: int) -> list[NDArray[Any]]:
        parts: list[NDArray[Any]] = []
        for i in range(start, stop):
            record, begin = self._place(i)
            part = self._part(record, begin)
            self._check(record, part)
            parts.append(part)
        return parts

    def _part(self, record: int, begin: tuple[int, ...] | None) -> NDArray[Any]:
        records = self._mine.of(self._records)
        return records.whole(record) if begin is None else records.part(record, begin, self._size)

    def _check(self, record: int, part: NDArray[Any]) -> None:
        records = self._records
        name, origin = records.names[record], records.names[0]
        if part.shape[1:] != self._size:
            raise ValueError(
                f"{records.where}: expected samples of one size; {origin} is {_by(self._size)}, {name} is "
                f"{_by(part.shape[1:])}; {records.remedy}"
            )
        count, expected = part.shape[0], len(records.channels)
        if count != expected and not (self._channels == "luma" and count in (1, 3) and expected in (1, 3)):
            raise ValueError(
                f"{records.where}: expected the channels of {origin}, {shown(records.channels)}; {name} has {count}"
                + ("; channels 'luma' reads grey and colour alike" if {count, expected} == {1, 3} else "")
            )
        if records.dtype is not None and part.dtype != records.dtype:
            raise ValueError(
                f"{records.where}: expected values of one kind; {name} holds {part.dtype}, {origin} {records.dtype}"
            )

    def _place(self, i: int) -> tuple[int, tuple[int, ...] | None]:
        """Return the record of sample i, and the offset of its tile."""
        pick = self._picks[i]
        record = int(self._record_of(pick))
        if self._grids is None or self._tile is None:
            return record, None
        index = np.unravel_index(int(pick - self._starts[record]), tuple(self._grids[record]))
        return record, tuple(int(k) * side for k, side in zip(index, self._tile, strict=True))

    def _record_of(self, sample: Any) -> Any:
        return np.searchsorted(self._starts, sample, side="right") - 1

    def _tiles_of(self, tile: tuple[int, ...]) -> NDArray[np.int64]:
        """Return the number of tiles along each axis of each record, `[M, space]`; counts what holds none."""
        records = self._records
        sizes = np.array([records.size(i) for i in range(len(records.names))], dtype=np.int64)
        grids: NDArray[np.int64] = sizes // np.array(tile)
        empty = grids.prod(1) == 0
        if empty.all():
            largest = sizes[sizes.prod(1).argmax()]
            raise ValueError(
                f"{records.where}: no sample of {_by(tile)} fits: the largest of {len(sizes)} is {_by(largest)}"
            )
        if empty.any():
            first = int(empty.argmax())
            self.notes += (
                f"{empty.sum()} of {len(sizes)} are smaller than {_by(tile)} and left out, such as "
                f"{records.names[first]}, {_by(sizes[first])}",
            )
        return grids

    def _leave_out_gaps(self) -> None:
        whole = np.array([self._is_whole(i) for i in range(len(self))])
        if not whole.any():
            what = f"each of its {len(whole)} samples of {_by(self._size)} has missing values (NaN)"
            raise ValueError(f"{self._records.where}: {what}; {self._records.remedy}")
        if not whole.all():
            self.notes += (f"{(~whole).sum()} of {len(whole)} samples have missing values (NaN) and are left out",)
        self._picks = self._picks[whole]

    def _is_whole(self, i: int) -> bool:
        record, begin = self._place(i)
        return not np.isnan(self._part(record, begin)).any()


class _Mine(threading.local):
    """A copy of records for each thread and process: what has one position in a file must have one reader."""

    def __init__(self) -> None:
        self._copy: tuple[int, Records] | None = None

    def of(self, records: Records) -> Records:
        """Return the copy of this thread, made when it first reads."""
        if self._copy is None or self._copy[0] != os.getpid():  # a fork has its parent's copy
            self._copy = os.getpid(), copy(records)
        return self._copy[1]

    def __reduce__(self) -> tuple[type[_Mine], tuple[()]]:
        return _Mine, ()


def _sides(tile: Tile, records: Records) -> tuple[int, ...]:
    sides = (tile,) * records.space if isinstance(tile, int) else tuple(tile)
    if len(sides) != records.space or min(sides) < 1:
        one = "segment" if records.space == 1 else "tile"
        raise ValueError(
            f"{one} must be a length of 1 or more, or one for each of the {records.space} axes of {records.where}; got "
            f"{tile}"
        )
    return sides


def _by(size: Sequence[int] | NDArray[Any]) -> str:
    return "×".join(str(int(side)) for side in size) + (" values" if len(size) == 1 else "")
