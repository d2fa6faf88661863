"""Pictures and the frames of animations from a folder, zip or tar, or one file: 8 or 16 bits, or float TIFF.

Pillow is imported on first use, so that importing specreg stays light.
"""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from specreg._files import said
from specreg.data.files import FORMATS
from specreg.instruments.sources.containers import Container, Folder, ending, keys_of
from specreg.instruments.sources.records import Records
from specreg.instruments.sources.values import COLOURS, step_of

if TYPE_CHECKING:
    from PIL.Image import Image

# Formats that may hold several frames, whose number must be known before any is read.
_WITH_FRAMES = frozenset((".gif", ".tif", ".tiff", ".webp"))
_ORIENTATION = 0x0112  # of EXIF; 5 to 8 exchange height and width
# What decoders raise for damaged bytes.
_FAULTS = (
    OSError, EOFError, ValueError, SyntaxError, TypeError, LookupError, AttributeError, ArithmeticError, RuntimeError,
    AssertionError, struct.error, zlib.error,
)  # fmt: skip


class Pictures(Records):
    """`Records` of picture files; the frames of an animation and the pages of a TIFF are records of one group.

    Palettes become colours and transparency is dropped, as in `specreg.data`. The headers of GIF, TIFF and WebP files
    are read here, those of others when a size is asked for.
    """

    space = 2
    spacing = None
    unit = "pixel"
    remedy = "--tile N cuts all of them into samples of N×N pixels"
    _handles = ("_open",)

    def __init__(self, container: Container, names: tuple[str, ...], not_read: tuple[str, ...] = ()) -> None:
        self.where = str(container.path)
        self._container = container
        self.notes = []
        if not_read:
            counts = ", ".join(f"{count} {end}" for end, count in sorted(Counter(map(ending, not_read)).items()))
            self.notes.append(f"pictures in formats that are not read: {counts}; convert them to PNG or JPEG")
        frames = [self._frames(name) if ending(name) in _WITH_FRAMES else 1 for name in names]
        self._files = [(name, k) for name, count in zip(names, frames, strict=True) for k in range(count)]
        several = {name for name, count in zip(names, frames, strict=True) if count > 1}
        key = dict(zip(names, keys_of(names), strict=True))
        number = {name: i for i, name in enumerate(names)}
        self.names = [f"{name} (frame {k})" if name in several else name for name, k in self._files]
        self.keys = [f"{key[name]}#{k}" if name in several else key[name] for name, k in self._files]
        self.groups = [number[name] for name, _ in self._files]
        self._several = several
        self._open: tuple[str, Image] | None = None  # the animation read last, at some frame
        first = self.whole(0)
        self.channels = ("luma",) if first.shape[0] == 1 else COLOURS
        self.dtype, self.step = first.dtype, step_of(first.dtype)
        self._note_lost_bits(names[0])

    def size(self, i: int) -> tuple[int, ...]:
        """Return height and width of picture i, upright."""
        name, frame = self._files[i]
        with self._reading(name):
            if name in self._several:
                image = self._frame(name, frame)
                return image.height, image.width
            with self._container.open(name) as file, self._header(file) as image:
                turned = "exif" in image.info and image.getexif().get(_ORIENTATION) in (5, 6, 7, 8)
                return (image.width, image.height) if turned else (image.height, image.width)

    def whole(self, i: int) -> NDArray[Any]:
        """Return picture i, `[C, H, W]`: uint8, uint16 or float32."""
        name, frame = self._files[i]
        with self._reading(name):
            if name in self._several:
                image = self._frame(name, frame)
                # The frames of a GIF are drawn one over the other, so this one must stay as it is.
                return _values(image if image.format == "TIFF" else image.copy())
            with self._header(io.BytesIO(self._container.read(name))) as image:
                if image.format != "MPO" and (frames := _frame_count(image)) > 1:  # a photo with its preview is MPO
                    raise ValueError(f"it is an animation of {frames} frames; save it as GIF, WebP or TIFF")
                return _values(image)

    def _frame(self, name: str, frame: int) -> Image:
        """Return an animation at one of its frames; it stays open for the frames after."""
        if self._open is None or self._open[0] != name:
            on_disk = isinstance(self._container, Folder)
            self._open = (
                name,
                self._header(self._container.open(name) if on_disk else io.BytesIO(self._container.read(name))),
            )
        self._open[1].seek(frame)
        return self._open[1]

    def _frames(self, name: str) -> int:
        with self._reading(name), self._container.open(name) as file, self._header(file) as image:
            return _frame_count(image)

    def _header(self, file: BinaryIO) -> Image:
        from PIL import Image

        return Image.open(file, formats=FORMATS)  # only these: some other decoders start external programs (EPS)

    def _note_lost_bits(self, name: str) -> None:
        with self._reading(name), self._container.open(name) as file, self._header(file) as image:
            # Pillow names the form of stored pixels in the arguments of a file's decoder.
            if image.mode in ("RGB", "RGBA") and "16" in str([tile[3] for tile in getattr(image, "tile", ())]):
                self.notes.append(
                    "colours of 16 bits are read with 8, as Pillow does; save floats in .npy for all bits"
                )

    @contextmanager
    def _reading(self, name: str) -> Iterator[None]:
        """Turn what decoders raise, and a number of pixels that may be an attack, into a ValueError with the name."""
        from PIL import Image, UnidentifiedImageError

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", Image.DecompressionBombWarning)
                yield
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            most = (Image.MAX_IMAGE_PIXELS or 0) / 1e6
            raise ValueError(
                f"cannot read the image {self._container.at(name)}: more than {most:.4g} megapixels may be a "
                f"decompression bomb; cut it into parts or reduce it ({error})"
            ) from None
        except UnidentifiedImageError:
            found = self._container.mistaken(name)
            why = f"it {found}" if found else f"its content is none of {', '.join(FORMATS)}, or damaged"
            raise ValueError(f"cannot read the image {self._container.at(name)}: {why}") from None
        except _FAULTS as error:
            if str(error).startswith("cannot read "):  # the container's own sentence
                raise
            raise ValueError(f"cannot read the image {self._container.at(name)}: {said(error)}") from None


def _frame_count(image: Image) -> int:
    return int(getattr(image, "n_frames", 1))


def _values(image: Image) -> NDArray[Any]:
    """Return a picture `[C, H, W]`, upright: C = 1 for grey, 3 for colours and palettes; transparency dropped.

    uint8; grey of 16 bits as uint16; float32 as stored.
    """
    from PIL import ImageOps

    image.load()
    ImageOps.exif_transpose(image, in_place=True)
    if image.mode == "F":
        return np.asarray(image)[None]
    if image.mode.startswith("I"):
        return _wide(image)
    grey = image.mode in ("1", "L", "LA", "La")
    mode = "L" if grey else "RGB"
    pixels = np.asarray(image if image.mode == mode else image.convert(mode))
    return pixels[None] if grey else pixels.transpose(2, 0, 1)


def _wide(image: Image) -> NDArray[Any]:
    """Return grey of more than 8 bits `[1, H, W]`; raises ValueError for integers of no known range."""
    wide = np.asarray(image)
    low, high = int(wide.min()), int(wide.max())
    if image.mode == "I" and image.format == "TIFF":  # Pillow has 16 bits of PNG and PPM in this mode as well
        if low < 0 or high > 255:
            raise ValueError(
                f"its 32-bit integers go from {low} to {high}, which is no known range: expected 0 to 255; save 8 or "
                "16 bits, or floats"
            )
        return wide.astype(np.uint8)[None]
    if low < 0 or high > 65535:
        raise ValueError("grey values beyond 16 bits have no fixed range")
    if 0 < high <= 255:
        raise ValueError(f"its 16-bit values end at {high} of 65535: 8-bit values without scaling; save 8 bits")
    return wide.astype(np.uint16)[None]
