"""Files of a folder, a zip or a tar: listed once, read by name in one thread; a copy opens the archive anew."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import tarfile
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO

from specreg._files import mistaken_for_data, said
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


class Container(ABC):
    """Files by POSIX path relative to the root, hidden ones left out.

    `names` are sorted by code point, except in a compressed tar: there they are in the order of the archive, which is
    the order that reads quickly.
    """

    names: tuple[str, ...]

    def __init__(self, path: Path) -> None:
        self.path = path
        self._handle: Any = None
        self._pid = 0

    def at(self, name: str) -> str:
        """Return where a file is, for messages."""
        return f"{name} in {self.path}"

    def mistaken(self, name: str) -> str | None:
        """Return what a file is that is only text where data were expected, as `mistaken_for_data` does."""
        with self._naming(name), self.on_disk(name) as path:
            return mistaken_for_data(path)

    def open(self, name: str) -> BinaryIO:
        """Return an open file; raises ValueError that names it."""
        with self._naming(name):
            return self._open(name)

    def read(self, name: str) -> bytes:
        """Return the bytes of a file; raises ValueError that names it, also where it unpacks to more than 1 GiB."""
        with self._naming(name), self._open(name) as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise ValueError(f"{self.at(name)}: it unpacks to more than {MAX_BYTES} bytes")
        return data

    @contextmanager
    def on_disk(self, name: str) -> Iterator[Path]:
        """Yield a path of a file for readers that take nothing else: unpacked from an archive while this lasts."""
        with TemporaryDirectory(prefix="specreg-") as folder:
            path = Path(folder) / f"unpacked{PurePosixPath(name).suffix}"
            path.write_bytes(self.read(name))
            yield path

    @abstractmethod
    def length(self, name: str) -> int:
        """Return the number of bytes of a file, unpacked, as the file system or the archive's index has it."""

    @abstractmethod
    def _open(self, name: str) -> BinaryIO:
        """Return an open file."""

    @contextmanager
    def _naming(self, name: str) -> Iterator[None]:
        try:
            yield
        except FAULTS as error:
            raise ValueError(f"cannot read {self.at(name)}: {said(error)}") from None

    def _opened(self, opener: Callable[[], Any]) -> Any:
        if self._handle is None or self._pid != os.getpid():  # a forked handle shares its position in the file
            self._handle, self._pid = opener(), os.getpid()
        return self._handle

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_handle": None}


class Folder(Container):
    """Files of a folder, its subfolders and the folders that links in it lead to."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.names = tuple(name for name in list_files(path) if not _is_hidden(name))

    def place(self, name: str) -> Path:
        """Return the path of a file."""
        return self.path / name

    def length(self, name: str) -> int:
        """Return the number of bytes of a file."""
        return self.place(name).stat().st_size

    def _open(self, name: str) -> BinaryIO:
        return self.place(name).open("rb")

    @contextmanager
    def on_disk(self, name: str) -> Iterator[Path]:
        """Yield the path of a file."""
        yield self.place(name)


class OneFile(Folder):
    """A single file."""

    def __init__(self, path: Path) -> None:
        Container.__init__(self, path)
        self.names = (path.name,)

    def at(self, name: str) -> str:
        """Return the path."""
        return str(self.path)

    def place(self, name: str) -> Path:
        """Return the path."""
        return self.path


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
            raise ValueError(f"{self.at(name)}: it unpacks to {info.file_size} bytes, more than {MAX_BYTES}")
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
            with self._stream() as stream:
                noting = _Noting(stream)
                with tarfile.open(fileobj=noting, mode="r:") as archive:  # type: ignore[call-overload]
                    members = archive.getmembers()
        except FAULTS as error:
            raise ValueError(f"{path}: cannot be read as a tar: {_why(path, error)}") from None
        if len(noting.last) < tarfile.BLOCKSIZE or any(noting.last):  # tarfile takes any other block for the end too
            last = f"after {members[-1].name}" if members else "at its start"
            raise ValueError(f"{path}: cannot be read as a tar: it is cut short or damaged {last}")
        places = _places(members)
        self._places = {name: place for name, place in places.items() if not _is_hidden(name)}
        self.names = tuple(self._places) if self._unpack else tuple(sorted(self._places))

    def _stream(self) -> Any:
        return self._unpack(self.path) if self._unpack else self.path.open("rb")

    def length(self, name: str) -> int:
        """Return the number of bytes of a file."""
        with self._naming(name):
            return self._place(name)[1]

    def _open(self, name: str) -> BinaryIO:
        offset, size = self._place(name)
        if size > MAX_BYTES:
            raise ValueError(f"{self.at(name)}: it has {size} bytes, more than {MAX_BYTES}")
        stream = self._opened(self._stream)
        stream.seek(offset)
        data = stream.read(size)
        if len(data) < size:
            raise EOFError(f"the archive is cut short: expected {size} bytes, found {len(data)}")
        return io.BytesIO(data)

    def _place(self, name: str) -> tuple[int, int]:
        place = self._places[name]
        if isinstance(place, str):
            raise FileNotFoundError(place)
        return place


def _places(members: list[tarfile.TarInfo]) -> dict[str, tuple[int, int] | str]:
    """Return offset and size of the files of a tar, or why one cannot be read; links to files are files."""
    places: dict[str, tuple[int, int] | str] = {}
    links = {}
    for member in members:
        name = posix_name(member.name)
        if member.issparse():
            places[name] = "it is stored as a sparse file; pack it again without --sparse"
        elif member.isreg():
            places[name] = member.offset_data, member.size
        elif member.islnk() or member.issym():
            start = PurePosixPath(name).parent if member.issym() else PurePosixPath()
            links[name] = os.path.normpath(start / posix_name(member.linkname))
    for name, target in links.items():
        seen = {name}
        while target in links and target not in seen:  # a link to a link
            seen.add(target)
            target = links[target]
        if target in places or PurePosixPath(name).suffix:  # others are links to folders
            places[name] = places.get(target, f"it is a link to {target}, which is not in the archive")
    return places


class _Noting:
    """A stream that keeps what was read last: a whole tar ends in a block of zeros."""

    def __init__(self, stream: Any) -> None:
        self._stream, self.last = stream, b""
        self.seek, self.tell = stream.seek, stream.tell

    def read(self, size: int = -1) -> bytes:
        """Return bytes from the stream, as it does."""
        self.last = self._stream.read(size)
        return self.last


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
    return f"it {found}" if found else said(error)
