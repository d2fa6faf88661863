"""Sound files: headers, and decoding to mono float32 at one rate.

soundfile and librosa are imported on first use, so that importing specreg stays light.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from specreg._files import refuse_irregular, said
from specreg.data.audio_lengths import check_wav_length, mp3_length_is_declared, skip_id3

SEEKABLE = frozenset(("FLAC", "RF64", "WAV", "WAVEX"))  # a part can be read without decoding what precedes it
MP3_SLACK = 2 * 1152  # samples; the length in an mp3's header may count the encoder's padding
UNSCALED = frozenset(("DOUBLE", "FLOAT", "PCM_32"))  # encodings that may hold values of another range
OVERSHOOT = 2.0  # float masters and lossy decoders may go this far beyond 1 at their peaks, which are clipped
SAMPLES_A_BYTE = 1 << 14  # more than the best codec makes of silence
BLOCK = 1 << 20  # samples decoded at a time where only their number is wanted


class Header(NamedTuple):
    """What a file's header says; where it lacks the length, the samples are counted by decoding."""

    samples: int
    sample_rate: int  # Hz
    channels: int
    format: str  # of the content, which the name's ending may contradict: "WAV", "MP3", ...
    subtype: str  # encoding of the samples: "PCM_16", "FLOAT", ...
    counted: bool  # whether the header lacks the length


def read_header(path: Path) -> Header:
    """Return a file's header; raises ValueError that names the file where it is damaged or cut short."""
    try:
        refuse_irregular(path)
        stat = path.stat()
        return _header(path, stat.st_size, stat.st_mtime_ns)
    except OSError as error:
        raise ValueError(f"cannot read the sound {path}: {error.strerror or error}") from None


@lru_cache(maxsize=1 << 17)  # an entry for each file of a large set: all arms and parts of a comparison read them
def _header(path: Path, size: int, changed: int) -> Header:
    soundfile = _soundfile()
    try:
        info = soundfile.info(str(path))
        if info.format in ("WAV", "WAVEX", "RF64"):
            check_wav_length(path)
        samples, unknown = int(info.frames), int(info.frames) == np.iinfo(np.int64).max  # flac from a pipe
        counted = unknown or (info.format == "MP3" and not mp3_length_is_declared(path))
        if counted:
            samples = sum(map(len, _to_the_end(path)))
    except (soundfile.LibsndfileError, RuntimeError, ValueError) as error:
        raise ValueError(f"cannot read the sound {path}: {said(error)}") from None
    if samples < 1:
        raise ValueError(f"cannot read the sound {path}: it holds no samples")
    if info.samplerate < 1 or samples > SAMPLES_A_BYTE * size:
        raise ValueError(
            f"cannot read the sound {path}: its header promises {samples:,} samples at {info.samplerate} Hz, which do "
            f"not fit into {size:,} bytes"
        )
    return Header(samples, int(info.samplerate), int(info.channels), info.format, info.subtype, counted)


def resampled_length(samples: int, from_rate: int, to_rate: int) -> int:
    """Return the length of a clip after `read_mono` has resampled it: ⌈samples · to / from⌉."""
    return -(-samples * to_rate // from_rate)


def read_peak(path: Path) -> float:
    """Return the largest absolute value of a file's samples, which is beyond 1 where `read_mono` clips them.

    Raises:
        ValueError: as `read_mono`, or 32-bit integers that never use their upper 16 bits; the message names the file.
    """
    header = read_header(path)  # raises where the file cannot be read
    stat = path.stat()
    peak = _peak(path, stat.st_size, stat.st_mtime_ns)
    if header.subtype == "PCM_32" and 0 < peak <= 2**-16:
        raise ValueError(f"cannot read the sound {path}: it holds 16-bit values as 32-bit integers, without scaling")
    return peak


@lru_cache(maxsize=1 << 17)
def _peak(path: Path, size: int, changed: int) -> float:
    return float(np.abs(_decode(path, read_header(path))).max())


def read_mono(path: Path, sample_rate: int, *, start: int = 0, samples: int | None = None) -> NDArray[np.float32]:
    """Return a file as mono float32 `[T]` in [-1, 1] at `sample_rate` Hz: channels averaged, then resampled (soxr).

    Peaks of float samples, of lossy decoders and of resampling that reach beyond ±1 are clipped. With `start` and
    `samples`, in samples at that rate, only that part is returned, up to the end of the clip.

    Raises:
        ValueError: the file is damaged, shorter than its header says, holds NaN or infinity, or has another range, as
            integers in floats have; the message names it.
    """
    header = read_header(path)
    if header.sample_rate == sample_rate and header.format in SEEKABLE and not header.counted:
        # This needs no librosa and reads only a part of the file.
        begin = min(start, header.samples)
        count = header.samples - begin if samples is None else min(samples, header.samples - begin)
        sound, start, samples = _decode(path, header, begin, count), 0, None
    else:
        sound = _decode(path, header)
    mono: NDArray[np.float32] = sound.clip(-1, 1).mean(axis=1, dtype=np.float32)
    if header.sample_rate != sample_rate:
        mono = _resample(mono, header.sample_rate, sample_rate).clip(-1, 1)
    return mono[start : None if samples is None else start + samples]


def read_channels(path: Path, *, start: int = 0, samples: int | None = None) -> NDArray[np.float32]:
    """Return a file or a part of it as float32 `[T, channels]` at its own rate, as stored; raises as `read_mono`."""
    header = read_header(path)
    if header.format in SEEKABLE:
        return _decode(path, header, start, samples)
    return _decode(path, header)[start : None if samples is None else start + samples]


def _decode(path: Path, header: Header, begin: int = 0, count: int | None = None) -> NDArray[np.float32]:
    """Return `count` samples of a file from `begin`, or all, `[T, channels]`, with their values checked."""
    soundfile = _soundfile()
    expected = header.samples - begin if count is None else count
    try:
        sound: NDArray[np.float32]
        if header.counted:
            sound = np.concatenate([*_to_the_end(path)])[begin : begin + expected]
        else:
            sound, _ = soundfile.read(str(path), frames=expected, start=begin, dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, RuntimeError, OSError) as error:
        raise ValueError(f"cannot read the sound {path}: {said(error)}") from None
    slack = MP3_SLACK if header.format == "MP3" else 0
    if len(sound) < expected - slack:
        raise ValueError(f"cannot read the sound {path}: expected {expected} samples, found {len(sound)}")
    if not np.isfinite(sound).all():
        raise ValueError(f"cannot read the sound {path}: it holds NaN or infinity")
    peak = float(np.abs(sound).max(initial=0))
    if peak > 1 and (sound == sound.round()).all():
        bits = next((bits for bits in (16, 24) if peak <= 1 << (bits - 1)), 32)
        raise ValueError(
            f"cannot read the sound {path}: expected samples from -1 to 1; its floats are whole numbers up to "
            f"{peak:.0f}, as of {bits}-bit sound that was not divided by {1 << (bits - 1)}"
        )
    if peak > OVERSHOOT:
        raise ValueError(f"cannot read the sound {path}: expected samples from -1 to 1; they reach {peak:.6g}")
    return sound


def _to_the_end(path: Path) -> Iterator[NDArray[np.float32]]:
    """Yield a file in blocks `[T, channels]` up to its last sample, whatever length its header has or lacks.

    libsndfile guesses an mp3's length from its first frame and stops there; a pipe is read to its end.
    """
    soundfile = _soundfile()
    with ExitStack() as stack:
        source: str | int = str(path)
        if soundfile.info(source).format == "MP3":
            with path.open("rb") as file:
                skip_id3(file)
                data = file.read()
            source, sink = os.pipe()
            feeder = Thread(target=_feed, args=(sink, data), daemon=True)
            feeder.start()
            stack.callback(feeder.join)
            stack.callback(os.close, source)  # before the join: this ends a feeder that nobody reads from
        opened = stack.enter_context(soundfile.SoundFile(source, closefd=False))
        opened.seekable = lambda: False  # else soundfile seeks after each read, also beyond a flac's unknown end
        while len(block := opened.read(BLOCK, dtype="float32", always_2d=True)):
            yield block


def _feed(sink: int, data: bytes) -> None:
    with suppress(BrokenPipeError), os.fdopen(sink, "wb") as pipe:
        pipe.write(data)


def write_wav(path: Path, audio: NDArray[np.float32], sample_rate: int) -> None:
    """Write mono sound `[T]` as 16-bit PCM, clipped to [-1, 1]."""
    _soundfile().write(str(path), audio.clip(-1, 1), sample_rate, subtype="PCM_16")


@lru_cache(maxsize=1)
def decoder_versions() -> tuple[str, ...]:
    """Return the versions of the packages that decode and resample; a missing one is "none"."""
    try:
        decoder = str(_soundfile().__libsndfile_version__)
    except ImportError:
        decoder = "none"
    found = [f"libsndfile {decoder}"]
    for package in ("soundfile", "librosa", "soxr"):
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            found.append(f"{package} none")
    return tuple(found)


def _resample(mono: NDArray[np.float32], from_rate: int, to_rate: int) -> NDArray[np.float32]:
    try:
        import librosa
    except ImportError as error:
        raise ImportError('resampling needs librosa: pip install "specreg[audio]"') from error
    out: NDArray[np.float32] = librosa.resample(mono, orig_sr=from_rate, target_sr=to_rate)
    length = resampled_length(len(mono), from_rate, to_rate)
    return np.pad(out[:length], (0, max(0, length - len(out))))


def _soundfile() -> Any:
    try:
        import soundfile
    except ImportError as error:
        raise ImportError('sound files need soundfile: pip install "specreg[audio]"') from error
    return soundfile
