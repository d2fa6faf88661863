"""Frames of video files, through PyAV, which is imported on first use."""

from __future__ import annotations

import io
from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from specreg._files import said
from specreg.instruments.sources.containers import Container, Folder, keys_of
from specreg.instruments.sources.records import Records
from specreg.instruments.sources.values import COLOURS, step_of

SUFFIXES = frozenset((".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm", ".wmv"))
_NEAR = 64  # frames ahead up to which decoding on is taken to be quicker than seeking


class Videos(Records):
    """`Records` of the frames of video files: one record a frame, one group a file.

    Frames are colours of 8 bits, or of 16 where the video has more than 8; grey video is grey. Packets are listed once,
    without decoding; a range of frames is then decoded from the key frame before it.
    """

    space = 2
    spacing = None
    unit = "pixel"
    remedy = "--tile N cuts all of them into samples of N×N pixels"
    _handles = ("_reader",)

    def __init__(self, container: Container, names: tuple[str, ...]) -> None:
        self.where = str(container.path)
        self._container, self._files = container, names
        self.notes = []
        self._listings = [self._listed(name) for name in names]
        counts = [len(listing.times) for listing in self._listings]
        self._frames = [(i, k) for i, count in enumerate(counts) for k in range(count)]
        keys = keys_of(names)
        self.names = [f"{names[i]} (frame {k})" for i, k in self._frames]
        self.keys = [f"{keys[i]}#{k}" for i, k in self._frames]
        self.groups = [i for i, _ in self._frames]
        self._reader: tuple[int, _Reader] | None = None
        first = self.whole(0)
        self.channels = ("luma",) if first.shape[0] == 1 else COLOURS
        self.dtype, self.step = first.dtype, step_of(first.dtype)

    def size(self, i: int) -> tuple[int, ...]:
        """Return height and width of frame i, from the header of its file."""
        return self._listings[self._frames[i][0]].size

    def whole(self, i: int) -> NDArray[Any]:
        """Return frame i, `[C, H, W]`: uint8 or uint16."""
        file, frame = self._frames[i]
        name = self._files[file]
        with self._reading(name):
            if self._reader is None or self._reader[0] != file:
                self._close()
                self._reader = file, _Reader(lambda: self._opened(name), self._listings[file])
            return self._reader[1].frame(frame)

    def _listed(self, name: str) -> _Listing:
        """Return what the packets of a file say, without decoding."""
        with self._reading(name), self._opened(name) as video:
            if not video.streams.video:
                raise ValueError("it holds no video")
            stream = video.streams.video[0]
            if stream.codec_context is None:
                raise ValueError("its codec is not known")
            packets = [packet for packet in video.demux(stream) if packet.size and not packet.is_discard]
            if not packets:
                raise ValueError("it holds no frame")
            times = [packet.pts for packet in packets]
            if None in times or len(set(times)) < len(times):
                raise ValueError(
                    "its frames have no times of their own, so they cannot be told apart; convert it to MP4"
                )
            keys = sorted((p.pts, p.pts if p.dts is None else p.dts) for p in packets if p.is_keyframe)
            size = (stream.codec_context.height, stream.codec_context.width)
            return _Listing(sorted(times), [shown for shown, _ in keys], [start for _, start in keys], size)

    def _opened(self, name: str) -> Any:
        av = _av()
        if isinstance(self._container, Folder):
            return av.open(str(self._container.place(name)))
        return av.open(io.BytesIO(self._container.read(name)))

    @contextmanager
    def _reading(self, name: str) -> Iterator[None]:
        av = _av()
        try:
            yield
        except (av.error.FFmpegError, ValueError, EOFError) as error:
            if str(error).startswith("cannot read "):
                raise
            raise ValueError(f"cannot read the video {self._container.at(name)}: {said(error)}") from None

    def _close(self) -> None:
        if self._reader is not None:
            self._reader[1].close()


class _Listing(NamedTuple):
    """What the packets of a video say, in its time base."""

    times: list[int]
    """[T], when each frame is shown, rising."""
    key_times: list[int]
    """When each key frame is shown, rising."""
    key_starts: list[int]
    """When each key frame is decoded, which may be before it is shown and is what some formats seek by."""
    size: tuple[int, int]
    """Height and width."""


class _Reader:
    """Decodes the frames of one open video; reading on is quick, going back starts at the key frame before."""

    def __init__(self, opener: Callable[[], Any], listing: _Listing) -> None:
        self._opener, self._listing = opener, listing
        self._video: Any = None
        self._decoded: Iterator[Any] = iter(())
        self._next = 0

    def frame(self, k: int) -> NDArray[Any]:
        """Return frame k, `[C, H, W]`."""
        time = self._listing.times[k]
        if self._next <= k < self._next + _NEAR and (found := self._found(time)) is not None:
            return found
        self._reopen()
        key = bisect_right(self._listing.key_times, time) - 1
        if key > 0:
            self._video.seek(self._listing.key_starts[key], stream=self._video.streams.video[0], backward=True)
            if (found := self._found(time)) is not None:
                return found
            self._reopen()  # an index that does not lead there: from the beginning
        if (found := self._found(time)) is not None:
            return found
        raise ValueError(f"it lists {len(self._listing.times)} frames; frame {k} cannot be decoded")

    def _found(self, time: int) -> NDArray[Any] | None:
        """Return the frame shown at a time, of those that are decoded from here on; None where it does not come."""
        for frame in self._decoded:
            if frame.pts == time:
                self._next = bisect_right(self._listing.times, time)
                return _pixels(frame)
            if frame.pts is not None and frame.pts > time:
                return None
        return None

    def _reopen(self) -> None:
        self.close()
        self._video = self._opener()
        self._decoded = self._video.decode(self._video.streams.video[0])

    def close(self) -> None:
        """Close the file."""
        if self._video is not None:
            self._video.close()


def _pixels(frame: Any) -> NDArray[Any]:
    """Return a decoded frame `[C, H, W]`: grey or colours, uint8 or, of more than 8 bits, uint16."""
    deep = max(component.bits for component in frame.format.components) > 8
    if len(frame.format.components) == 1 and not frame.format.has_palette:
        return np.asarray(frame.to_ndarray(format="gray16le" if deep else "gray"))[None]
    pixels: NDArray[Any] = np.asarray(frame.to_ndarray(format="rgb48le" if deep else "rgb24"))
    return np.moveaxis(pixels, -1, 0)


def _av() -> Any:
    try:
        import av
    except ImportError as error:
        raise ImportError('video files need PyAV: pip install "specreg[video]"') from error
    return av
