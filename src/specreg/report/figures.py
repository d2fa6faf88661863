"""The report's power spectra and error in each band, and what all its matplotlib figures share."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from specreg.report.colors import INK, MUTED
from specreg.report.reading import Array, RunFiles, Spectrum
from specreg.report.table import truth_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

QUANTISATION = (2 / 255) ** 2 / 12  # power of 8-bit rounding noise in every coefficient, data in [-1, 1]
NYQUIST = 0.5  # cycles/sample; beyond it lie only the corners of the spectrum, up to sqrt(1/2)
WIDE, HALF = 6.6, 5.4  # inches, of a figure beside text and of one of two abreast
STYLE = {
    "axes.edgecolor": "#9a9a94",
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.7,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.constrained_layout.h_pad": 0.08,  # inches
    "figure.constrained_layout.w_pad": 0.08,
    "figure.facecolor": "white",
    "font.size": 9.5,
    "grid.color": "#ecebe6",
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "svg.hashsalt": "specreg",  # the same folder gives the same bytes
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
}


class Curve(NamedTuple):
    """One plot of the page: its name, its text for those who cannot see it, the figure without a legend."""

    name: str
    alt: str
    figure: Figure


@contextmanager
def styled() -> Iterator[None]:
    """Draw and save in the report's style, whatever the user's matplotlibrc says."""
    from matplotlib import style

    with style.context(STYLE, after_reset=True):
        yield


def curves(files: RunFiles) -> list[Curve]:
    """Return the plots of spectra that the folder has data for: spectrum, band_error; no legends."""
    arms, real = ", ".join(arm.label for arm in files.arms), truth_name(files.comparison)
    spectra = {
        "spectrum": (
            f"Radially averaged power spectra: {real}, {arms}.",
            spectrum_figure(files),
        ),
        "band_error": (
            f"Power relative to {real}, dB, by frequency: {arms}.",
            band_error_figure(files),
        ),
    }
    return [Curve(name, alt, figure) for name, (alt, figure) in spectra.items() if figure is not None]


def band_error_db(power: Array, truth: Array, *, floor: float = QUANTISATION) -> Array:
    """Return 10·log10(max(P, floor) / max(P_truth, floor)), dB, any shape: < 0 is too smooth, > 0 too rough.

    The floor is the power of 8-bit rounding: below it neither spectrum says anything about the data.
    """
    return 10 * np.log10(np.maximum(power, floor) / np.maximum(truth, floor))


def spectrum_figure(files: RunFiles) -> Figure | None:
    """Return radially averaged power spectra, log y (paper's Fig. 2): mean over seeds in a min-max band."""
    powers, truth = _powers(files), files.truth_spectrum
    every = [*powers.values(), *([truth.power] if truth else [])]
    seen = np.concatenate([power[np.isfinite(power)] for power in every] or [np.empty(0)])
    if not np.any(seen > 0):
        return None
    low, high = max(seen.min(), QUANTISATION) / 3, seen.max() * 3
    figure, axes = new_axes(WIDE, 3.8)
    if truth:
        axes.plot(truth.frequency, np.maximum(truth.power, low / 10), color="black", lw=2.6)
    for arm in files.arms:
        if arm.name in powers:
            _line(axes, _frequency(files), np.maximum(powers[arm.name], low / 10), arm.color)
    if low < QUANTISATION:
        axes.axhline(QUANTISATION, color=MUTED, lw=0.9, ls=(0, (1, 2)))
        white = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
        _note(axes, 0.69, QUANTISATION, "8-bit rounding noise", ha="right", va="center", bbox=white)
    axes.set(yscale="log", ylim=(low, high), ylabel="power of a coefficient, |DFT|²")
    _frequency_axis(axes)
    return figure


def band_error_figure(files: RunFiles) -> Figure | None:
    """Return each arm's power relative to the truth's, dB, over frequency; None without a truth."""
    powers, truth = _powers(files), files.truth_spectrum
    if truth is None or not powers:
        return None
    errors = {name: band_error_db(power, truth.power) for name, power in powers.items()}
    reach = 1.3 * max(1.0, *(float(np.nanmax(np.abs(error))) for error in errors.values()))
    figure, axes = new_axes(WIDE, 3.5)
    real = truth_name(files.comparison)
    axes.axhline(0, color="black", lw=1.3)
    for arm in files.arms:
        if arm.name in errors:
            _line(axes, truth.frequency, errors[arm.name], arm.color)
    axes.set(ylim=(-reach, reach), ylabel=f"relative to {real}, dB")
    _note(axes, 0.012, 0.985, f"↑ too rough: more power than {real}", va="top", transform=axes.transAxes)
    _note(axes, 0.012, 0.02, f"↓ too smooth: less power than {real}", transform=axes.transAxes)
    _frequency_axis(axes)
    return figure


def add_legend(figure: Figure, files: RunFiles, *, truth: bool) -> Figure:
    """Add a legend of the arms, and of the truth if asked, above the figure's plots and return the figure."""
    from matplotlib.lines import Line2D

    entries = [(truth_name(files.comparison), "black")] * truth + [(arm.label, arm.color) for arm in files.arms]
    handles = [Line2D([], [], color=color, lw=2.4) for _, color in entries]
    labels = [textwrap.shorten(label, 60, placeholder=" …") for label, _ in entries]
    widths, room = [len(label) + 6 for label in labels], 13 * figure.get_figwidth()  # in characters
    columns = len(entries) if sum(widths) <= room else max(1, int(room // max(widths)))
    legend = figure.legend(
        handles,
        ["arm"] * len(entries),  # replaced below: a legend drops labels that begin with "_" and parses "$"
        loc="outside upper left",
        ncols=columns,
        handlelength=1.4,
        columnspacing=1.6,
    )
    for text, label in zip(legend.get_texts(), labels, strict=True):
        text.set_parse_math(False)
        text.set_text(label)
    figure.set_figheight(figure.get_figheight() + 0.23 * -(-len(entries) // columns))
    return figure


def new_axes(width: float, height: float) -> tuple[Figure, Axes]:
    """Return a figure of `width` by `height` inches and its one pair of axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def _powers(files: RunFiles) -> dict[str, Array]:
    """Return arm name -> power [seeds, F] of its finished cells; all must share one frequency axis."""
    powers: dict[str, Array] = {}
    for arm in files.arms:
        cells = [cell for cell in files.of(arm) if cell.spectrum]
        for cell in cells:
            if cell.spectrum and not _same(cell.spectrum.frequency, _frequency(files)):
                raise ValueError(
                    f"{cell.folder}: the spectrum has {cell.spectrum.frequency.size} bands that differ from "
                    f"the {_frequency(files).size} bands of the truth or of the first run"
                )
        if cells:
            powers[arm.name] = np.stack([cell.spectrum.power for cell in cells if cell.spectrum])
    return powers


def _frequency(files: RunFiles) -> Array:
    spectra: list[Spectrum | None] = [files.truth_spectrum, *(cell.spectrum for cell in files.cells)]
    return next(spectrum.frequency for spectrum in spectra if spectrum)


def _same(a: Array, b: Array) -> bool:
    return a.shape == b.shape and bool(np.allclose(a, b, atol=1e-6))


def _line(axes: Axes, x: Array, per_seed: Array, color: str) -> None:
    axes.plot(x, per_seed.mean(axis=0), color=color)
    if len(per_seed) > 1:
        axes.fill_between(x, per_seed.min(axis=0), per_seed.max(axis=0), color=color, alpha=0.18, lw=0)


def _frequency_axis(axes: Axes) -> None:
    axes.axvline(NYQUIST, color=MUTED, lw=0.9, ls=(0, (4, 3)))
    _note(axes, NYQUIST + 0.006, 0.985, "Nyquist", va="top", transform=axes.get_xaxis_transform())
    axes.set(xlim=(0, 0.5**0.5), xlabel="frequency, cycles/sample")


def _note(axes: Axes, x: float, y: float, text: str, **options: Any) -> None:
    axes.text(x, y, text, color=MUTED, size=8.5, **options)
