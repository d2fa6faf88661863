"""Arrays in .npy, .npz and safetensors files, alone or as the parts of a folder or archive, read by the row."""

from __future__ import annotations

import zipfile
from tokenize import TokenError
from typing import Any, BinaryIO, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from specreg._files import said
from specreg.instruments.sources.containers import FAULTS, Container, ending, keys_of, pick
from specreg.instruments.sources.layouts import checked_layout, is_layout, layout_of
from specreg.instruments.sources.records import Records
from specreg.instruments.sources.tensor_files import TensorFile
from specreg.instruments.sources.values import COLOURS, checked_dtype, step_of

SUFFIXES = frozenset((".npy", ".npz", ".safetensors"))
_USUAL_KEYS = ("images", "samples", "arr_0")


class Stored(Protocol):
    """An array in an open file."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def rows(self, start: int, stop: int) -> NDArray[Any]:
        """Return that part of the first axis."""
        ...


class Arrays(Records):
    """`Records` of array files: one record for each entry of the axis of samples.

    All files have the axes of the first, in the same layout and with values of the same kind.
    """

    spacing = None
    remedy = "--tile N (or --segment N for one axis) cuts all of them to one size"
    _handles = ("_handle",)

    def __init__(self, container: Container, names: tuple[str, ...], selector: str | None, *, tiled: bool) -> None:
        self._container, self._names = container, names
        self.where = str(container.path)
        self.notes = []
        self._key, layout = _key_and_layout(selector)
        self._handle: tuple[int, Stored] | None = None
        stored = self._stored(0)
        if layout is None and self._key is not None and ending(names[0]) == ".npy":
            raise ValueError(
                f"{self.where}: expected axes behind the colon, such as {self.where}:bchw; got {self._key!r}"
            )
        if layout:
            self._layout = checked_layout(layout, stored.shape, self.where)
        else:
            latents = ending(names[0]) == ".safetensors"
            at = f"{self.where}:{self._key}" if self._key else self.where
            self._layout = layout_of(stored.shape, at, one_sample=len(names) > 1, tiled=tiled, latents=latents)
        self._many = self._layout.startswith("b")
        self.space = len(self._layout.removeprefix("b").replace("c", ""))
        self.unit = "sample" if self.space == 1 else "pixel"
        self.dtype, self.step = stored.dtype.newbyteorder("="), step_of(stored.dtype)
        self._shapes = [self._shape_of(i) for i in range(len(names))]
        counts = [shape[0] if self._many else 1 for shape in self._shapes]
        self._rows = [(i, row) for i, count in enumerate(counts) for row in range(count)]
        keys, alone = keys_of(names), len(names) == 1
        numbered = [self._many if alone else counts[i] > 1 for i in range(len(names))]
        file = ["sample {}" if alone else f"{name}[{{}}]" for name in names]
        self.names = [file[i].format(row) if numbered[i] else names[i] for i, row in self._rows]
        self.keys = [
            str(row) if self._many and alone else f"{keys[i]}#{row}" if numbered[i] else keys[i]
            for i, row in self._rows
        ]
        self.groups = range(len(self._rows))
        self.channels = _channel_names(self._channel_count(self._shapes[0]), self.space)

    def size(self, i: int) -> tuple[int, ...]:
        """Return the size of space of record i."""
        shape = self._shapes[self._rows[i][0]]
        return tuple(side for letter, side in zip(self._layout, shape, strict=True) if letter not in "bc")

    def whole(self, i: int) -> NDArray[Any]:
        """Return record i, `[C, *space]`, as stored."""
        index, row = self._rows[i]
        stored = self._stored(index)
        values = stored.rows(row, row + 1)[0] if self._many else stored.rows(0, stored.shape[0])
        letters = self._layout.removeprefix("b")
        return np.moveaxis(values, letters.index("c"), 0) if "c" in letters else values[None]

    def _stored(self, index: int) -> Stored:
        if self._handle is None or self._handle[0] != index:
            self._handle = index, open_array(self._container, self._names[index], self._key)
        return self._handle[1]

    def _shape_of(self, index: int) -> tuple[int, ...]:
        stored, name = self._stored(index), self._names[index]
        if len(stored.shape) != len(self._layout):
            raise ValueError(
                f"{self.where}: expected arrays of {len(self._layout)} axes as {self._names[0]}; {name} has shape "
                f"{list(stored.shape)}"
            )
        if 0 in stored.shape:
            raise ValueError(f"{self._container.at(name)}: expected values; its shape is {list(stored.shape)}")
        return stored.shape

    def _channel_count(self, shape: tuple[int, ...]) -> int:
        return shape[self._layout.index("c")] if "c" in self._layout else 1


class Selected(NamedTuple):
    """What a user named behind the colon of an array file."""

    key: str | None
    layout: str | None


def _key_and_layout(selector: str | None) -> Selected:
    """Return name and axes from "name", "axes" or "name:axes"; an array whose name spells axes is named with them."""
    if not selector:
        return Selected(None, None)
    key, _, layout = selector.rpartition(":")
    return Selected(key or None, layout) if is_layout(layout) else Selected(selector, None)


def _channel_names(count: int, space: int) -> tuple[str, ...]:
    if count == 1:
        return ("mono",) if space == 1 else ("luma",)
    return COLOURS if count == 3 and space == 2 else tuple(map(str, range(count)))


def open_array(container: Container, name: str, key: str | None) -> Stored:
    """Return an array of a file; `key` names one of several. Raises ValueError that names the file."""
    where = container.at(name)
    try:
        match ending(name):
            case ".safetensors":
                return TensorFile(container, name, key)
            case ".npz":
                return _in_npz(container, name, key, where)
        return ArrayFile(container.open(name), container.length(name), where)
    except (*FAULTS, _BadHeader) as error:
        found = container.mistaken(name)
        why = f"it {found}" if found else said(error)
        raise ValueError(f"{where}: cannot be read as a NumPy array: {why}") from None


def _in_npz(container: Container, name: str, key: str | None, where: str) -> Stored:
    archive = zipfile.ZipFile(container.open(name))
    members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
    chosen = pick(key, tuple(members), _USUAL_KEYS, where)
    return ArrayFile(archive.open(members[chosen]), members[chosen].file_size, f"{chosen} of {where}")  # type: ignore[arg-type]


class _BadHeader(Exception):
    """The start of a file is no header of NumPy's format."""


class ArrayFile:
    """An array in NumPy's format, whose rows are read from an open file, which may be a member of an archive."""

    def __init__(self, file: BinaryIO, length: int, where: str) -> None:
        self._file, self._where = file, where
        try:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            self.shape, self._by_columns, self.dtype = read(file)
        except (ValueError, EOFError, SyntaxError, TypeError, TokenError) as error:
            raise _BadHeader(error) from None
        checked_dtype(self.dtype, where)
        if not self.shape:
            raise ValueError(f"{where}: expected an array of samples; got one number")
        self._start = file.tell()
        needed = self._row_bytes() * self.shape[0]
        if needed > length - self._start:
            raise ValueError(
                f"{where}: its header promises {list(self.shape)} of {self.dtype}, {needed} bytes; found "
                f"{length - self._start}"
            )
        self._all: NDArray[Any] | None = None

    def rows(self, start: int, stop: int) -> NDArray[Any]:
        """Return rows of the array; raises ValueError where the file is cut short or damaged."""
        if self._by_columns:
            if self._all is None:
                self._all = self._read(0, self.shape[0]).reshape(self.shape, order="F")
            return self._all[start:stop]
        return self._read(start, stop).reshape(stop - start, *self.shape[1:])

    def _read(self, start: int, stop: int) -> NDArray[Any]:
        size = self._row_bytes()
        try:
            self._file.seek(self._start + start * size)
            data = self._file.read((stop - start) * size)
        except FAULTS as error:
            raise ValueError(f"{self._where}: row {start} cannot be read: {said(error)}") from None
        if len(data) < (stop - start) * size:
            raise ValueError(f"{self._where}: it is cut short: row {start} ends after {len(data)} of {size} bytes")
        values: NDArray[Any] = np.frombuffer(data, self.dtype)
        return values.astype(self.dtype.newbyteorder("="), copy=False)

    def _row_bytes(self) -> int:
        size = self.dtype.itemsize
        for side in self.shape[1:]:
            size *= side
        return size
