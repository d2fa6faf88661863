"""The samples and spectra of run folders as notebooks show them."""

from __future__ import annotations

from html import escape
from pathlib import Path

from specreg.report import figures, page, pictures
from specreg.report.merging import read_all

WIDTH = 230  # of a grid of samples, CSS pixels


class Shown:
    """Real data beside the samples of each arm, then their spectra and the ratio to the real one: HTML in notebooks."""

    def __init__(self, html: str):
        self._html = html

    def _repr_html_(self) -> str:
        return self._html


def show(folder: str | Path) -> Shown:
    """Return the pictures of a comparison's folder, or of a run's, for a notebook to show.

    Samples are the first ones of the first seed that all arms have, from the same latents. What the folder has no data
    for is left out, as on the report's page.

    Raises ValueError for a folder that is neither, or for a corrupt file, which the message names.
    """
    files = read_all([Path(folder)])
    grids = [_grid(panel) for panel in pictures.panels(files)]
    with figures.styled():
        plots = [_image(page.svg_uri(curve.complete), curve.alt, "100%") for curve in figures.curves(files)]
    return Shown(f'<div><div style="display:flex;flex-wrap:wrap;gap:16px">{"".join(grids)}</div>{"".join(plots)}</div>')


def _grid(panel: pictures.Grid) -> str:
    image = _image(page.data_uri("image/png", pictures.png(panel.pixels)), f"{panel.title}: {panel.note}", f"{WIDTH}px")
    return (
        f'<figure style="margin:0;width:{WIDTH}px"><b>{escape(panel.title)}</b><br>{escape(panel.note)}{image}</figure>'
    )


def _image(uri: str, alt: str, width: str) -> str:
    style = f"width:{width};max-width:760px;background:white;image-rendering:pixelated"
    return f'<img src="{uri}" alt="{escape(alt)}" style="{style}">'
