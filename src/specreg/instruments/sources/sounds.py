"""Clips of sound from a folder, zip or tar, or one file, at their own rate, all channels."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from specreg.data.audio_files import MP3_SLACK, SEEKABLE, Header, read_channels, read_header
from specreg.instruments.sources.containers import Container, Folder, keys_of
from specreg.instruments.sources.protocol import Records

SEGMENT = 4096
"""Samples of a segment where the user names none."""
_BITS = {"PCM_U8": 8, "PCM_S8": 8, "PCM_16": 16, "PCM_24": 24, "PCM_32": 32}
_NAMES = {1: ("mono",), 2: ("left", "right")}


class Sounds(Records):
    """`Records` of sound files, floats in [-1, 1]; every header is read here.

    An mp3 whose header declares its length may decode to less by the encoder's padding, so that much is left out at
    its end.
    """

    space = 1
    unit = "s"
    remedy = "--segment N cuts all of them into samples of N values"
    gaps = False

    def __init__(self, container: Container, names: tuple[str, ...], not_read: tuple[str, ...] = ()) -> None:
        self.where = str(container.path)
        self._container = container
        self.notes = []
        if not_read:
            self.notes.append(f"{len(not_read)} sounds in formats that are not read, such as {not_read[0]}")
        self.names = names
        self.keys = keys_of(names)
        self.groups = range(len(names))
        self._headers = [self._header(name) for name in names]
        first = self._headers[0]
        for name, header in zip(names, self._headers, strict=True):
            if header.sample_rate != first.sample_rate:
                raise ValueError(
                    f"{self.where}: expected sounds of one rate; {names[0]} has {first.sample_rate} Hz, {name} "
                    f"{header.sample_rate} Hz; resample them to one"
                )
        self.spacing = (1 / first.sample_rate,)
        self.channels = _NAMES.get(first.channels) or tuple(map(str, range(first.channels)))
        bits = _BITS.get(first.subtype)
        self.step = 2.0 ** (1 - bits) if bits else 0.0
        self._last: tuple[int, NDArray[np.float32]] | None = None

    def size(self, i: int) -> tuple[int, ...]:
        """Return the number of samples of clip i, from its header."""
        header = self._headers[i]
        if header.format == "MP3" and not header.counted:
            return (max(0, header.samples - MP3_SLACK),)
        return (header.samples,)

    def part(self, i: int, begin: tuple[int, ...] | None, size: tuple[int, ...]) -> NDArray[Any]:
        """Return clip i, or a segment of it, `[C, T]`, float32."""
        start, count = (0, self.size(i)[0]) if begin is None else (begin[0], size[0])
        seekable = self._headers[i].format in SEEKABLE and not self._headers[i].counted
        if seekable and begin is not None and isinstance(self._container, Folder):
            with self._sound(self.names[i]) as path:
                return read_channels(path, start=start, samples=count).T
        if self._last is None or self._last[0] != i:  # the segments of one clip are read one after another
            with self._sound(self.names[i]) as path:
                self._last = i, read_channels(path)
        return self._last[1][start : start + count].T

    def _header(self, name: str) -> Header:
        with self._sound(name) as path:
            return read_header(path)

    @contextmanager
    def _sound(self, name: str) -> Iterator[Path]:
        """Yield a clip's path; errors name the clip where it was unpacked from an archive."""
        with self._container.on_disk(name) as path:
            try:
                yield path
            except ValueError as error:
                raise ValueError(str(error).replace(str(path), f"{name} in {self.where}")) from None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_last": None}
