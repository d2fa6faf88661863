"""Sound files: headers, and decoding to mono float32 at one rate.

soundfile and librosa are imported on first use, so that importing specreg stays light.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

SEEKABLE = frozenset((".flac", ".wav"))  # a part can be read without decoding what precedes it
MP3_SLACK = 2 * 1152  # samples; the length in an mp3's header may count the encoder's padding


class Header(NamedTuple):
    """Length, rate and channels from a file's header."""

    samples: int
    sample_rate: int  # Hz
    channels: int


def read_header(path: Path) -> Header:
    """Return a file's header; raises ValueError that names the file where it is damaged."""
    soundfile = _soundfile()
    try:
        info = soundfile.info(str(path))
    except (soundfile.LibsndfileError, RuntimeError, OSError) as error:
        raise ValueError(f"cannot read the sound {path}: {error}") from None
    if info.frames < 1:
        raise ValueError(f"cannot read the sound {path}: it holds no samples")
    return Header(int(info.frames), int(info.samplerate), int(info.channels))


def resampled_length(samples: int, from_rate: int, to_rate: int) -> int:
    """Return the length of a clip after `read_mono` has resampled it: ⌈samples · to / from⌉."""
    return -(-samples * to_rate // from_rate)


def read_mono(path: Path, sample_rate: int, *, start: int = 0, samples: int | None = None) -> NDArray[np.float32]:
    """Return a file as mono float32 `[T]` in [-1, 1] at `sample_rate` Hz: channels averaged, then resampled (soxr).

    With `start` and `samples`, in samples at that rate, only that part is returned, up to the end of the clip.

    Raises:
        ValueError: the file is damaged, shorter than its header says, or holds NaN or infinity; the message names it.
    """
    soundfile = _soundfile()
    header = read_header(path)
    try:
        if header.sample_rate == sample_rate and path.suffix.lower() in SEEKABLE:
            # This needs no librosa and reads only a part of the file.
            begin = min(start, header.samples)
            count = header.samples - begin if samples is None else min(samples, header.samples - begin)
            sound, _ = soundfile.read(str(path), start=begin, frames=count, dtype="float32", always_2d=True)
            expected, start, samples = count, 0, None
        else:
            sound, _ = soundfile.read(str(path), dtype="float32", always_2d=True)
            expected = header.samples
    except (soundfile.LibsndfileError, RuntimeError, OSError) as error:
        raise ValueError(f"cannot read the sound {path}: {error}") from None
    slack = MP3_SLACK if path.suffix.lower() == ".mp3" else 0
    if len(sound) < expected - slack:
        raise ValueError(f"cannot read the sound {path}: expected {expected} samples, found {len(sound)}")
    mono: NDArray[np.float32] = sound.mean(axis=1, dtype=np.float32)
    if not np.isfinite(mono).all():
        raise ValueError(f"cannot read the sound {path}: it holds NaN or infinity")
    if header.sample_rate != sample_rate:
        mono = _resample(mono, header.sample_rate, sample_rate)
    return mono[start : None if samples is None else start + samples]


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
