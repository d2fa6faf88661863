"""The report's power spectra and error in each band, and what all its matplotlib figures share."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import cycle
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from specreg.report.colors import INK, MUTED
from specreg.report.contents import Arm, Array, RunFiles
from specreg.report.page import svg as svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

QUANTISATION = (2 / 255) ** 2 / 12  # power of 8-bit rounding noise in every coefficient, data in [-1, 1]
NYQUIST = 0.5  # cycles/sample; beyond it lie only the corners of the spectrum, up to sqrt(1/2)
WIDE, HALF = 6.6, 5.4  # inches, of a figure beside text and of one of two abreast
NARROW = (3.5, 2.9)  # inches, on a phone
DASHES = ("-", "--", "-.", ":")  # of the spectra of real data, where folders have different ones
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
    """One plot of the page."""

    name: str
    alt: str  # for those who cannot see it
    figure: Figure  # without a legend, which the page has
    narrow: Figure  # the same for phones
    complete: Figure  # with its legend, to be saved


@contextmanager
def styled() -> Iterator[None]:
    """Draw and save in the report's style, whatever the user's matplotlibrc says."""
    from matplotlib import style

    with style.context(STYLE, after_reset=True):
        yield


def curves(files: RunFiles) -> list[Curve]:
    """Return the plots of spectra that the folder has data for: spectrum, band_error."""
    arms = ", ".join(arm.label for arm in files.arms)
    real = ", ".join(dict.fromkeys(truth.name for truth in files.different_truths))
    alts = {
        "spectrum": f"Radially averaged power spectra: {real}, {arms}.",
        "band_error": f"Power relative to {real}, dB, by frequency: {arms}.",
    }
    drawn: dict[str, Callable[..., Figure | None]] = {"spectrum": spectrum_figure, "band_error": band_error_figure}
    found = []
    for name, draw in drawn.items():
        figure, narrow, complete = draw(files), draw(files, size=NARROW), draw(files)
        if figure is not None and narrow is not None and complete is not None:
            add_legend(complete, files, truth=name == "spectrum")
            found.append(Curve(name, alts[name], figure, narrow, complete))
    return found


def band_error_db(power: Array, truth: Array, *, floor: float = QUANTISATION) -> Array:
    """Return 10·log10(max(P, floor) / max(P_truth, floor)), dB, any shape: < 0 is too smooth, > 0 too rough.

    The floor is the power of 8-bit rounding: below it neither spectrum says anything about the data.
    """
    return 10 * np.log10(np.maximum(power, floor) / np.maximum(truth, floor))


def spectrum_figure(files: RunFiles, *, size: tuple[float, float] = (WIDE, 3.8)) -> Figure | None:
    """Return radially averaged power spectra, log y (paper's Fig. 2): see `Curves` for the bands."""
    powers = powers_of(files)
    truths = [truth.spectrum for truth in files.different_truths if truth.spectrum]
    every = np.concatenate([*powers_seen(powers.values()), *(truth.power for truth in truths), np.empty(0)])
    seen = every[np.isfinite(every)]
    if not np.any(seen > 0):
        return None
    low, high = max(seen.min(), QUANTISATION) / 3, seen.max() * 3
    figure, axes = new_axes(*size)
    for dashes, truth in zip(cycle(DASHES), truths, strict=False):
        axes.plot(truth.frequency, np.maximum(truth.power, low / 10), color="black", lw=2.6, ls=dashes)
    for arm, curves in powers.items():
        _line(axes, curves.mapped(lambda power: np.maximum(power, low / 10)), arm.color)
    if low < QUANTISATION:
        axes.axhline(QUANTISATION, color=MUTED, lw=0.9, ls=(0, (1, 2)))
        white = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
        _note(axes, 0.69, QUANTISATION, "8-bit rounding noise", ha="right", va="center", bbox=white)
    axes.set(yscale="log", ylim=(low, high), ylabel="power of a coefficient, |DFT|²")
    _frequency_axis(axes)
    return figure


def band_error_figure(files: RunFiles, *, size: tuple[float, float] = (WIDE, 3.5)) -> Figure | None:
    """Return each arm's power relative to its truth's, dB, over frequency; None without a truth."""
    errors = band_errors(files)
    if not errors:
        return None
    reach = 1.3 * max(1.0, *(float(np.nanmax(np.abs(part))) for part in powers_seen(errors.values())))
    figure, axes = new_axes(*size)
    real = " or ".join(dict.fromkeys(files.truth(arm).name for arm in errors))
    axes.axhline(0, color="black", lw=1.3)
    for arm, curves in errors.items():
        _line(axes, curves, arm.color)
    axes.set(ylim=(-reach, reach), ylabel=f"relative to {real}, dB")
    more, less = (f": {word} power than {real}" if size[0] > NARROW[0] else "" for word in ("more", "less"))
    _note(axes, 0.012, 0.985, f"↑ too rough{more}", va="top", transform=axes.transAxes)
    _note(axes, 0.012, 0.02, f"↓ too smooth{less}", transform=axes.transAxes)
    _frequency_axis(axes)
    return figure


def add_legend(figure: Figure, files: RunFiles, *, truth: bool) -> Figure:
    """Add a legend of the arms, and of truths with a spectrum if asked, above the plots and return the figure."""
    from matplotlib.lines import Line2D

    real = [found.name for found in files.different_truths if found.spectrum] if truth else []
    entries = [(name, "black", dashes) for name, dashes in zip(real, cycle(DASHES), strict=False)]
    entries += [(arm.label, arm.color, "-") for arm in files.arms]
    handles = [Line2D([], [], color=color, lw=2.4, ls=dashes) for _, color, dashes in entries]
    labels = [textwrap.shorten(label, 60, placeholder=" …") for label, *_ in entries]
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


class Curves(NamedTuple):
    """One arm's curves over `frequency` [F]: one a seed, [F]; `ends` [2, F] where an interval was measured.

    A figure shows their mean, in a band from `ends`, else from the lowest to the highest seed.
    """

    frequency: Array
    by_seed: dict[int, Array]
    ends: Array | None = None

    @property
    def every(self) -> Array:
        """The curves of all seeds, [seeds, F]."""
        return np.stack(list(self.by_seed.values()))

    def band(self) -> Array | None:
        """Return the lowest and the highest value, [2, F]; None for a single curve."""
        if self.ends is None and len(self.by_seed) > 1:
            return np.stack([self.every.min(axis=0), self.every.max(axis=0)])
        return self.ends

    def mapped(self, change: Callable[[Array], Array]) -> Curves:
        """Return the curves with `change` applied to their values."""
        ends = None if self.ends is None else change(self.ends)
        return Curves(self.frequency, {seed: change(values) for seed, values in self.by_seed.items()}, ends)


def powers_of(files: RunFiles) -> dict[Arm, Curves]:
    """Return the power spectra of each arm's finished cells; those of one arm and its truth share frequencies."""
    powers: dict[Arm, Curves] = {}
    for part in files.parts:
        real = part.truths[0].spectrum
        spectra = [spectrum for cell in part.cells if (spectrum := cell.spectrum)]
        frequency = real.frequency if real else spectra[0].frequency if spectra else np.empty(0)
        for arm in part.arms:
            cells = [(cell, spectrum) for cell in part.of(arm) if (spectrum := cell.spectrum)]
            for cell, spectrum in cells:
                if not _same(spectrum.frequency, frequency):
                    raise ValueError(
                        f"{cell.folder}: the spectrum has {spectrum.frequency.size} bands that differ from "
                        f"the {frequency.size} bands of the truth or of the first run"
                    )
            if cells:
                one = cells[0][1]
                ends = None if one.low is None or one.high is None else np.stack([one.low, one.high])
                powers[arm] = Curves(frequency, {cell.seed: spectrum.power for cell, spectrum in cells}, ends)
    return powers


def band_errors(files: RunFiles) -> dict[Arm, Curves]:
    """Return each arm's power relative to that of its truth, dB, where its truth has a spectrum."""
    errors = {}
    for arm, curves in powers_of(files).items():
        if real := files.truth(arm).spectrum:
            errors[arm] = curves.mapped(partial(band_error_db, truth=real.power))
    return errors


def powers_seen(found: Iterable[Curves]) -> list[Array]:
    """Return all values that a figure of `found` shows, each [n]."""
    return [part.ravel() for curves in found for part in (curves.every, curves.ends) if part is not None]


def _same(a: Array, b: Array) -> bool:
    return a.shape == b.shape and bool(np.allclose(a, b, atol=1e-6))


def _line(axes: Axes, curves: Curves, color: str) -> None:
    axes.plot(curves.frequency, curves.every.mean(axis=0), color=color)
    if (band := curves.band()) is not None:
        axes.fill_between(curves.frequency, *band, color=color, alpha=0.18, lw=0)


def _frequency_axis(axes: Axes) -> None:
    axes.axvline(NYQUIST, color=MUTED, lw=0.9, ls=(0, (4, 3)))
    _note(axes, NYQUIST + 0.006, 0.985, "Nyquist", va="top", transform=axes.get_xaxis_transform())
    axes.set(xlim=(0, 0.5**0.5), xlabel="frequency, cycles/sample")


def _note(axes: Axes, x: float, y: float, text: str, **options: Any) -> None:
    axes.text(x, y, text, color=MUTED, size=8.5, **options)
