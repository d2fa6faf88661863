"""From a path, as a user writes it, to the source that reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from specreg._checks import choice
from specreg._files import is_run_folder
from specreg.data import audio_listing, files
from specreg.instruments.sources import fields, videos
from specreg.instruments.sources.arrays import SUFFIXES as ARRAYS
from specreg.instruments.sources.arrays import Arrays
from specreg.instruments.sources.containers import Container, Folder, OneFile, ending, open_container
from specreg.instruments.sources.fields import Fields, FieldsInMemory, is_xarray, is_zarr
from specreg.instruments.sources.pictures import Pictures
from specreg.instruments.sources.records import Records
from specreg.instruments.sources.samples import Samples, Tile
from specreg.instruments.sources.sounds import SEGMENT, Sounds
from specreg.instruments.sources.values import Channels
from specreg.instruments.sources.videos import Videos

_KINDS = {
    "pictures": files.SUFFIXES,
    "sounds": audio_listing.SUFFIXES,
    "arrays": ARRAYS,
    "videos": videos.SUFFIXES,
    "fields": fields.SUFFIXES,
}
_EXPECTED = (
    "a folder, zip or tar of pictures, sounds, videos or arrays; a picture, sound or video; .npy, .npz or safetensors; "
    "NetCDF or Zarr; or a run folder"
)


def open_source(
    path: str | Any,
    *,
    tile: Tile | None = None,
    segment: int | None = None,
    channels: Channels = "all",
    variable: str | None = None,
    limit: int | None = None,
) -> Samples:
    """Return the samples that a path holds; nothing but headers and the first sample is read where that is possible.

    Integers of 8 and 16 bits become [-1, 1], sound is in [-1, 1], floats and fields keep their values.

    Args:
        path: a folder, zip or tar of pictures, sounds, videos or arrays; one file of these; .npy, .npz or safetensors
            (`file.npz:name`, and axes where they are not clear: `file.npy:bhwc`, `file.npz:name:bhwc`); NetCDF or Zarr
            (`file.nc:variable`, or `file.nc:u,v` as two channels); a run folder, whose samples are read; or an xarray
            Dataset or DataArray, read as its file would be.
        tile: sides of the tiles that pictures, fields and volumes are cut into, one number or one for each axis.
        segment: length of the segments that sounds and other samples of one axis are cut into; 4096 for sound files.
        channels: "all"; "luma", which also reads grey and colour pictures as one set; or "luma-chroma".
        variable: what follows the colon.
        limit: largest number of samples, evenly spaced through the set.

    Raises:
        FileNotFoundError: there is no such path.
        ValueError: the path holds nothing that is read, several kinds of files, or files that are damaged or that do
            not make samples of one shape; the message names a file, what was expected and what came.
        ImportError: an extra is not installed; the message names it.
    """
    choice("channels", channels, ("all", "luma", "luma-chroma"))
    if is_xarray(path):
        records: Records = FieldsInMemory(path, variable)
        name = path = records.where
    else:
        where, selector = _split(path, variable)
        records = _records(where, selector, tiled=tile is not None)
        name = f"{where.name or where.resolve().name}{f':{selector}' if selector else ''}"
    if records.space == 1 and tile is not None:
        raise ValueError(f"{path} has samples of one axis: tile cuts pictures, fields and volumes; use segment")
    if records.space > 1 and segment is not None:
        raise ValueError(f"{path} has samples of {records.space} axes: segment cuts samples of one axis; use tile")
    if isinstance(records, Sounds) and segment is None:
        segment = SEGMENT
    return Samples(records, name, tile=segment if tile is None else tile, channels=channels, limit=limit)


def _split(path: str, variable: str | None) -> tuple[Path, str | None]:
    """Return the path on disk and what follows its colon; raises FileNotFoundError where nothing is there."""
    on_disk, selector = path, ""
    while not Path(on_disk).exists() and ":" in on_disk:
        on_disk, _, last = on_disk.rpartition(":")
        selector = f"{last}:{selector}" if selector else last
    if not on_disk or not Path(on_disk).exists():
        raise FileNotFoundError(f"no such file or folder: {path}")
    if variable and selector and variable != selector:
        raise ValueError(f"{path} names {selector!r}, and the variable is {variable!r}: name it once")
    return Path(on_disk), variable or selector or None


def _records(path: Path, selector: str | None, *, tiled: bool) -> Records:
    if path.is_dir() and is_zarr(path):
        return Fields(path, selector)
    if path.is_dir() and (path / "comparison.json").is_file():
        raise ValueError(f"{path} is a comparison: name one of its runs, such as {path / _a_run(path)}")
    if is_run_folder(path):
        return _of_run(path, selector)
    container = open_container(path)
    if container is not None:
        return _of_files(container, container.names, selector, tiled=tiled)
    kind = _kind_of(path.name)
    if kind is None:
        raise ValueError(f"{path}: expected {_EXPECTED}; its ending, {path.suffix or 'none'}, is of none of them")
    if kind == "fields":
        return Fields(path, selector)
    return _of_files(OneFile(path), (path.name,), selector, tiled=tiled)


def _of_files(container: Container, names: tuple[str, ...], selector: str | None, *, tiled: bool) -> Records:
    """Return the records of files that are all of one kind, files of no known kind aside."""
    by_kind = {kind: tuple(name for name in names if ending(name) in endings) for kind, endings in _KINDS.items()}
    found = {kind: there for kind, there in by_kind.items() if there}
    if not found:
        unread = [name for name in names if ending(name) in files.NOT_READ | audio_listing.NOT_READ]
        but = f"; {len(unread)} are in formats that are not read, such as {unread[0]}" if unread else ""
        raise ValueError(f"{container.path}: expected {_EXPECTED}; none of its {len(names)} files is read{but}")
    if len(found) > 1:
        counts = " and ".join(f"{len(there)} {kind} ({there[0]})" for kind, there in found.items())
        raise ValueError(f"{container.path}: expected files of one kind; it holds {counts}")
    kind, there = next(iter(found.items()))
    if selector and kind != "arrays":
        raise ValueError(f"{container.path} holds {kind}, which have no variables; got {selector!r}")
    match kind:
        case "pictures":
            return Pictures(container, there, _not_read(names, files.NOT_READ))
        case "sounds":
            return Sounds(container, there, _not_read(names, audio_listing.NOT_READ))
        case "videos":
            return Videos(container, there)
        case "arrays":
            return Arrays(container, there, selector, tiled=tiled)
    raise ValueError(f"{container.path}: expected one NetCDF or Zarr; name a file in it, such as {there[0]}")


def _of_run(path: Path, selector: str | None) -> Records:
    """Return the samples of a run: samples.npy, or its clips; see `specreg.report.schema`."""
    samples = path / "samples"
    if (samples / "samples.npy").is_file():
        return Arrays(OneFile(samples / "samples.npy"), ("samples.npy",), selector, tiled=False)
    folder = Folder(samples) if samples.is_dir() else None
    clips = tuple(name for name in folder.names if ending(name) == ".wav") if folder else ()
    if folder is None or not clips:
        raise ValueError(f"{path} is a run without samples: expected samples/samples.npy or samples/*.wav")
    return Sounds(folder, clips)


def _a_run(path: Path) -> str:
    return next((p.parent.name for p in sorted(path.glob("*/config.yaml"))), "ARM-seed0")


def _kind_of(name: str) -> str | None:
    return next((kind for kind, endings in _KINDS.items() if ending(name) in endings), None)


def _not_read(names: tuple[str, ...], endings: frozenset[str]) -> tuple[str, ...]:
    return tuple(name for name in names if ending(name) in endings)
