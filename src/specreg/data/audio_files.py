"""Sound files in a folder: listing, headers, and decoding to mono float32 at one rate.

soundfile and librosa are imported on first use, so that importing specreg stays light.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Sequence
from fnmatch import fnmatchcase
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path, PurePosixPath
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from specreg.data.folders import list_files

SUFFIXES = frozenset((".flac", ".mp3", ".ogg", ".wav"))
SEEKABLE = frozenset((".flac", ".wav"))  # a part can be read without decoding what precedes it
MP3_SLACK = 2 * 1152  # samples; the length in an mp3's header may count the encoder's padding
LJSPEECH_HELD_OUT = ("LJ001-*", "LJ002-*")

Part = Literal["all", "train", "held_out"]


class Listing(NamedTuple):
    """The sound files of a folder."""

    names: tuple[str, ...]  # POSIX paths relative to the folder, sorted
    is_ljspeech: bool
    absent: tuple[str, ...]  # listed in metadata.csv, not on disk
    unlisted: tuple[str, ...]  # in wavs/, not in metadata.csv


class Header(NamedTuple):
    """Length, rate and channels from a file's header."""

    samples: int
    sample_rate: int  # Hz
    channels: int


def list_audio(folder: Path) -> Listing:
    """Return the sound files of a folder (with its subfolders and links), or those that LJSpeech's metadata.csv lists.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: no sound file in it.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"no such folder: {folder}")
    metadata, wavs = folder / "metadata.csv", folder / "wavs"
    if metadata.is_file() and wavs.is_dir():
        with metadata.open(encoding="utf-8", newline="") as lines:
            rows = csv.reader(lines, delimiter="|", quoting=csv.QUOTE_NONE)
            listed = {f"wavs/{row[0]}.wav" for row in rows if row and row[0]}
        there = {f"wavs/{name}" for name in list_files(wavs) if name.endswith(".wav")}
        found = Listing(
            tuple(sorted(listed & there)), True, tuple(sorted(listed - there)), tuple(sorted(there - listed))
        )
    else:
        found = Listing(tuple(name for name in list_files(folder) if _is_sound(name)), False, (), ())
    if not found.names:
        raise ValueError(f"no sound in {folder}: no file there ends in {', '.join(sorted(SUFFIXES))}")
    return found


def _is_sound(name: str) -> bool:
    path = PurePosixPath(name)
    return path.suffix.lower() in SUFFIXES and not any(part.startswith(".") for part in path.parts)


def select(names: Sequence[str], part: Part, held_out: Sequence[str] | float, *, seed: int = 0) -> tuple[str, ...]:
    """Return the names of one part, in order; which part a clip is in does not depend on the other clips.

    Args:
        names: paths of clips.
        part: "train", "held_out" or "all".
        held_out: shell patterns of the file names without folder and ending, such as "LJ001-*"; or a fraction, drawn
            by a hash of (seed, name).
        seed: seed of that hash.
    """
    if part == "all":
        return tuple(names)
    if isinstance(held_out, float):
        out = {name for name in names if _share(seed, name) < held_out}
    else:
        out = {name for name in names if any(fnmatchcase(Path(name).stem, pattern) for pattern in held_out)}
    return tuple(name for name in names if (name in out) == (part == "held_out"))


def _share(seed: int, name: str) -> float:
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


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
