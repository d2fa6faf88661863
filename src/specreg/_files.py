"""Files that are whole or not there, and errors that name the file."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO


class WriteError(OSError):
    """A file or folder that cannot be written: which, why, and what to do about it, in one sentence."""


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an OSError inside the block into a WriteError that names `path`."""
    try:
        yield
    except WriteError:
        raise
    except OSError as error:
        raise WriteError(f"{path}: cannot be written ({error.strerror or error})") from error


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Yield a path beside `path` to write to; it becomes `path` at the end of the block, and is removed on an error.

    A reader never sees half a file, whatever becomes of this process or of the machine; several processes may write one
    file at the same time. Raises WriteError.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield partial
            sync(partial)
            partial.replace(path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Yield a file to write to, which becomes `path` as `whole` does. Raises WriteError, whatever a library raises."""
    with whole(path) as partial, create(partial) as file:
        yield file


@contextmanager
def create(path: Path) -> Iterator[BinaryIO]:
    """Yield a new file; what the system says of a failed write is raised, also where a library (torch) hides it."""
    raw = _Noting(path, "wb")
    with io.BufferedWriter(raw) as file:
        try:
            yield file
        except Exception as error:
            if raw.problem is None:
                raise
            raise raw.problem from error


class _Noting(io.FileIO):
    """A file that keeps the error of a write."""

    problem: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            self.problem = error
            raise


def sync(path: Path) -> None:
    """Have the system write a file, or the names in a folder, to the disk."""
    if os.name == "nt" and path.is_dir():
        return  # Windows has no handles of folders
    handle = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 to a file that is whole or not there. Raises WriteError."""
    with whole(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON, as `write_text` does."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False))


def read_json(path: Path) -> Any:
    """Read JSON; a ValueError names the file when it is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: cannot be read as JSON ({error})") from None
