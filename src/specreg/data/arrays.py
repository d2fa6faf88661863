"""Arrays of images or fields in .npy and .npz files, read no further than header and file agree."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

from specreg._files import array_fault, refuse_irregular
from specreg._memory import Need, refuse_beyond

BOMB_BYTES, BOMB_RATIO = 1 << 28, 200
"""An array in an .npz that is larger and more compressed than these is refused: images are at most some times smaller
when packed."""

MOST_CLASSES = 2**31
"""Labels are below it."""


class ImageArray:
    """Source of pixels and labels: a .npy file (mapped into memory) or an .npz; it pickles as its path."""

    def __init__(self, path: Path) -> None:
        self.path = path
        images, labels = open_arrays(path, ("images", "arr_0"), ("labels", "arr_1"))
        self._images, self._labels = images, labels
        if images.dtype != np.uint8:
            raise ValueError(f"{path}: images must be uint8, 0 to 255; got {images.dtype}")
        shape = images.shape
        if images.ndim == 3:
            self._axes: tuple[int, ...] | None = (0, 1)
        elif images.ndim == 4 and shape[3] in (1, 3):
            self._axes = (0, 1, 2)
        elif images.ndim == 4 and shape[1] in (1, 3):
            self._axes = (1, 2, 0)
        else:
            raise ValueError(f"{path}: expected images [N, H, W], [N, H, W, C] or [N, C, H, W]; got {list(shape)}")
        if images.size == 0:
            raise ValueError(f"no image in {path}: its shape is {list(shape)}")
        self.names: Sequence[str] = _Numbered(path.name, len(images))

    def pixels(self, i: int, channels: int | None) -> NDArray[np.uint8]:
        """Return image i, `[H, W, C]`; C is that of the array where `channels` is None."""
        from PIL import Image

        raw = np.array(self._images[i].transpose(self._axes))
        pixels = raw.reshape(*raw.shape[:2], -1)
        own = pixels.shape[2]
        if channels in (None, own):
            return pixels
        if own == 1:
            return pixels.repeat(3, axis=2)
        return np.array(Image.fromarray(pixels).convert("L"))[..., None]

    def labels(self) -> NDArray[np.int64] | None:
        """Return the labels stored beside the images, or None."""
        labels, count = self._labels, len(self._images)
        if labels is None:
            return None
        if labels.shape != (count,) or labels.dtype.kind not in "iu":
            raise ValueError(
                f"{self.path}: expected {count} whole-number labels; got {labels.dtype} {list(labels.shape)}"
            )
        if not 0 <= labels.min() <= labels.max() < MOST_CLASSES:
            raise ValueError(
                f"{self.path}: labels must be from 0 to {MOST_CLASSES - 1}; got {labels.min()} to {labels.max()}"
            )
        return labels.astype(np.int64)

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["path"])  # type: ignore[misc]


def open_arrays(
    path: Path, names: Sequence[str], beside: Sequence[str] = ()
) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """Return the array of a .npy, mapped into memory, or the one of an .npz with one of `names`, or its only one.

    The second is the array of an .npz with one of the names `beside`, None where there is none. ValueError for files
    that cannot be read.
    """
    try:
        refuse_irregular(path)
        if not zipfile.is_zipfile(path):
            with np.errstate(over="ignore"):  # a header of 10^18 images is refused all the same
                return np.load(path, mmap_mode="r", allow_pickle=False), None
        with zipfile.ZipFile(path) as archive:
            found = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            only = next(iter(found)) if len(found) == 1 else None
            chosen = next((key for key in names if key in found), only)
            if chosen is None:
                raise ValueError(f"expected an array called {' or '.join(names)} among {', '.join(found) or 'none'}")
            second = next((key for key in beside if key in found), None)
            return _unpacked(archive, found[chosen]), None if second is None else _unpacked(archive, found[second])
    except Exception as error:  # numpy and zipfile report damage as ValueError, EOFError, zlib.error, ...
        raise ValueError(f"cannot read the array {path}: {array_fault(path, error)}") from error


class _Header(NamedTuple):
    shape: tuple[int, ...]
    fortran_order: bool
    dtype: np.dtype[Any]


def _unpacked(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> NDArray[Any]:
    """Return an array of an .npz; ValueError where its header and the size of the member differ, or for a bomb."""
    with archive.open(info) as file:
        readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        version = np.lib.format.read_magic(file)
        if version not in readers:
            raise ValueError(f"expected {info.filename} in version 1.0 or 2.0 of the format; got {version}")
        header = _Header(*readers[version](file))
        promised, there = math.prod(header.shape) * header.dtype.itemsize, info.file_size - file.tell()
        if header.dtype.hasobject:
            raise ValueError(f"{info.filename} holds Python objects")
        if promised != there:
            raise ValueError(f"the header of {info.filename} promises {promised:,} bytes; {there:,} are there")
        if promised > BOMB_BYTES and promised > BOMB_RATIO * info.compress_size:
            raise ValueError(
                f"{info.filename} unpacks {info.compress_size:,} bytes to {promised:,}, as a decompression bomb does; "
                "save it as .npy, which is not unpacked"
            )
        refuse_beyond([Need(info.filename, "it", promised)])
        data = bytearray(promised)
        read = 0
        while read < promised and (block := file.read(min(1 << 24, promised - read))):
            data[read : read + len(block)] = block
            read += len(block)
        if read < promised or file.read(1):  # the last read verifies the checksum
            raise ValueError(f"{info.filename} is cut short: {read:,} of {promised:,} bytes")
    values: NDArray[Any] = np.frombuffer(data, dtype=header.dtype)
    return values.reshape(header.shape[::-1]).T if header.fortran_order else values.reshape(header.shape)


class _Numbered(Sequence[str]):
    """The names `NAME[0]`, `NAME[1]`, … of the items of an array, which may be a billion."""

    def __init__(self, name: str, count: int) -> None:
        self._name, self._count = name, count

    @overload
    def __getitem__(self, i: int) -> str: ...
    @overload
    def __getitem__(self, i: slice) -> tuple[str, ...]: ...
    def __getitem__(self, i: int | slice) -> str | tuple[str, ...]:
        found = range(self._count)[i]
        return f"{self._name}[{found}]" if isinstance(found, int) else tuple(f"{self._name}[{k}]" for k in found)

    def __len__(self) -> int:
        return self._count
