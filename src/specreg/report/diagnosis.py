"""A diagnosis as one page that needs no other file, or as a figure: heat maps by noise level and frequency."""

from __future__ import annotations

import io
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from specreg._files import whole_file, write_text
from specreg.report import figures
from specreg.report.colors import INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

REACH = 20.0  # %: larger departures have the last colour


def write(path: Path, found: dict[str, Any]) -> None:
    """Write the record of a diagnosis as a page (.html) or a figure (.svg, .png), whole or not at all."""
    with figures.styled():
        if path.suffix == ".html":
            write_text(path, _page(found, [_svg(_drawn(found, [panel])) for panel in _panels(found)]))
        elif path.suffix == ".svg":
            write_text(path, _svg(figure(found)))
        else:
            with whole_file(path) as file:
                figure(found).savefig(file, format="png", dpi=200, metadata={"Software": None})


def figure(found: dict[str, Any]) -> Figure:
    """Return heat maps of a record: what is held back, the error, and the term's pull where there is one."""
    return _drawn(found, _panels(found))


class _Panel(NamedTuple):
    title: str
    values: NDArray[np.float64]  # [L, K]
    cmap: str
    low: float | None  # of the colours
    high: float | None


def _panels(found: dict[str, Any]) -> list[_Panel]:
    withheld = np.where(_array(found["judged"]) > 0, 100 * _array(found["withheld"]), np.nan)
    panels = [
        _Panel("held back (+) or added (−), % of what is known", withheld, "RdBu", -REACH, REACH),
        _Panel("error relative to the data, dB", _array(found["error_db"]), "cividis", None, None),
    ]
    if found["pull"] is not None:
        share = np.maximum(100 * _array(found["pull"]["share"]), 0)
        panels.append(_Panel(f"pull of {found['pull']['loss']}, % of the level’s", share, "magma", 0, None))
    return panels


def _drawn(found: dict[str, Any], panels: list[_Panel]) -> Figure:
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(3.6 * len(panels), 3.4), layout="constrained")
    for axes, panel in zip(np.atleast_1d(drawn.subplots(1, len(panels), sharey=True)), panels, strict=True):
        _map(axes, drawn, found, panel)
    drawn.axes[0].set_ylabel("SNR, dB")
    return drawn


def _map(axes: Axes, drawn: Figure, found: dict[str, Any], panel: _Panel) -> None:
    snr, edges = _array(found["snr_db"]), _array(found["edges"])
    middles = (snr[1:] + snr[:-1]) / 2
    ends = [1.5 * snr[0] - 0.5 * snr[1], 1.5 * snr[-1] - 0.5 * snr[-2]] if len(snr) > 1 else [snr[0] + 1, snr[0] - 1]
    rows = np.concatenate([ends[:1], middles, ends[1:]])
    axes.grid(False)
    axes.set_facecolor("#dcdcd6")  # cells that noise covers
    mesh = axes.pcolormesh(
        edges, rows, np.ma.masked_invalid(panel.values), cmap=panel.cmap, vmin=panel.low, vmax=panel.high
    )
    crossing = _array(found["crossing"]["value"])
    axes.plot(crossing, snr, color=INK, linestyle="--", marker=".", linewidth=1.2)
    axes.set_xlim(edges[0], edges[-1])
    axes.set_title(panel.title, fontsize=9)
    axes.set_xlabel(found["frequency_unit"])
    drawn.colorbar(mesh, ax=axes, shrink=0.85)


def _array(values: Any) -> NDArray[np.float64]:
    """Return nested lists as an array with NaN for null."""
    return np.array(values, dtype=np.float64)


def _svg(drawn: Figure) -> str:
    buffer = io.StringIO()
    drawn.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def _page(found: dict[str, Any], svgs: list[str]) -> str:
    from jinja2 import Environment
    from markupsafe import Markup

    rows = [
        {
            "snr": snr,
            "cells": [
                {"judged": judged, "value": value, "low": low, "high": high}
                for judged, value, low, high in zip(
                    found["judged"][row], *(found["gain"][key][row] for key in ("value", "low", "high")), strict=True
                )
            ],
        }
        for row, snr in enumerate(found["snr_db"])
    ]
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    template = resources.files("specreg.report").joinpath("diagnosis.html").read_text(encoding="utf-8")
    return environment.from_string(template).render(found=found, rows=rows, svgs=[Markup(svg) for svg in svgs])
