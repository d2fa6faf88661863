"""Which sound files a folder holds, by its tree or by LJSpeech's metadata.csv, and which of them are held out."""

from __future__ import annotations

import codecs
import hashlib
import re
import unicodedata
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple

from specreg.data.folders import list_files

SUFFIXES = frozenset((".flac", ".mp3", ".ogg", ".wav"))
# Sounds that are not read: named, so that a folder of them is not smaller than it looks without a word.
NOT_READ = frozenset(
    (
        *(".aac", ".aif", ".aifc", ".aiff", ".amr", ".ape", ".au", ".caf", ".m4a"),
        *(".mka", ".mp4", ".oga", ".opus", ".sph", ".w64", ".webm", ".wma", ".wv"),
    )
)
LJSPEECH_HELD_OUT = ("LJ001-*", "LJ002-*")

Part = Literal["all", "train", "held_out"]


class Listing(NamedTuple):
    """The sound files of a folder."""

    names: tuple[str, ...]  # POSIX paths relative to the folder, sorted
    is_ljspeech: bool  # a metadata.csv beside wavs/, and clips that LJSPEECH_HELD_OUT names
    absent: tuple[str, ...]  # listed in metadata.csv, not on disk
    unlisted: tuple[str, ...]  # in wavs/, not in metadata.csv
    not_read: tuple[str, ...] = ()  # sounds in formats that are not read


def list_audio(folder: Path) -> Listing:
    """Return the sound files of a folder (with its subfolders and links), or those that LJSpeech's metadata.csv lists.

    An id in metadata.csv, the text before the first "|", names a file of wavs/: with or without "wavs/", with or
    without an ending, in any Unicode form. The other columns are not read.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: no sound file in it, none that metadata.csv lists, or a metadata.csv that cannot be read.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"no such folder: {folder}")
    metadata, wavs = folder / "metadata.csv", folder / "wavs"
    has_table = metadata.is_file() and wavs.is_dir()
    there = [f"wavs/{name}" for name in list_files(wavs)] if has_table else list_files(folder)
    not_read = tuple(name for name in there if _ends_in(NOT_READ, name))
    there = [name for name in there if _ends_in(SUFFIXES, name)]
    if not there:
        but = f"; sounds in formats that are not read: {len(not_read)}, such as {not_read[0]}" if not_read else ""
        raise ValueError(
            f"no sound in {wavs if has_table else folder}: no file there ends in {', '.join(sorted(SUFFIXES))}{but}"
        )
    if not has_table:
        return Listing(tuple(there), False, (), (), not_read)
    ids, table = _ids(metadata), _by_id(there)
    names = {id_: _file_of(id_, table) for id_ in ids}
    listed = {name for name in names.values() if name is not None}
    if not listed:
        first = f"the first is {ids[0][:80]!r}" if ids else "it has no line"
        raise ValueError(
            f"{metadata}: none of its {len(ids)} ids names one of the {len(there)} sounds in {wavs}; {first}, expected "
            f"lines such as '{PurePosixPath(there[0]).stem}|TEXT'"
        )
    absent = sorted(f"wavs/{_without_ending(_key(id_))}.wav" for id_, name in names.items() if name is None)
    is_ljspeech = bool(select(list(listed), "held_out", LJSPEECH_HELD_OUT))
    return Listing(tuple(sorted(listed)), is_ljspeech, tuple(absent), tuple(sorted({*there} - listed)), not_read)


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
    digest = hashlib.sha256(f"{seed}:{name}".encode(errors="surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def _ends_in(suffixes: frozenset[str], name: str) -> bool:
    path = PurePosixPath(name)
    return path.suffix.lower() in suffixes and not any(part.startswith(".") for part in path.parts)


def _ids(metadata: Path) -> list[str]:
    """Return the first column of a metadata.csv: UTF-8, or UTF-16 with a byte order mark.

    The texts beside the ids are not decoded, so that their encoding does not matter.
    """
    data = metadata.read_bytes()
    try:
        if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            data = data.decode("utf-16").encode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{metadata}: expected UTF-8 or whole UTF-16; {error.reason} at byte {error.start}") from None
    ids = []
    for number, line in enumerate(re.split(rb"\r\n|\r|\n", data.removeprefix(codecs.BOM_UTF8)), start=1):
        column = line.partition(b"|")[0].strip()
        try:
            ids += [column.decode()] if column else []
        except UnicodeDecodeError:
            raise ValueError(f"{metadata}, line {number}: expected an id in UTF-8; got {column[:80]!r}") from None
    return ids


def _key(id_: str) -> str:
    """Return an id as a path relative to wavs/, in the composed Unicode form (macOS may store the other one)."""
    path = PurePosixPath(unicodedata.normalize("NFC", id_.replace("\\", "/")))
    return path.relative_to("wavs").as_posix() if path.is_relative_to("wavs") else path.as_posix()


def _by_id(there: Iterable[str]) -> dict[str, str]:
    """Return files of wavs/ by every form of their ids; a wav comes before files with other endings."""
    table: dict[str, str] = {}
    for name in sorted(there, key=lambda name: (not name.lower().endswith(".wav"), name)):
        table.setdefault(_key(name), name)
        table.setdefault(_without_ending(_key(name)), name)
    return table


def _file_of(id_: str, table: dict[str, str]) -> str | None:
    key = _key(id_)
    return table.get(key) or table.get(_without_ending(key))


def _without_ending(key: str) -> str:
    """Return a path without the ending of a sound file; other dots belong to the id."""
    path = PurePosixPath(key)
    return path.with_suffix("").as_posix() if path.suffix.lower() in SUFFIXES else key
