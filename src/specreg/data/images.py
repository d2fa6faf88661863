"""Images from a folder, a zip (EDM's form included) or a numpy array, as float32 in [-1, 1]."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from specreg._checks import shown, warn_once
from specreg._files import said
from specreg.data.arrays import MOST_CLASSES, ImageArray
from specreg.data.files import ImageFiles, posix_name

REMEDY = "`specreg dataset SRC OUT.zip` makes pictures of one size and leaves damaged ones out"


class ImageDataset(Dataset[Tensor]):
    """Data set of images of one size: item i is `[C, H, W]`, float32, `uint8 / 127.5 - 1`.

    `path` is a folder (with its subfolders), a zip or pk3, or a .npy / .npz array of uint8 `[N, H, W]`,
    `[N, H, W, C]` or `[N, C, H, W]` (in an .npz: `images` or `arr_0`, with `labels` or `arr_1` beside it).
    Files are sorted by name, so that index i means the same image everywhere. Class labels come from a
    `dataset.json` at the root, as EDM writes it: {"labels": [["00000/img00000000.png", 6], ...]} or null.

    `resolution` (pixels a side) and `channels` (1 grey, 3 colour) default to those of the first image.
    Colours are converted, sizes are not: reading a damaged image or one of another size raises ValueError, which names
    `specreg dataset`. Pictures in formats that are not read, such as HEIC, are left out with a warning.
    Transparency is dropped. Each process opens the archive by itself, so workers may fork or spawn.
    """

    def __init__(self, path: str | Path, *, resolution: int | None = None, channels: int | None = None) -> None:
        self.path = Path(path)
        if channels not in (None, 1, 3):
            raise ValueError(f"channels must be 1 (grey) or 3 (colour); got {channels}")
        if not self.path.exists():
            raise FileNotFoundError(f"no such file or folder: {self.path}")
        is_array = self.path.suffix in (".npy", ".npz")
        self._source: _Files | ImageArray = ImageArray(self.path) if is_array else _Files(self.path)
        self.names = self._source.names
        self.labels: NDArray[np.int64] | None = self._source.labels()
        first = self._source.pixels(0, channels)
        height, width = first.shape[:2] if resolution is None else (resolution, resolution)
        self.channels: int = first.shape[2]
        self.shape: tuple[int, int, int] = (self.channels, height, width)
        self._checked(0, first)

    @property
    def resolution(self) -> int:
        """Side of the images, pixels; raises ValueError for images that are not square."""
        height, width = self.shape[1:]
        if height != width:
            raise ValueError(f"the images in {self.path} are {height}×{width} pixels, not square; {REMEDY}")
        return height

    def item(self, i: int) -> Tensor:
        """Return image i, `[C, H, W]` in [-1, 1]; raises ValueError that names a damaged or wrongly sized image."""
        pixels = self._checked(i, self._source.pixels(i, self.channels))
        return torch.from_numpy(np.array(pixels.transpose(2, 0, 1), order="C")).float() / 127.5 - 1

    def label(self, i: int) -> int | None:
        """Return the class of image i, or None where the data set has no labels."""
        return None if self.labels is None else int(self.labels[i])

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, i: int) -> Tensor:
        return self.item(i)

    def _checked(self, i: int, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        if pixels.shape[:2] != self.shape[1:]:
            expected, found = ("×".join(map(str, size)) for size in (self.shape[1:], pixels.shape[:2]))
            remedy = f"; {REMEDY}" if isinstance(self._source, _Files) else ""
            raise ValueError(f"{self.names[i]} in {self.path}: expected {expected} pixels (H×W), found {found}{remedy}")
        return pixels


class _Files:
    """Source of pixels and labels: image files."""

    def __init__(self, path: Path) -> None:
        self.files = ImageFiles(path)
        self.names = self.files.names
        if self.files.not_read:
            warn_once(f"not read in {path}", f"{path}: {self.files.left_out()}")

    def pixels(self, i: int, channels: int | None) -> NDArray[np.uint8]:
        """Return image i, `[H, W, C]`; C is that of the file where `channels` is None."""
        try:
            image = self.files.image(self.names[i])
        except ValueError as error:
            raise ValueError(f"{error}; {REMEDY}") from error
        grey = image.mode in ("L", "LA") if channels is None else channels == 1
        pixels = np.asarray(image.convert("L" if grey else "RGB"))
        return pixels.reshape(*pixels.shape[:2], -1)

    def labels(self) -> NDArray[np.int64] | None:
        """Return the labels in EDM's dataset.json, or None without such a file."""
        where = f"dataset.json in {self.files.path}"
        try:
            content = self.files.read("dataset.json", most=(1 << 26) + (len(self.names) << 12))
        except FileNotFoundError:
            return None
        try:
            entries = json.loads(content)["labels"]
            table = {posix_name(name): label for name, label in entries or ()}
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            form = '{"labels": [["FILE", CLASS], ...]} or {"labels": null}'
            raise ValueError(f"{where} should be {form}: {said(error)}") from error
        if not table:
            return None
        if missing := [name for name in self.names if name not in table]:
            raise ValueError(f"{where} has no label for {len(missing)} of {len(self.names)} images: {missing[0]}")
        labels = [table[name] for name in self.names]
        if wrong := [label for label in labels if type(label) is not int or not 0 <= label < MOST_CLASSES]:
            raise ValueError(
                f"{where}: labels must be whole numbers from 0 to {MOST_CLASSES - 1}; got {shown(wrong[0])}"
            )
        return np.array(labels, dtype=np.int64)
