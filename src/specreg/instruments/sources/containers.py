"""Files of a folder, a zip or a tar: listed once, read by name; a copy in another process opens the archive anew."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO

from specreg._files import mistaken_for_data
from specreg.data.files import MAX_BYTES, posix_name
from specreg.data.folders import list_files

ZIPS = (".zip", ".pk3")
TARS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
_UNPACK: dict[bytes, Callable[[Path], Any]] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}
# What the readers of archives raise for damaged bytes.
FAULTS = (
    OSError, EOFError, zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, NotImplementedError,
    RuntimeError, UnicodeDecodeError,
)  # fmt: skip


class Container:
    """Files by POSIX path relative to the root, hidden ones left out.

    `names` are sorted by code point, except in a compressed tar: there they are in the order of the archive, which is
    the order that reads quickly.
    """

    names: tuple[str, ...]

    def __init__(self, path: Path) -> None:
        self.path = path
        self._handle: Any = None
        self._pid = 0

    def open(self, name: str) -> BinaryIO:
        """Return an open file; raises ValueError that names it."""
        with self._naming(name):
            return self._open(name)

    def read(self, name: str) -> bytes:
        """Return the bytes of a file; raises ValueError that names it, also where it unpacks to more than 1 GiB."""
        with self._naming(name), self._open(name) as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise ValueError(f"{name} in {self.path}: it unpacks to more than {MAX_BYTES} bytes")
        return data

    @contextmanager
    def on_disk(self, name: str) -> Iterator[Path]:
        """Yield a path of a file for readers that take nothing else: unpacked from an archive while this lasts."""
        with TemporaryDirectory(prefix="specreg-") as folder:
            path = Path(folder) / f"unpacked{PurePosixPath(name).suffix}"
            path.write_bytes(self.read(name))
            yield path

    def length(self, name: str) -> int:
        """Return the number of bytes of a file, unpacked, as the file system or the archive's index has it."""
        raise NotImplementedError

    def _open(self, name: str) -> BinaryIO:
        raise NotImplementedError

    @contextmanager
    def _naming(self, name: str) -> Iterator[None]:
        try:
            yield
        except FAULTS as error:
            why = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise ValueError(f"cannot read {name} in {self.path}: {why}") from None

    def _opened(self, opener: Callable[[], Any]) -> Any:
        if self._handle is None or self._pid != os.getpid():  # a forked handle shares its position in the file
            self._handle, self._pid = opener(), os.getpid()
        return self._handle

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_handle": None}


class Folder(Container):
    """Files of a folder, its subfolders and the folders that links in it lead to."""

    def __init__(self, path: Path, names: tuple[str, ...] | None = None) -> None:
        """List a folder; or take `names` in it as they are."""
        super().__init__(path)
        self.names = tuple(name for name in list_files(path) if not _is_hidden(name)) if names is None else names

    def length(self, name: str) -> int:
        """Return the number of bytes of a file."""
        return (self.path / name).stat().st_size

    def _open(self, name: str) -> BinaryIO:
        return (self.path / name).open("rb")

    @contextmanager
    def on_disk(self, name: str) -> Iterator[Path]:
        """Yield the path of a file."""
        yield self.path / name


class Zip(Container):
    """Files of a zip or pk3."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        try:
            self._infos: dict[str, zipfile.ZipInfo] = {}
            self.names = tuple(sorted(name for name in self._index() if not _is_hidden(name)))
        except FAULTS as error:
            raise ValueError(f"{path}: cannot be read as a zip: {_why(path, error)}") from None

    def _index(self) -> dict[str, zipfile.ZipInfo]:
        archive = self._opened(lambda: zipfile.ZipFile(self.path))
        if not self._infos:
            files = (info for info in archive.infolist() if not info.filename.endswith(("/", "\\")))
            self._infos = {posix_name(info.filename): info for info in files}
        return self._infos

    def length(self, name: str) -> int:
        """Return the number of bytes of a file, unpacked."""
        return self._index()[name].file_size

    def _open(self, name: str) -> BinaryIO:
        info = self._index()[name]
        if info.file_size > MAX_BYTES and not name.endswith((".npy", ".npz")):  # arrays are read by the row
            raise ValueError(f"{name} in {self.path}: it unpacks to {info.file_size} bytes, more than {MAX_BYTES}")
        file: BinaryIO = self._handle.open(info)
        return file

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_infos": {}}


class Tar(Container):
    """Files of a tar, also compressed by gzip, bzip2 or xz: their places are listed in one pass, then read by offset.

    A compressed tar is a stream: reading forward unpacks what lies between, reading backward starts again.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        with path.open("rb") as file:
            magic = file.read(6)
        self._unpack = next((unpack for start, unpack in _UNPACK.items() if magic.startswith(start)), None)
        try:
            with self._stream() as stream, tarfile.open(fileobj=stream, mode="r:") as archive:
                places = {
                    posix_name(m.name): (m.offset_data, m.size) for m in archive if m.isreg() and not m.issparse()
                }
                end = archive.fileobj.tell() if archive.fileobj else 0
        except FAULTS as error:
            raise ValueError(f"{path}: cannot be read as a tar: {_why(path, error)}") from None
        if not self._unpack and end > path.stat().st_size:
            raise ValueError(f"{path}: cannot be read as a tar: it is cut short")
        self._places = {name: place for name, place in places.items() if not _is_hidden(name)}
        self.names = tuple(self._places) if self._unpack else tuple(sorted(self._places))

    def _stream(self) -> Any:
        return self._unpack(self.path) if self._unpack else self.path.open("rb")

    def length(self, name: str) -> int:
        """Return the number of bytes of a file."""
        return self._places[name][1]

    def _open(self, name: str) -> BinaryIO:
        offset, size = self._places[name]
        if size > MAX_BYTES:
            raise ValueError(f"{name} in {self.path}: it has {size} bytes, more than {MAX_BYTES}")
        stream = self._opened(self._stream)
        stream.seek(offset)
        data = stream.read(size)
        if len(data) < size:
            raise EOFError(f"the archive is cut short: expected {size} bytes, found {len(data)}")
        return io.BytesIO(data)


def open_container(path: Path) -> Container | None:
    """Return the files of a folder, zip or tar, by the name's ending; None for another path."""
    if path.is_dir():
        return Folder(path)
    if path.name.lower().endswith(ZIPS):
        return Zip(path)
    return Tar(path) if path.name.lower().endswith(TARS) else None


def ending(name: str) -> str:
    """Return the ending of a file's name, in lower case, with its dot."""
    return PurePosixPath(name).suffix.lower()


def keys_of(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return names for pairing: without the folder that all are in, and without endings where they stay unique.

    So a zip pairs with the folder that it was made of, and pictures in PNG pair with the same pictures in JPEG.
    """
    folders = [PurePosixPath(name).parent.parts for name in names]
    levels = enumerate(zip(*folders, strict=False))
    common = next((k for k, level in levels if len(set(level)) > 1), min(map(len, folders), default=0))
    inner = ["/".join(PurePosixPath(name).parts[common:]) for name in names]
    bare = [str(PurePosixPath(name).with_suffix("")) for name in inner]
    return tuple(bare if len(set(bare)) == len(bare) else inner)


def pick(key: str | None, there: Sequence[str], usual: Sequence[str], where: str) -> str:
    """Return which of several arrays is meant: the named one, the only one, or the first with a usual name."""
    if key is None:
        key = there[0] if len(there) == 1 else next((name for name in usual if name in there), None)
        if key is None:
            raise ValueError(
                f"{where}: expected one array; it holds {', '.join(there) or 'none'}; name one after a colon"
            )
    if key not in there:
        raise ValueError(f"{where}: no array {key!r}; it holds {', '.join(there) or 'none'}")
    return key


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in PurePosixPath(name).parts)


def _why(path: Path, error: Exception) -> str:
    found = mistaken_for_data(path)
    return f"it {found}" if found else str(error) or type(error).__name__
