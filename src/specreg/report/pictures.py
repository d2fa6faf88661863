"""Grids of samples as plain pixel arrays: never selected, and only ever enlarged by whole factors."""

from __future__ import annotations

import io
import textwrap
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from specreg.report import fields, lines
from specreg.report.colors import INK, MUTED
from specreg.report.contents import Images, RunFiles, Samples
from specreg.report.reading import are_fields, are_pictures

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROWS = COLUMNS = 5
MANY, FEW = 6, 3  # with more grids than MANY, each has FEW rows, so that they can be seen together
MAT = 0xC4  # the grey between tiles: set off from both black and white images
ROOM = 336  # CSS pixels across one grid: three of them fill the page


class Grid(NamedTuple):
    """One grid of samples at the data's own resolution, `pixels` uint8 [H, W, 3], under its title."""

    title: str
    note: str
    color: str
    pixels: Images

    @property
    def crisp(self) -> bool:
        """Whether every pixel can be shown as a square: the grid fits its room on the page."""
        return int(self.pixels.shape[1]) <= ROOM

    @property
    def width(self) -> int:
        """Width on the page, CSS pixels: a whole multiple of the grid's own where it fits."""
        own = int(self.pixels.shape[1])
        return own * (ROOM // own) if self.crisp else ROOM


def panels(files: RunFiles) -> list[Grid]:
    """Return the grid of each truth, then one for each arm: its first samples at the first seed that all arms have."""
    ready = {a: {c.seed: c.samples for c in files.of(a) if c.samples is not None} for a in files.arms}
    ready = {arm: by_seed for arm, by_seed in ready.items() if by_seed}
    runs = {cell.arm for cell in files.runs}
    seeds = [set(by_seed) for arm, by_seed in ready.items() if arm in runs]
    shared = set.intersection(*seeds) if seeds else set()
    truths = [(truth.samples, truth.name) for truth in files.different_truths if truth.samples is not None]
    rows = ROWS if len(ready) + len(truths) <= MANY else FEW
    shown = [(samples, name, "", INK) for samples, name in truths]
    for arm, by_seed in ready.items():
        seed = min(shared if shared and arm in runs else by_seed)
        shown.append((by_seed[seed], arm.label, f" of seed {seed}" if arm in runs else "", arm.color))
    of_fields = [samples for samples, *_ in shown if are_fields(samples)]
    value_range = fields.span(of_fields) if of_fields else (0.0, 1.0)
    return [_panel(samples, title, where, color, rows, value_range) for samples, title, where, color in shown]


def tile(images: Images, *, most: int = ROWS) -> tuple[Images, int]:
    """Tile the first images of `images` [N, H, W, C] in `most` rows of uint8 [H', W', 3]; return it with their number.

    Large images get fewer rows and columns, so that a grid stays near 1024 pixels wide. Anything but three
    channels shows its first channel in grey.
    """
    count, height, width, channels = images.shape
    columns = max(1, min(COLUMNS, 1024 // width, count))
    rows = max(1, min(most, 1536 // height, -(-count // columns)))
    shown = np.asarray(images[: rows * columns, ..., : 3 if channels == 3 else 1])
    gap = max(1, width // 32)
    grid = np.full((rows * (height + gap) + gap, columns * (width + gap) + gap, 3), MAT, dtype=np.uint8)
    for index, image in enumerate(shown):
        row, column = divmod(index, columns)
        top, left = gap + row * (height + gap), gap + column * (width + gap)
        grid[top : top + height, left : left + width] = image
    return grid, len(shown)


def samples_figure(grids: list[Grid]) -> Figure:
    """Return all grids side by side (paper's Fig. 1), pixels as exact squares; save it at 100 dpi."""
    from matplotlib.figure import Figure

    across = len(grids) if len(grids) <= 4 else min(5, -(-len(grids) // 2))
    down = -(-len(grids) // across)
    zooms = [max(1, 2 * ROOM // grid.pixels.shape[1]) for grid in grids]
    images = [grid.pixels.repeat(zoom, 0).repeat(zoom, 1) for grid, zoom in zip(grids, zooms, strict=True)]
    wide, high = max(image.shape[1] for image in images), max(image.shape[0] for image in images)
    margin, head = 40, 84  # around each grid; above it, for two lines of text
    width, height = margin + across * (wide + margin), margin // 2 + down * (head + high + margin)
    figure = Figure(figsize=(width / 100, height / 100), dpi=100)
    options: dict[str, Any] = {"va": "baseline", "parse_math": False}
    for index, (grid, image) in enumerate(zip(grids, images, strict=True)):
        row, column = divmod(index, across)
        left, top = margin + column * (wide + margin), height - margin // 2 - row * (head + high + margin)
        title = textwrap.shorten(grid.title, max(16, wide // 14), placeholder=" …")
        figure.text(left / width, (top - 38) / height, title, size=16, weight="bold", **options)
        figure.text(left / width, (top - 68) / height, grid.note, size=14, color=MUTED, **options)
        figure.figimage(image, left, top - head - image.shape[0], origin="upper")
    return figure


def png(pixels: Images) -> bytes:
    """Return `pixels`, uint8 [H, W, 3], as a PNG file."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="png", optimize=True)
    return buffer.getvalue()


def _panel(samples: Samples, title: str, where: str, color: str, rows: int, value_range: tuple[float, float]) -> Grid:
    if are_fields(samples):
        samples = fields.pictures(samples, value_range)
    draw = tile if are_pictures(samples) else lines.tile
    pixels, count = draw(samples, most=rows)
    return Grid(title, f"first {count}{where}", color, pixels)
