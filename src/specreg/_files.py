"""Files that are whole or not there and that others may read, and errors that name the file."""

from __future__ import annotations

import codecs
import hashlib
import io
import json
import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from torch import Tensor


class WriteError(OSError):
    """A file or folder that cannot be written: which, why, and what to do about it, in one sentence."""


def refuse_irregular(path: Path) -> None:
    """Raise OSError unless a path leads to a file that has an end: devices and pipes have none, or never begin."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError("expected a file; it is a folder, a device or a pipe")


def read_regular(path: Path, *, most: int) -> bytes:
    """Return the bytes of a file of at most `most`. Raises OSError, for other files too."""
    refuse_irregular(path)
    with path.open("rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise OSError(f"expected at most {most:,} bytes; got {path.stat().st_size:,}")
    return content


def refuse_no_file(path: Path, *, where: str) -> None:
    """Raise ValueError unless a file can be written to `path`; `where` names the option that said so."""
    special = any(path.absolute().is_relative_to(home) for home in ("/dev", "/proc"))  # links to files among them
    if special or (path.exists() and not path.is_file()):
        what = "a folder" if path.is_dir() else "a device or a pipe"
        raise ValueError(f"{where}: expected a file to write to; {path} is {what}")
    refuse_no_folder(path.parent, where=where)


def refuse_no_folder(path: Path, *, where: str) -> None:
    """Raise ValueError unless files can be written to the folder `path`, which need not exist; `where` as above."""
    there = next((each for each in (path, *path.parents) if each.exists() or each.is_symlink()), Path())
    if not there.is_dir():
        what = "is a file" if there.exists() else "is a link to nothing"
        raise ValueError(f"{where}: expected a folder to write to; {there} {what}")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ValueError(f"{where}: expected a folder that may be written to; {there} may not")


def is_run_folder(path: Path) -> bool:
    """Return whether a path is a run's folder: a config with a log, checkpoints or samples beside it.

    The config alone is not enough: before `sampled-from.yaml`, folders of drawn samples had a config.yaml too.
    """
    beside = ("metrics.jsonl", "checkpoints", "samples")
    return (path / "config.yaml").is_file() and any((path / name).exists() for name in beside)


def first_entry(folder: Path) -> Path | None:
    """Return the first file or folder in a folder, hidden ones aside; None where it is empty or not there."""
    return min((p for p in folder.iterdir() if not p.name.startswith(".")), default=None) if folder.is_dir() else None


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
    # Windows flushes only files that are open for writing, and a folder cannot be opened so.
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 to a file that is whole or not there. Raises WriteError."""
    with whole(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_safetensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write contiguous tensors as safetensors, with the access rights of any new file (the umask's).

    safetensors' own writer renames a private temporary file, mode 0600, over `path`.
    """
    from safetensors.torch import save_file

    path.touch()
    usual = path.stat().st_mode
    save_file(dict(tensors), path, metadata=dict(metadata))
    path.chmod(usual)


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON, as `write_text` does; file names that are not UTF-8 are escaped."""
    text = json.dumps(value, indent=1, ensure_ascii=False)
    if any("\ud800" <= character <= "\udfff" for character in text):
        text = json.dumps(value, indent=1)
    write_text(path, text)


def read_json(path: Path) -> Any:
    """Read JSON; a ValueError names the file when it is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: cannot be read as JSON ({said(error)})") from None


_TITLE = re.compile(rb"<title[^>]*>(.*?)</title>", re.IGNORECASE | re.DOTALL)


def mistaken_for_data(path: Path) -> str | None:
    """Return what a file is that is only text where data were expected, to follow "it"; None for anything else.

    Downloads that failed are such files: pointers of Git LFS, web pages, a server's message.
    """
    with path.open("rb") as file:
        head = file.read(4096)
    if not head:
        return "is empty; copy or download it again"
    if head.startswith(b"version https://git-lfs"):
        size = re.search(rb"^size (\d+)", head, re.MULTILINE)
        whole = f"the {int(size[1]):,} bytes" if size else "the file"
        return f'is a Git LFS pointer to {whole} that belong here; run "git lfs pull", or download the file itself'
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype html", b"<html")):
        title = _TITLE.search(head)
        said = f" ({_printable(title[1])})" if title else ""
        return f"is a web page{said}; download the file itself, from the link that a browser saves"
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head)  # the last character may be cut
    except UnicodeDecodeError:
        return None
    if all(c.isprintable() or c in "\t\r\n\ufeff" for c in text):
        return f"is text that begins with {_printable(head)}; download the file again"
    return None


def _printable(text: bytes) -> str:
    """Return the start of some text on one line, in quotes."""
    line = " ".join(text.decode("utf-8", errors="replace").split())
    return repr("".join(c for c in line if c.isprintable())[:60])


def array_fault(path: Path, error: Exception) -> str:
    """Return why NumPy could not read an array file, without its advice to switch safety off."""
    found = mistaken_for_data(path) if path.is_file() else None
    if found is not None:
        return f"it {found}"
    if "pickle" in str(error) or "Python objects" in str(error):
        with path.open("rb") as file:
            head = file.read(8)
        if head.startswith((b"CDF", b"\x89HDF")):
            return "expected .npy or .npz; it is NetCDF or HDF5"
        if not head.startswith((b"\x93NUMPY", b"PK", b"\x80")):
            return "expected .npy or .npz; it is something else, or damaged"
        return "it holds Python objects, or is damaged"
    return said(error)


def said(error: BaseException) -> str:
    """Return what an exception says, on one line of at most 500 characters, without addresses of Python's objects.

    Libraries quote the bytes that they could not read, and the operating system the path.
    """
    words = str(getattr(error, "strerror", None) or error)
    text = re.sub(r"<[^<>]*(?:\bat 0x|ZipExtFile|BytesIO)[^<>]*>", "its content", words)
    line = " ".join(text.split()) or type(error).__name__
    return line if len(line) <= 500 else f"{line[:250]}…{line[-250:]}"
