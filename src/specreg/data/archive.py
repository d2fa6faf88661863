"""Archives of training images in EDM's format, written by `specreg dataset`: see `build`."""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from specreg._files import sync, writing
from specreg.data.files import ImageFiles


def is_built(path: Path) -> bool:
    """Return whether a file is an archive that an `Archive` has written: its dataset.json has the sources."""
    try:
        content = json.loads(ImageFiles(path).read("dataset.json"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and isinstance(content.get("sources"), dict)


class Archive:
    """A zip in EDM's format, written beside its final name: `complete` finishes it, `publish` renames it.

    Raises WriteError. What is not published is removed at the end of the block.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.sources: dict[str, str] = {}
        self._partial = path.with_name(f".{path.name}.{os.getpid()}.partial")

    def add(self, picture: NDArray[np.uint8], source: str) -> None:
        """Append one picture `[H, W, C]`."""
        from PIL import Image

        index = f"{len(self.sources):08d}"
        name = f"{index[:5]}/img{index}.png"
        buffer = io.BytesIO()
        Image.fromarray(squeezed(picture)).save(buffer, format="PNG")
        self._write(name, buffer.getvalue())
        self.sources[name] = source

    def complete(self) -> None:
        """Add dataset.json and have all bytes on the disk."""
        self._write("dataset.json", json.dumps({"labels": None, "sources": self.sources}, indent=0).encode())
        with writing(self.path):
            self._zip.close()
            sync(self._partial)

    def publish(self) -> None:
        """Give the complete archive its name."""
        with writing(self.path):
            self._partial.replace(self.path)

    def _write(self, name: str, data: bytes) -> None:
        info = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))  # so that the bytes are the same every time
        info.create_system = 3
        info.external_attr = 0o644 << 16
        with writing(self.path):
            self._zip.writestr(info, data)

    def __enter__(self) -> Archive:
        with writing(self.path):
            self._zip = zipfile.ZipFile(self._partial, "w", zipfile.ZIP_STORED)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):  # on a full disk it fails once more, and closes the file all the same
            self._zip.close()
        self._partial.unlink(missing_ok=True)


@contextmanager
def set_aside(path: Path) -> Iterator[bool]:
    """Have no file at a path at the end of a block; where the block fails, it is back. Yields whether there was one."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.before")
    there = path.exists()
    with writing(path):
        if there:
            path.replace(aside)
    try:
        yield there
    except BaseException:
        if there:
            aside.replace(path)
        raise
    aside.unlink(missing_ok=True)


def squeezed(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a picture as Pillow takes it, grey without an axis of channels."""
    return picture.squeeze(2) if picture.shape[2] == 1 else picture
