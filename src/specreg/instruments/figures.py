"""Figures of spectra: power, power relative to the reference, coherence."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np

from specreg._intervals import widening
from specreg.instruments.grid import NYQUIST, Floats
from specreg.instruments.result import Result, SetResult
from specreg.report.colors import ARM_COLORS, BASELINE_COLOR, INK, MUTED
from specreg.report.figures import new_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 6.6


def color_of(result: Result, found: SetResult) -> str:
    """Return the color of a set: the reference is black."""
    if found is result.reference:
        return INK
    palette = (BASELINE_COLOR, *ARM_COLORS)
    return palette[result.sets.index(found) % len(palette)]


def power_figure(result: Result, *, compensated: float | None = None) -> Figure:
    """Return mean power against frequency, both logarithmic, with 95% bands; times f^`compensated` where given."""
    figure, axes = new_axes(WIDTH, 3.9)
    for found in (result.reference, *result.sets):
        spectrum, color = found.spectrum, color_of(result, found)
        factor = spectrum.frequency**compensated if compensated else np.ones_like(spectrum.frequency)
        low, high = _bounds(spectrum.power, spectrum.replicates, spectrum.sums.groups)
        floor = spectrum.floor / 100
        axes.plot(
            spectrum.frequency, np.maximum(spectrum.power, floor) * factor, color=color, lw=2.2 if color == INK else 1.6
        )
        if np.isfinite(low).all():
            axes.fill_between(
                spectrum.frequency, np.maximum(low, floor) * factor, np.maximum(high, floor) * factor,
                color=color, alpha=0.18, lw=0,
            )  # fmt: skip
    label = "mean power of a coefficient, |DFT|²"
    axes.set(xscale="log", yscale="log", ylabel=f"{label} · f^{compensated:g}" if compensated else label)
    _frequency_axis(axes, result)
    return figure


def ratio_figure(result: Result) -> Figure | None:
    """Return power relative to the reference's, dB, with 95% bands; None without a set to compare."""
    if not result.sets:
        return None
    figure, axes = new_axes(WIDTH, 3.3)
    axes.axhline(0, color="black", lw=1.3)
    reference = result.reference.spectrum
    reach = 1.0
    for found in result.sets:
        spectrum, color = found.spectrum, color_of(result, found)
        floor = max(spectrum.floor, reference.floor)
        value, replicates = (
            10 * np.log10(np.maximum(a, floor) / np.maximum(b, floor))
            for a, b in ((spectrum.power, reference.power), (spectrum.replicates, reference.replicates))
        )
        low, high = _bounds(value, replicates, min(spectrum.sums.groups, reference.sums.groups))
        axes.plot(spectrum.frequency, value, color=color)
        if np.isfinite(low).all():
            axes.fill_between(spectrum.frequency, low, high, color=color, alpha=0.18, lw=0)
        reach = max(reach, 1.15 * float(np.abs(value).max()))
    axes.set(xscale="log", ylim=(-reach, reach), ylabel=f"relative to {reference.name}, dB")
    axes.yaxis.label.set_parse_math(False)
    options: dict[str, Any] = {"transform": axes.transAxes, "color": MUTED, "size": 8.5}
    axes.text(0.012, 0.985, "↑ more power than the reference", va="top", **options)
    axes.text(0.012, 0.02, "↓ less", **options)
    _frequency_axis(axes, result)
    return figure


def coherence_figure(result: Result) -> Figure | None:
    """Return coherence by frequency with 95% bands; None where no set is paired."""
    paired = [found for found in result.sets if found.agreement]
    if not paired:
        return None
    figure, axes = new_axes(WIDTH, 2.8)
    for found in paired:
        color = color_of(result, found)
        frequency = [a.frequency for a in found.agreement]
        axes.plot(frequency, [a.coherence.value for a in found.agreement], color=color)
        axes.fill_between(
            frequency, [a.coherence.low for a in found.agreement], [a.coherence.high for a in found.agreement],
            color=color, alpha=0.18, lw=0,
        )  # fmt: skip
    axes.set(xscale="log", ylim=(0, 1.02), ylabel="coherence")
    _frequency_axis(axes, result)
    return figure


def _bounds(value: Floats, replicates: Floats, groups: int) -> tuple[Floats, Floats]:
    """Return the 95% intervals of all bins at once, as `sums.interval` gives each."""
    if groups < 5:
        return np.full_like(value, np.nan), np.full_like(value, np.nan)
    held = replicates[np.isfinite(replicates).all(1)]
    low, high = np.quantile(held, [0.025, 0.975], axis=0)
    wider = widening(groups)
    return value - wider * (high - value), value - wider * (low - value)


def _frequency_axis(axes: Axes, result: Result) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    spectrum = result.reference.spectrum
    axes.set_xlim(spectrum.frequency[0] * 0.93, NYQUIST * 1.03)
    axes.xaxis.set_major_locator(LogLocator(2, subs=(1.0,)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda f, _: f"1/{round(1 / f)}" if f > 0 else ""))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("frequency, cycles per sample (1/2 is Nyquist)")
    if spacing := spectrum.spacing:
        to_physical = (lambda f: np.asarray(f) / spacing, lambda f: np.asarray(f) * spacing)
        physical = axes.secondary_xaxis("top", functions=to_physical)
        physical.set_xlabel(f"cycles per {spectrum.unit}")


def with_legend(figure: Figure | None, result: Result) -> Figure | None:
    """Return a figure with the names of the sets above it."""
    if figure is None:
        return None
    from matplotlib.lines import Line2D

    sets = (result.reference, *result.sets)
    handles = [Line2D([], [], color=color_of(result, found), lw=2.4) for found in sets]
    legend = figure.legend(handles, ["set"] * len(sets), loc="outside upper left", ncols=3, handlelength=1.4)
    for text, found in zip(legend.get_texts(), sets, strict=True):
        text.set_parse_math(False)  # a name with "$" is no formula, nor is one with "_" in front left out
        text.set_text(textwrap.shorten(found.spectrum.name, 40, placeholder=" …"))
    figure.set_figheight(figure.get_figheight() + 0.23 * -(-len(sets) // 3))
    return figure
