"""Builder of training archives from a folder or archive of images: `specreg dataset SRC OUT.zip`.

It writes two archives, OUT.zip and OUT-test.zip, in EDM's format: `00000/img00000000.png` … stored without
compression, and a dataset.json with {"labels": null, "sources": {file: source image}}. All crops of a source image go
to the same archive, and near-duplicates are dropped, so no test picture resembles a training picture.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from specreg._checks import choice
from specreg._files import refuse_no_file, writing
from specreg.data.archive import Archive, is_built, set_aside, squeezed
from specreg.data.files import ImageFiles

if TYPE_CHECKING:
    from PIL.Image import Image

Mode = Literal["crop", "tiles"]
Reason = Literal["excluded", "unreadable", "alpha", "too small", "duplicate", "near duplicate", "low contrast"]

# Names that games and renderers give to maps other than colour: normals, gloss, glow, height, …
DEFAULT_EXCLUDE = (
    *("*_norm", "*_normal", "*_normals", "*_nm", "*_nrm", "*_bump", "*_height", "*_disp", "*_displacement"),
    *("*_gloss", "*_spec", "*_specular", "*_sm", "*_rough", "*_roughness", "*_metallic", "*_ao"),
    *("*_glow", "*_gm", "*_luma", "*_alpha"),
)
SAME_PICTURE = 0.98  # correlation of two 16×16 thumbnails at and above which they count as the same picture


@dataclass
class DatasetReport:
    """What happened to every source image: `sources == used +` the number of names in `skipped`.

    A skipped source is listed under the first reason that applies, in the order of `Reason`. `test` is None where no
    source belongs to the test part.
    """

    train: Path
    test: Path | None = None
    removed: Path | None = None
    """An earlier build's test archive, removed where nothing is held out: its images may be in training now."""
    sources: int = 0
    used: int = 0
    images_train: int = 0
    images_test: int = 0
    low_contrast: int = 0
    """Number of cut pictures dropped for `min_std`."""
    surplus: int = 0
    """Number of tiles dropped for `max_tiles`."""
    skipped: dict[Reason, list[str]] = field(default_factory=lambda: {reason: [] for reason in get_args(Reason)})
    unreadable: dict[str, str] = field(default_factory=dict)
    """What is wrong with each source that is skipped as unreadable; HEIC and its like are among them."""


def build_dataset(
    source: str | Path,
    out: str | Path,
    *,
    resolution: int = 64,
    mode: Mode = "tiles",
    channels: int = 3,
    min_std: float = 0.0,
    halve: int = 0,
    max_tiles: int = 16,
    test_fraction: float = 0.1,
    exclude: Sequence[str] = (),
    keep_maps: bool = False,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> DatasetReport:
    """Cut images into `resolution`² pictures, write OUT.zip and OUT-test.zip, and return a report of every source.

    `source` is a folder, zip or pk3.

    * `mode="crop"`: the largest centred square of each image, resized (Lanczos); never enlarged.
    * `mode="tiles"`: non-overlapping tiles, at most `max_tiles` per source, chosen by `seed`; images whose sides both
      have at least `halve` pixels are halved first (Lanczos; 0 for never).
    * `channels`: 1 (grey) or 3. `min_std`: pictures with a lower standard deviation (of 255; the root mean
      square over channels) are dropped.
    * `exclude`: shell patterns, case ignored, matched against a name with and without its ending, in addition
      to DEFAULT_EXCLUDE (normal, gloss, glow … maps), which `keep_maps` switches off.
    * Images whose alpha channel is in use, and those equal or nearly equal to an earlier one, are skipped.
    * `test_fraction` of the sources, chosen by a hash of (seed, name), go to OUT-test.zip; without any, an OUT-test.zip
      of an earlier build is removed. `progress(done, sources)` is called after each source.

    The same input and options give the same bytes (with one version of Pillow). Archives are written whole or not at
    all, and get their names once both are complete.
    Raises ValueError for a bad option, for an OUT-test.zip that is not of an earlier build, and where no picture is
    left for training; FileNotFoundError without a source; WriteError where an archive cannot be written.
    """
    choice("mode", mode, get_args(Mode))
    out = Path(out)
    if out.suffix != ".zip":
        raise ValueError(f"the archive to write must end in .zip; got {out}")
    if resolution < 1:
        raise ValueError(f"resolution must be at least 1 pixel; got {resolution}")
    if channels not in (1, 3):
        raise ValueError(f"channels must be 1 (grey) or 3 (colour); got {channels}")
    if halve and halve < 2 * resolution:
        raise ValueError(f"halve must be 0 or at least twice the resolution, {2 * resolution}; got {halve}")
    if not 0 <= min_std <= 255:
        raise ValueError(f"min_std must be from 0 to 255; got {min_std}")
    if max_tiles < 1:
        raise ValueError(f"max_tiles must be at least 1; got {max_tiles}")
    if not 0 <= test_fraction < 1:
        raise ValueError(f"test_fraction must be at least 0 and below 1; got {test_fraction}")

    files = ImageFiles(source)
    out_test = out.with_name(f"{out.stem}-test.zip")
    if files.path.resolve() in (out.resolve(), out_test.resolve()):
        raise ValueError(f"the archive to write, {out}, would replace the source {files.path}")
    _check_targets(out, out_test)
    patterns = (*(() if keep_maps else DEFAULT_EXCLUDE), *exclude)
    names = sorted((*files.names, *files.not_read))
    report = DatasetReport(train=out, sources=len(names))
    pictures = _Pictures(len(files.names))
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)

    with Archive(out) as train, Archive(out_test) as test:
        for done, name in enumerate(names, start=1):
            reason, image = _admit(files, name, patterns, resolution, pictures, report)
            if image is not None:
                share, draw = _draw(seed, name)
                image = image.convert("L" if channels == 1 else "RGB")
                cut = _crop(image, resolution) if mode == "crop" else _tiles(image, resolution, halve)
                kept = cut[_contrast(cut) >= min_std]
                report.low_contrast += len(cut) - len(kept)
                if mode == "tiles" and len(kept) > max_tiles:
                    report.surplus += len(kept) - max_tiles
                    kept = kept[draw(len(kept), max_tiles)]
                for picture in kept:
                    (test if share < test_fraction else train).add(picture, name)
                report.used += len(kept) > 0
                reason = None if len(kept) else "low contrast"
            if reason is not None:
                report.skipped[reason].append(name)
            if progress is not None:
                progress(done, len(names))
        report.images_train, report.images_test = len(train.sources), len(test.sources)
        if not train.sources:
            counts = ", ".join(f"{len(names)} {reason}" for reason, names in report.skipped.items() if names)
            raise ValueError(
                f"no picture for training in {files.path}: of {report.sources} images, {report.used} are in"
                f" the test part; skipped: {counts or 'none'}"
            )
        train.complete()
        test.complete()
        # At no moment may an archive be beside one of another build: test pictures could be in training.
        with set_aside(out_test) as was_there:
            train.publish()
        if test.sources:
            test.publish()
            report.test = out_test
        elif was_there:
            report.removed = out_test
    return report


def _check_targets(out: Path, out_test: Path) -> None:
    """Raise ValueError where an archive cannot be put, or would replace a test archive that no build has made."""
    refuse_no_file(out, where="the training archive")
    refuse_no_file(out_test, where="the test archive")
    if out_test.exists() and not is_built(out_test):
        raise ValueError(
            f"{out_test}: the test archive goes there, and what is there was not made by `specreg dataset` (no sources "
            f"in a dataset.json); move it away, or choose another name than {out.name}"
        )


def _admit(
    files: ImageFiles, name: str, patterns: Sequence[str], resolution: int, pictures: _Pictures, report: DatasetReport
) -> tuple[Reason | None, Image | None]:
    """Return either the reason to skip a source, or the image to cut."""
    stem = str(PurePosixPath(name).with_suffix("")).lower()
    if any(fnmatchcase(each, pattern.lower()) for pattern in patterns for each in (stem, name.lower())):
        return "excluded", None
    try:
        image = files.image(name)
    except ValueError as error:
        report.unreadable[name] = str(error).removeprefix(f"cannot read the image {name} in {files.path}: ")
        return "unreadable", None
    if image.mode in ("LA", "RGBA") and image.getchannel("A").getextrema()[0] != 255:
        return "alpha", None
    if min(image.size) < resolution:
        return "too small", None
    reason = pictures.seen(image)
    return reason, None if reason else image


class _Pictures:
    """Record of the pictures so far, which recognizes a resized, recompressed or recoloured copy.

    Two pictures are near duplicates where the Pearson correlation of their 16×16 grey thumbnails reaches SAME_PICTURE.
    On game textures this separates variants from other pictures far better than a difference hash, whose bits are
    arbitrary wherever a picture is flat. A thumbnail without contrast matches nothing.
    """

    def __init__(self, most: int) -> None:
        self._digests: set[bytes] = set()
        self._thumbs = np.empty((most, 256), dtype=np.float32)
        self._count = 0

    def seen(self, image: Image) -> Reason | None:
        from PIL import Image

        digest = hashlib.sha256(repr((image.mode, image.size)).encode() + image.tobytes()).digest()
        if digest in self._digests:
            return "duplicate"
        self._digests.add(digest)
        small = image.convert("L").convert("F").resize((16, 16), Image.Resampling.BOX)
        thumb = np.asarray(small, dtype=np.float32).ravel()
        thumb = thumb - thumb.mean()
        if thumb.std() < 1:
            return None
        thumb /= np.linalg.norm(thumb)
        if (self._thumbs[: self._count] @ thumb >= SAME_PICTURE).any():
            return "near duplicate"
        self._thumbs[self._count] = thumb
        self._count += 1
        return None


def _draw(seed: int, name: str) -> tuple[float, Callable[[int, int], NDArray[np.intp]]]:
    """Return a share in [0, 1) and a function that draws k of n in order; both depend on (seed, name) alone."""
    digest = hashlib.sha256(f"{seed}\0{name}".encode(errors="surrogateescape")).digest()  # of any bytes of a name
    key = int.from_bytes(digest[8:24], "big")

    def draw(n: int, k: int) -> NDArray[np.intp]:
        return np.sort(np.argsort(np.random.Philox(key=key).random_raw(n), kind="stable")[:k])

    return int.from_bytes(digest[:6], "big") / 2**48, draw


def _crop(image: Image, resolution: int) -> NDArray[np.uint8]:
    """Return the largest centred square, resized: `[1, resolution, resolution, C]`."""
    from PIL import Image

    side = min(image.size)
    left, top = ((length - side) // 2 for length in image.size)
    square = image.crop((left, top, left + side, top + side))
    small = square.resize((resolution, resolution), Image.Resampling.LANCZOS)
    return _pixels(small)[None]


def _tiles(image: Image, resolution: int, halve: int) -> NDArray[np.uint8]:
    """Return the tiles of a centred grid, row by row: `[N, resolution, resolution, C]`."""
    from PIL import Image

    if halve and min(image.size) >= halve:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.LANCZOS)
    pixels = _pixels(image)
    height, width, channels = pixels.shape
    rows, columns = height // resolution, width // resolution
    top, left = (height - rows * resolution) // 2, (width - columns * resolution) // 2
    grid = pixels[top : top + rows * resolution, left : left + columns * resolution]
    blocks = grid.reshape(rows, resolution, columns, resolution, channels).swapaxes(1, 2)
    tiles: NDArray[np.uint8] = blocks.reshape(-1, resolution, resolution, channels)
    return tiles


def _pixels(image: Image) -> NDArray[np.uint8]:
    return np.asarray(image, dtype=np.uint8).reshape(image.height, image.width, -1)


def _contrast(cut: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the standard deviation over pixels, root mean square over channels: `[N]`, of 255."""
    from PIL import Image, ImageStat

    # Pillow counts the 256 values; NumPy would make a copy in float64, 2 GB of a large photo.
    variances = [ImageStat.Stat(Image.fromarray(squeezed(picture))).var for picture in cut]
    means: NDArray[np.float64] = np.array(variances, dtype=np.float64).reshape(len(cut), cut.shape[3]).mean(axis=1)
    deviation: NDArray[np.float64] = np.sqrt(means.clip(min=0))
    return deviation
