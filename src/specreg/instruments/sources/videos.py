"""Frames of video files, through PyAV, which is imported on first use."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from specreg.instruments.sources.containers import Container, Folder, keys_of
from specreg.instruments.sources.protocol import Records
from specreg.instruments.sources.values import COLOURS, step_of

SUFFIXES = frozenset((".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm", ".wmv"))


class Videos(Records):
    """`Records` of the frames of video files: one record a frame, one group a file.

    Frames are colours of 8 bits, or of 16 where the video has more than 8; grey video is grey. Packets are listed once,
    without decoding; a range of frames is then decoded from the key frame before it.
    """

    space = 2
    spacing = None
    unit = "pixel"
    remedy = "--tile N cuts all of them into samples of N×N pixels"
    gaps = False

    def __init__(self, container: Container, names: tuple[str, ...]) -> None:
        self.where = str(container.path)
        self._container, self._files = container, names
        self.notes = []
        self._times: list[list[int]] = []  # presentation times of the frames of each file, in its time base
        self._sizes: list[tuple[int, int]] = []
        for name in names:
            times, size = self._listed(name)
            self._times.append(times)
            self._sizes.append(size)
        counts = [len(times) for times in self._times]
        self._frames = [(i, k) for i, count in enumerate(counts) for k in range(count)]
        keys = keys_of(names)
        self.names = [f"{names[i]} (frame {k})" for i, k in self._frames]
        self.keys = [f"{keys[i]}#{k}" for i, k in self._frames]
        self.groups = [i for i, _ in self._frames]
        self._reader: tuple[int, _Reader] | None = None
        self._last: tuple[int, NDArray[Any]] | None = None
        first = self._pixels(0)
        self.channels = ("luma",) if first.shape[0] == 1 else COLOURS
        self.step = step_of(first.dtype)

    def size(self, i: int) -> tuple[int, ...]:
        """Return height and width of frame i, from the header of its file."""
        return self._sizes[self._frames[i][0]]

    def part(self, i: int, begin: tuple[int, ...] | None, size: tuple[int, ...]) -> NDArray[Any]:
        """Return frame i, or a tile of it, `[C, H, W]`: uint8 or uint16."""
        if self._last is None or self._last[0] != i:
            self._last = i, self._pixels(i)
        pixels = self._last[1]
        if begin is None:
            return pixels
        return pixels[:, *(slice(at, at + side) for at, side in zip(begin, size, strict=True))]

    def _pixels(self, i: int) -> NDArray[Any]:
        file, frame = self._frames[i]
        name = self._files[file]
        with self._reading(name):
            if self._reader is None or self._reader[0] != file:
                self._close()
                self._reader = file, _Reader(self._opened(name), self._times[file])
            return self._reader[1].frame(frame)

    def _listed(self, name: str) -> tuple[list[int], tuple[int, int]]:
        """Return the presentation times of a file's frames in order, and their height and width."""
        with self._reading(name), self._opened(name) as video:
            if not video.streams.video:
                raise ValueError("it holds no video")
            stream = video.streams.video[0]
            times = [packet.pts for packet in video.demux(stream) if packet.size]
            if not times:
                raise ValueError("it holds no frame")
            if None in times or len(set(times)) < len(times):
                raise ValueError(
                    "its frames have no times of their own, so they cannot be told apart; convert it to MP4"
                )
            return sorted(times), (stream.codec_context.height, stream.codec_context.width)

    def _opened(self, name: str) -> Any:
        av = _av()
        if isinstance(self._container, Folder):
            return av.open(str(self._container.path / name))
        return av.open(io.BytesIO(self._container.read(name)))

    @contextmanager
    def _reading(self, name: str) -> Iterator[None]:
        av = _av()
        try:
            yield
        except (av.error.FFmpegError, ValueError, EOFError) as error:
            if str(error).startswith(f"cannot read {name} in"):
                raise
            why = getattr(error, "strerror", None) or str(error)
            raise ValueError(f"cannot read the video {name} in {self.where}: {why}") from None

    def _close(self) -> None:
        if self._reader is not None:
            self._reader[1].close()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_reader": None, "_last": None}


class _Reader:
    """Decodes the frames of one open video; reading on is quick, going back seeks to the key frame before."""

    def __init__(self, video: Any, times: list[int]) -> None:
        self._video, self._times = video, times
        self._stream = video.streams.video[0]
        self._decoded: Iterator[Any] | None = None
        self._next = 0

    def frame(self, k: int) -> NDArray[Any]:
        """Return frame k, `[C, H, W]`."""
        if self._decoded is None or not self._next <= k < self._next + 64:
            self._video.seek(self._times[k], stream=self._stream, backward=True)
            self._decoded = self._video.decode(self._stream)
        for frame in self._decoded:
            if frame.pts == self._times[k]:
                self._next = k + 1
                return _pixels(frame)
            if frame.pts is not None and frame.pts > self._times[k]:
                break
        raise ValueError(f"expected {len(self._times)} frames, as it lists; frame {k} cannot be decoded")

    def close(self) -> None:
        """Close the file."""
        self._video.close()


def _pixels(frame: Any) -> NDArray[Any]:
    """Return a decoded frame `[C, H, W]`: grey or colours, uint8 or, of more than 8 bits, uint16."""
    deep = max(component.bits for component in frame.format.components) > 8
    if len(frame.format.components) == 1 and not frame.format.has_palette:
        return np.asarray(frame.to_ndarray(format="gray16le" if deep else "gray"))[None]
    return np.asarray(frame.to_ndarray(format="rgb48le" if deep else "rgb24")).transpose(2, 0, 1)


def _av() -> Any:
    try:
        import av
    except ImportError as error:
        raise ImportError('video files need PyAV: pip install "specreg[video]"') from error
    return av
