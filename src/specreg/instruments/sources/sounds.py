"""Clips of sound from a folder, zip or tar, or one file, at their own rate, all channels."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from specreg._files import said
from specreg.data.audio_files import MP3_SLACK, SEEKABLE, Header, read_channels, read_header
from specreg.instruments.sources.containers import Container, Folder, keys_of
from specreg.instruments.sources.records import Records

SEGMENT = 4096
"""Samples of a segment where the user names none."""
_BITS = {"PCM_U8": 8, "PCM_S8": 8, "PCM_16": 16, "PCM_24": 24, "PCM_32": 32}
# Samples that a byte can hold at most: of mp3 at 8 kbit/s and 48 kHz, 48; of silence in FLAC and Vorbis some thousands.
_MOST_A_BYTE = {"MP3": 192}
_NAMES = {1: ("mono",), 2: ("left", "right")}


class Sounds(Records):
    """`Records` of sound files, floats in [-1, 1]; every header is read here.

    An mp3 whose header declares its length may decode to less by the encoder's padding, so that much is left out at
    its end.
    """

    space = 1
    unit = "s"
    remedy = "--segment N cuts all of them into samples of N values"

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

    def size(self, i: int) -> tuple[int, ...]:
        """Return the number of samples of clip i, from its header."""
        header = self._headers[i]
        if header.format == "MP3" and not header.counted:
            return (max(0, header.samples - MP3_SLACK),)
        return (header.samples,)

    def whole(self, i: int) -> NDArray[Any]:
        """Return clip i, `[C, T]`, float32."""
        with self._sound(self.names[i]) as path:
            values: NDArray[Any] = read_channels(path).T[:, : self.size(i)[0]]
            return values

    def part(self, i: int, begin: tuple[int, ...], size: tuple[int, ...]) -> NDArray[Any]:
        """Return a segment of clip i, `[C, T]`; only that is decoded, where the format and the place allow it."""
        header = self._headers[i]
        if header.format not in SEEKABLE or header.counted or not isinstance(self._container, Folder):
            return super().part(i, begin, size)
        with self._sound(self.names[i]) as path:
            values: NDArray[Any] = read_channels(path, start=begin[0], samples=size[0]).T
            return values

    def _header(self, name: str) -> Header:
        with self._sound(name) as path:
            header = read_header(path)
            most = _MOST_A_BYTE.get(header.format, 8192) * self._container.length(name)
            if header.samples > most:
                raise ValueError(
                    f"cannot read the sound {self._container.at(name)}: its header promises {header.samples} samples, "
                    f"more than {most}, which its {self._container.length(name)} bytes can hold"
                )
            return header

    @contextmanager
    def _sound(self, name: str) -> Iterator[Path]:
        """Yield a clip's path; errors name the clip where it was unpacked from an archive."""
        with self._container.on_disk(name) as path:
            try:
                yield path
            except ValueError as error:
                raise ValueError(str(error).replace(str(path), self._container.at(name))) from None
            except MemoryError as error:
                raise ValueError(f"cannot read the sound {self._container.at(name)}: {said(error)}") from None
