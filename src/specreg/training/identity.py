"""The files that a run is made of, known by their content, not by the name or directory they were given under."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from specreg import _checks, modalities
from specreg.config import Config, ConfigError
from specreg.training import checkpoint
from specreg.training.checkpoint import Source

BLOCK = 1 << 20
BLOCKS = 64
"""Of a large file that is no zip, this number of blocks of `BLOCK` bytes is read, evenly spread."""


def sources_of(config: Config) -> dict[str, Source]:
    """Return the files and folders that a run's training depends on, by the names of their fields."""
    return {
        key: Source(str(value.resolve()), content_of(value))
        for key, value in _flat(config.model_dump(exclude=_aside(config))).items()
        if isinstance(value, Path)
    }


def content_of(path: Path) -> str | None:
    """Return a SHA-256 of what lies at a path, None where there is nothing.

    Of a folder it is that of the names and sizes of its files, of a zip (.npz and .pt too) that of the names, sizes and
    checksums of its members, of another file that of its size and bytes, of large ones a sample.
    """
    if not path.exists():
        return None
    if path.is_dir():
        files = (file for file in path.rglob("*") if file.is_file() and not file.name.startswith("."))
        return _digest(sorted([file.relative_to(path).as_posix(), file.stat().st_size] for file in files))
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return _digest(sorted([info.filename, info.file_size, info.CRC] for info in archive.infolist()))
    digest = hashlib.sha256()
    for block in _blocks(path):
        digest.update(block)
    return _digest([path.stat().st_size, digest.hexdigest()])


def refuse_other_run(folder: Path, config: Config, *, of: str | None = None) -> None:
    """Raise ConfigError if a folder has a run that differs from `config` in anything that training depends on.

    The message proposes a name beside `of`, that of the folder where it is None. Files and folders are compared by
    content where a checkpoint knows it: the same data may be named otherwise, or have moved.
    """
    path, found = folder / "config.yaml", checkpoint.latest(folder / "checkpoints")
    if not path.exists():
        return
    saved, aside = modalities.load(path), _aside(config)
    old, new = (_flat(c.model_dump(exclude=aside)) for c in (saved, config))
    known = _known(found)
    now = sources_of(config)
    for key in sorted(old.keys() | new.keys()):
        if key in now and isinstance(old.get(key), Path):
            # Runs of versions that did not keep their sources are known by place alone.
            before = known.get(key, Source(str(old[key].resolve()), None))
            if before.same(now[key]):
                continue
            problem = f"with {key} = {_checks.quoted(before.path)}, whose content was another"
        elif old.get(key) == new.get(key):
            continue
        else:
            problem = f"with {key} = {_checks.quoted(old.get(key))}"
        raise ConfigError(
            f"{path}: this folder holds a run {problem}; got {_checks.quoted(new.get(key))}. "
            f"Choose another name for the new run, such as name={of or folder.name}-2"
        )


def _known(found: Path | None) -> dict[str, Source]:
    """Return the sources that a checkpoint knows; none where there is no checkpoint, or a damaged one."""
    try:
        return checkpoint.sources(checkpoint.load_state(found)) if found else {}
    except checkpoint.CheckpointError:
        return {}  # the trainer sets it aside and says so


def _aside(config: Config) -> Any:
    """Return the fields that a resumed run may change: training up to its last step does not depend on them."""
    training = {"keep", "log_every", "checkpoint_every", "workers", "compile"}
    if config.training.decay == "constant" and not (config.spectral and config.spectral.cooldown):
        training.add("steps")
    whole: Any = dict.fromkeys(("name", "title", "arms", "sampling", "metrics"), True)
    return {**whole, "data": {"test_path", "cache"}, "training": training}


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the leaves of a tree by their keys with dots between."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return found


def _blocks(path: Path) -> Iterator[bytes]:
    size = path.stat().st_size
    count = min(BLOCKS, -(-size // BLOCK))
    with path.open("rb") as file:
        for i in range(count):
            file.seek(i * BLOCK if size <= BLOCKS * BLOCK else i * (size - BLOCK) // (count - 1))
            yield file.read(BLOCK)


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()
