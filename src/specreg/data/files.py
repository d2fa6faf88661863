"""Image files in a folder, zip or pk3: listing in a fixed order, and decoding to 8-bit pixels.

Pillow is imported on first use, so that importing specreg stays light.
"""

from __future__ import annotations

import io
import os
import warnings
import zipfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

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
        elif zipfile.is_zipfile(self.path):
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

    def read(self, name: str) -> bytes:
        """Return the bytes of one file; raises FileNotFoundError where it is missing."""
        if self.path.is_dir():
            return (self.path / name).read_bytes()
        info = self._members().get(name)
        if info is None:
            raise FileNotFoundError(f"no {name} in {self.path}")
        if info.file_size > MAX_BYTES:
            raise ValueError(f"{name} unpacks to {info.file_size} bytes, more than {MAX_BYTES}")
        return self._archive().read(info)

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
                image = Image.open(io.BytesIO(self.read(name)), formats=FORMATS)
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
            raise ValueError(f"cannot read the image {name} in {self.path}: {error}") from error

    def _archive(self) -> zipfile.ZipFile:
        if self._handle is None or self._pid != os.getpid():  # a forked handle shares its position in the file
            self._handle, self._pid = zipfile.ZipFile(self.path), os.getpid()
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
        wide = np.asarray(image).astype(np.int64)
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
        return Image.fromarray(((wide * 255 + 32767) // 65535).astype(np.uint8))
    transparent = "transparency" in image.info or image.mode in ("LA", "La", "PA", "RGBA", "RGBa")
    grey = image.mode in ("1", "L", "LA", "La")
    mode = ("L" if grey else "RGB") + ("A" if transparent else "")
    return image if image.mode == mode else image.convert(mode)
