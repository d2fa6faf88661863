"""What was logged over the steps of training: the losses, the weight λ in force, the pull of the term."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from specreg.report.contents import Arm, Array, RunFiles
from specreg.report.figures import HALF, NARROW, Curve, add_legend, new_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LOSSES = {"base": "base loss", "spectral": "spectral term, before its weight λ"}
WEIGHTS = {"lambda": "λ in force", "gradient_ratio": "gradient of λ × term / of base loss"}
TALL = 3.4  # inches


def curves(files: RunFiles) -> list[Curve]:
    """Return the plots that the logs have data for: base, spectral, lambda, gradient_ratio."""
    arms = ", ".join(arm.label for arm in files.arms)
    drawn = []
    for column, label in (LOSSES | WEIGHTS).items():
        if column in logged(files) or column in weighed(files):
            every = []
            for size in ((HALF, TALL), NARROW, (HALF, TALL)):
                figure, axes = new_axes(*size)
                draw_losses(files, column, axes) if column in LOSSES else draw_weights(files, column, axes)
                every.append(figure)
            add_legend(every[-1], files, truth=False)
            drawn.append(Curve(column, f"{label[0].upper()}{label[1:]}, over training steps: {arms}.", *every))
    return drawn


def smoothed(column: str, value: Array) -> Array:
    """Return `value` [n] of a column as its figure shows it."""
    if column in LOSSES:
        return smooth(value)
    return running_median(value) if column == "gradient_ratio" else value


def losses_figure(files: RunFiles) -> Figure | None:
    """Return base loss and spectral term side by side, for losses.png; None when nothing was logged."""
    columns = logged(files)
    figure, axes = _abreast(len(columns))
    for column, place in zip(columns, axes, strict=True):
        draw_losses(files, column, place)
    return figure


def lambda_figure(files: RunFiles) -> Figure | None:
    """Return λ in force and the gradient ratio side by side, for lambda.png; None when no line has a λ."""
    columns = weighed(files)
    figure, axes = _abreast(len(columns))
    for column, place in zip(columns, axes, strict=True):
        draw_weights(files, column, place)
    return figure


def logged(files: RunFiles) -> list[str]:
    """Return which of base and spectral have anything to draw on a log axis."""
    return [name for name in LOSSES if any(np.any(cell.log[name] > 0) for cell in files.cells)]


def weighed(files: RunFiles) -> list[str]:
    """Return which of lambda and gradient_ratio to draw; neither where no line has a λ."""
    weighted = any(np.isfinite(cell.log["lambda"]).any() for cell in files.cells)
    measured = any(np.any(cell.log["gradient_ratio"] > 0) for cell in files.cells)
    return ["lambda"] * weighted + ["gradient_ratio"] * (weighted and measured)


def draw_losses(files: RunFiles, column: str, axes: Axes) -> None:
    """Draw one column of the logs over steps, log y: seeds thin, their mean over the shared steps thick."""
    for arm in files.arms:
        logs = [cell.log for cell in files.cells if cell.arm == arm]
        seeds = [(log["step"][good], smooth(log[column][good])) for log in logs if (good := log[column] > 0).any()]
        for step, value in seeds:
            lw, alpha = (0.8, 0.4) if len(seeds) > 1 else (1.6, 1.0)
            axes.plot(step, value, color=arm.color, lw=lw, alpha=alpha)
        if len(seeds) > 1:
            shared, values = _shared(seeds)
            axes.plot(shared, values.mean(axis=0), color=arm.color)
    axes.set(xlabel="step", ylabel=LOSSES[column])
    _log_axis(axes)
    axes.set_xlim(left=0)


def draw_weights(files: RunFiles, column: str, axes: Axes) -> None:
    """Draw λ or the gradient ratio over steps: the mean over seeds in a band from the lowest to the highest.

    Log y, unless all is 0. The ratio is a running median, as single batches scatter. Arms of one and the same λ
    take turns along their line, in dashes.
    """
    from matplotlib.ticker import LogLocator

    log = any(np.any(cell.log[column] > 0) for cell in files.cells)
    found = {arm: seeds for arm in files.arms if (seeds := _weights(files, arm, column, positive=log))}
    lines = {arm: _shared(seeds) for arm, seeds in found.items()}
    for arm, (step, values) in lines.items():
        same = [other for other in lines if _alike(lines[other], lines[arm])]
        place = same.index(arm) / len(same)
        lw, ls = 1.6 if len(same) == 1 else 2.4, (0, (18 * (1 - place), 18 * place)) if place else "-"
        axes.plot(step, values.mean(axis=0), color=arm.color, lw=lw, ls=ls)
        if np.ptp(values, axis=0).any():
            axes.fill_between(step, values.min(axis=0), values.max(axis=0), color=arm.color, alpha=0.18, lw=0)
    axes.set(xlabel="step", ylabel=WEIGHTS[column])
    axes.set_xlim(left=0)
    if log:
        _log_axis(axes)
        low, high = axes.get_ylim()
        low, high = min(low, high / 10), max(high, low * 10)  # a decade, so that a constant looks like one
        axes.set_ylim(low, high)
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 300 * low else (1,)))


def smooth(value: Array) -> Array:
    """Return the centred running mean of `value` [n] over n/40 points; at the ends the window shrinks."""
    index = np.arange(value.size)
    reach = _reach(value.size)
    total = np.concatenate([np.zeros(1), np.cumsum(value)])
    mean: Array = (total[index + reach + 1] - total[index - reach]) / (2 * reach + 1)
    return mean


def running_median(value: Array) -> Array:
    """Return the centred running median of `value` [n] over n/40 points; at the ends the window shrinks."""
    windows = (value[i - reach : i + reach + 1] for i, reach in enumerate(_reach(value.size)))
    return np.array([np.median(window) for window in windows])


def _reach(size: int) -> np.ndarray[tuple[int], np.dtype[np.intp]]:
    """Return how many neighbours a running window has on either side of each of `size` points."""
    index = np.arange(size)
    return np.minimum(size // 80, np.minimum(index, size - 1 - index))


def _weights(files: RunFiles, arm: Arm, column: str, *, positive: bool) -> list[tuple[Array, Array]]:
    """Return steps and values of each seed; a run that did not finish counts only where none of the arm did."""
    logs = [cell.log for cell in files.of(arm) or [cell for cell in files.cells if cell.arm == arm]]
    seeds = []
    for log in logs:
        good = log[column] > 0 if positive else np.isfinite(log[column])
        if good.any():
            value = log[column][good]
            seeds.append((log["step"][good], smoothed(column, value)))
    return seeds


def _shared(seeds: list[tuple[Array, Array]]) -> tuple[Array, Array]:
    """Return the steps that all seeds have, and each seed's values there, [seeds, steps]."""
    shared = np.array(sorted(set.intersection(*(set(step.tolist()) for step, _ in seeds))))
    return shared, np.stack([value[np.isin(step, shared)] for step, value in seeds])


def _alike(a: tuple[Array, Array], b: tuple[Array, Array]) -> bool:
    """Return whether two arms' means lie on each other."""
    ours, theirs = a[1].mean(axis=0), b[1].mean(axis=0)
    return np.array_equal(a[0], b[0]) and bool(np.allclose(ours, theirs, rtol=0.01, atol=0))


def _log_axis(axes: Axes) -> None:
    from matplotlib.ticker import LogLocator, NullLocator

    axes.set(yscale="log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_minor_locator(NullLocator())


def _abreast(count: int) -> tuple[Figure | None, list[Axes]]:
    """Return a figure of `count` plots side by side, or None, and its axes."""
    from matplotlib.figure import Figure

    if not count:
        return None, []
    figure = Figure(figsize=(HALF * count, TALL), layout="constrained")
    return figure, [figure.add_subplot(1, count, place) for place in range(1, count + 1)]
