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

from specreg.data.files import FORMATS
from specreg.instruments.sources.containers import Container, ending, keys_of
from specreg.instruments.sources.protocol import Records
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
    gaps = False

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
        self._last: tuple[int, NDArray[Any]] | None = None
        first = self._pixels(0)
        self.channels = ("luma",) if first.shape[0] == 1 else COLOURS
        self.step = step_of(first.dtype)
        self._note_lost_bits(names[0])

    def size(self, i: int) -> tuple[int, ...]:
        """Return height and width of picture i, upright."""
        name, frame = self._files[i]
        with self._reading(name), self._header(self._container.open(name)) as image:
            if frame:
                image.seek(frame)
            turned = "exif" in image.info and image.getexif().get(_ORIENTATION) in (5, 6, 7, 8)
            return image.size if turned else image.size[::-1]

    def part(self, i: int, begin: tuple[int, ...] | None, size: tuple[int, ...]) -> NDArray[Any]:
        """Return picture i, or a tile of it, `[C, H, W]`: uint8, uint16 or float32."""
        if begin is None:
            return self._pixels(i)
        if self._last is None or self._last[0] != i:  # the tiles of one picture are read one after another
            self._last = i, self._pixels(i)
        return self._last[1][:, *(slice(at, at + side) for at, side in zip(begin, size, strict=True))]

    def _pixels(self, i: int) -> NDArray[Any]:
        name, frame = self._files[i]
        with self._reading(name):
            if name not in self._several:
                with self._header(io.BytesIO(self._container.read(name))) as image:
                    if (frames := _frame_count(image)) > 1:
                        raise ValueError(f"it is an animation of {frames} frames; save it as GIF, WebP or TIFF")
                    return _values(image, colour=False)
            if self._open is None or self._open[0] != name:
                self._open = name, self._header(io.BytesIO(self._container.read(name)))
            image = self._open[1]
            image.seek(frame)
            if image.format == "TIFF":  # its pages stand alone
                return _values(image, colour=False)
            return _values(image.copy(), colour=True)  # the first frame of a GIF may be grey before others that are not

    def _frames(self, name: str) -> int:
        with self._reading(name), self._header(self._container.open(name)) as image:
            return _frame_count(image)

    def _header(self, file: BinaryIO) -> Image:
        from PIL import Image

        return Image.open(file, formats=FORMATS)  # only these: some other decoders start external programs (EPS)

    def _note_lost_bits(self, name: str) -> None:
        with self._reading(name), self._header(self._container.open(name)) as image:
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
                f"cannot read the image {name} in {self.where}: more than {most:.4g} megapixels may be a decompression "
                f"bomb; cut it into parts or reduce it ({error})"
            ) from None
        except UnidentifiedImageError:
            raise ValueError(
                f"cannot read the image {name} in {self.where}: its content is none of {', '.join(FORMATS)}, or damaged"
            ) from None
        except _FAULTS as error:
            if str(error).startswith(f"cannot read {name} in"):  # the container's own sentence
                raise
            raise ValueError(f"cannot read the image {name} in {self.where}: {error}") from None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": None, "_last": None}


def _frame_count(image: Image) -> int:
    return int(getattr(image, "n_frames", 1))


def _values(image: Image, *, colour: bool) -> NDArray[Any]:
    """Return a picture `[C, H, W]`, upright: C = 1 for grey, 3 for colours and palettes; transparency dropped.

    uint8; grey of 16 bits as uint16; float32 as stored. `colour` makes grey three equal channels.
    """
    from PIL import ImageOps

    image.load()
    ImageOps.exif_transpose(image, in_place=True)
    if image.mode == "F":
        return np.asarray(image)[None]
    if image.mode.startswith("I"):
        return _wide(image)
    grey = image.mode in ("1", "L", "LA", "La") and not colour
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
