"""Image files in a folder, zip or pk3: listing in a fixed order, and decoding to 8-bit pixels.

Pillow is imported on first use, so that importing specreg stays light.
"""

from __future__ import annotations

import io
import lzma
import os
import struct
import warnings
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from specreg._files import refuse_irregular, said
from specreg.data.folders import list_files

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = frozenset(
    (".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tga", ".tif", ".tiff", ".webp")
)
# Pictures that are not read: named, so that a folder of them is not smaller than it looks without a word.
NOT_READ = frozenset(
    (
        *(".arw", ".avif", ".cr2", ".cr3", ".dds", ".dng", ".exr", ".hdr", ".heic", ".heif", ".hif", ".j2k", ".jp2"),
        *(".jxl", ".nef", ".orf", ".psd", ".raf", ".rw2", ".svg", ".xcf"),
    )
)
# Only these decoders are tried, whatever a file's name: some others start external programs (EPS).
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "PPM", "TIFF", "WEBP", "TGA")
MAX_BYTES = 1 << 30
SMALL = 1 << 26
"""Bytes up to which a file is read as a whole."""

# What zipfile and its decompressors raise for archives that are damaged, encrypted or of other kinds.
_DAMAGE = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, ValueError, RuntimeError, LookupError,
    OverflowError, struct.error,
)  # fmt: skip


class ImageFiles:
    """Image files of a folder (with its subfolders and links to folders), a zip or a pk3 (which is a zip).

    `names` are POSIX paths relative to the root, sorted by code point; hidden files are left out. `not_read` are
    those of pictures in formats that are not read, such as HEIC. Each process opens
    an archive by itself, so the object can be pickled and forked.

    Raises FileNotFoundError for a missing path, ValueError for a file that is no archive and where there is no image.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._handle: zipfile.ZipFile | None = None
        self._infos: dict[str, zipfile.ZipInfo] = {}  # by POSIX path, of the open archive
        self._pid = 0
        if not self.path.exists():
            raise FileNotFoundError(f"no such file or folder: {self.path}")
        if self.path.is_dir():
            found = list_files(self.path)
        elif self.path.is_file() and zipfile.is_zipfile(self.path):
            found = list(self._members())
        else:
            raise ValueError(f"expected a folder, zip or pk3 of images; {self.path} is none of them")
        self.names, self.not_read = (_ending_in(suffixes, found) for suffixes in (SUFFIXES, NOT_READ))
        if not self.names:
            but = f"; {self.left_out()}" if self.not_read else ""
            raise ValueError(f"no image in {self.path}: none of its {len(found)} files ends in {_endings()}{but}")

    def left_out(self) -> str:
        """Return a sentence about the pictures in formats that are not read."""
        endings = Counter(PurePosixPath(name).suffix.lower() for name in self.not_read)
        counts = ", ".join(f"{count} {ending}" for ending, count in sorted(endings.items()))
        return f"pictures in formats that are not read: {counts}; convert them to PNG or JPEG"

    def read(self, name: str, *, most: int = MAX_BYTES) -> bytes:
        """Return the bytes of one file of at most `most`.

        Raises FileNotFoundError where it is missing, ValueError that names it where it cannot be read.
        """
        try:
            size = self._size(name)
            if size > most:
                raise ValueError(f"expected at most {most:,} bytes; got {size:,}")
            with self._opened(name) as file:
                return file.read(most)
        except FileNotFoundError:
            raise
        except _DAMAGE as error:
            raise ValueError(f"cannot read {name} in {self.path}: {said(error)}") from error

    def _size(self, name: str) -> int:
        """Return the bytes of a file, in an archive what it says that it unpacks to."""
        if self.path.is_dir():
            refuse_irregular(self.path / name)
            return (self.path / name).stat().st_size
        return self._info(name).file_size

    def _opened(self, name: str) -> IO[bytes]:
        return (self.path / name).open("rb") if self.path.is_dir() else self._archive().open(self._info(name))

    def _info(self, name: str) -> zipfile.ZipInfo:
        info = self._members().get(name)
        if info is None:
            raise FileNotFoundError(f"no {name} in {self.path}")
        return info

    def image(self, name: str) -> Image:
        """Return one image, upright, as 8-bit "L", "LA", "RGB" or "RGBA"; the first frame of an animation.

        Raises ValueError that names the file where it is damaged or has more pixels than Pillow's limit.
        """
        from PIL import Image, ImageOps, UnidentifiedImageError

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", Image.DecompressionBombWarning)
                if (ending := PurePosixPath(name).suffix.lower()) in NOT_READ:
                    raise ValueError(f"{ending} is not read; convert it to PNG or JPEG")
                with self._seekable(name) as file:
                    image = Image.open(file, formats=FORMATS)
                    self._refuse_padding(name, image)
                    image.load()
                    ImageOps.exif_transpose(image, in_place=True)
            return _eight_bit(image)
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            most = (Image.MAX_IMAGE_PIXELS or 0) / 1e6
            raise ValueError(
                f"cannot read the image {name} in {self.path}: more than {most:.4g} megapixels may be a decompression "
                f"bomb; cut it into parts or reduce it ({error})"
            ) from error
        except UnidentifiedImageError:
            raise ValueError(
                f"cannot read the image {name} in {self.path}: its content is none of {', '.join(FORMATS)}, or damaged"
            ) from None
        except Exception as error:  # decoders raise anything on damaged bytes: SyntaxError, struct.error, ...
            raise ValueError(f"cannot read the image {name} in {self.path}: {said(error)}") from error

    def _seekable(self, name: str) -> IO[bytes]:
        """Return a file to decode from: in memory where it is small, since archives are slow to seek in."""
        size = self._size(name)
        if size > MAX_BYTES:
            raise ValueError(f"expected at most {MAX_BYTES:,} bytes; got {size:,}")
        return io.BytesIO(self.read(name)) if size <= SMALL else self._opened(name)

    def _refuse_padding(self, name: str, image: Image) -> None:
        """Raise ValueError for a member of an archive that has far more bytes than its pixels: a decompression bomb.

        Some decoders read the whole file before they look at it.
        """
        size, most = self._size(name), SMALL + 8 * image.width * image.height
        if size > most and not self.path.is_dir():
            raise ValueError(
                f"it unpacks to {size:,} bytes, more than {most:,}, which {image.width}×{image.height} pixels may take"
            )

    def _archive(self) -> zipfile.ZipFile:
        if self._handle is None or self._pid != os.getpid():  # a forked handle shares its position in the file
            try:
                self._handle, self._pid = zipfile.ZipFile(self.path), os.getpid()
            except _DAMAGE as error:
                raise ValueError(f"{self.path}: is a damaged archive ({said(error)})") from error
            files = (info for info in self._handle.infolist() if not info.filename.endswith(("/", "\\")))
            self._infos = {posix_name(info.filename): info for info in files}
        return self._handle

    def _members(self) -> dict[str, zipfile.ZipInfo]:
        self._archive()
        return self._infos

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_handle": None, "_infos": {}}


def posix_name(name: str) -> str:
    """Return the name of a file in an archive as a POSIX path: some programs on Windows separate by backslashes."""
    return PurePosixPath(name.replace("\\", "/")).as_posix()


def _ending_in(suffixes: frozenset[str], found: Iterable[str]) -> tuple[str, ...]:
    return tuple(
        sorted(name for name in set(found) if PurePosixPath(name).suffix.lower() in suffixes and not _is_hidden(name))
    )


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in PurePosixPath(name).parts)


def _endings() -> str:
    return ", ".join(sorted(SUFFIXES))


def _eight_bit(image: Image) -> Image:
    """Return an image of any mode as "L", "LA", "RGB" or "RGBA"; grey of more bits is scaled as its format says.

    16 bits are scaled by 255 / 65535, not clipped. 32-bit integers are what numpy arrays become by default: values from
    0 to 255 stay as they are, others have no known range.
    """
    from PIL import Image

    if image.mode == "F":
        raise ValueError("floating-point pixels have no fixed range")
    if image.mode.startswith("I"):
        wide = np.asarray(image)
        low, high = int(wide.min()), int(wide.max())
        if image.mode == "I" and image.format == "TIFF":  # Pillow has 16 bits of PNG and PPM in this mode as well
            if low < 0 or high > 255:
                raise ValueError(
                    f"its 32-bit integers go from {low} to {high}, which is no known range: expected 0 to 255; save it "
                    "with 8 or 16 bits"
                )
            return Image.fromarray(wide.astype(np.uint8))
        if low < 0 or high > 65535:
            raise ValueError("grey values beyond 16 bits have no fixed range")
        if 0 < high <= 255:
            raise ValueError(f"its 16-bit values end at {high} of 65535: 8-bit values without scaling; save 8 bits")
        scaled = wide.astype(np.uint32)  # 65535 · 255 fits; in place, since a photo of 80 megapixels is large enough
        scaled *= 255
        scaled += 32767
        scaled //= 65535
        return Image.fromarray(scaled.astype(np.uint8))
    transparent = "transparency" in image.info or image.mode in ("LA", "La", "PA", "RGBA", "RGBa")
    grey = image.mode in ("1", "L", "LA", "La")
    mode = ("L" if grey else "RGB") + ("A" if transparent else "")
    return image if image.mode == mode else image.convert(mode)
