"""Heat maps by noise level and frequency band: error and calibration of denoising, and where the term acts."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from specreg.report.colors import INK, MUTED
from specreg.report.contents import Arm, Array, Denoising, RunFiles
from specreg.report.table import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

REACH = 3.0  # dB: differences beyond a factor of two have the last colour, so that one bad arm hides no other
FLOOR, CEILING = -60.0, 20.0  # dB: as good as nothing; a band in which the data have almost no power
WIDTH, HEIGHT = 2.7, 2.3  # inches, of one panel with its ticks
ACROSS = 5  # panels of the PNG file abreast


class Panel(NamedTuple):
    """One arm's map in dB, noisiest first: `values` [L, K] are means over seeds; where all agree on the sign."""

    arm: Arm
    values: Array
    agree: NDArray[np.bool_]
    low: Array  # [L, K], of the lowest seed
    high: Array
    seeds: int


@dataclass(frozen=True)
class Scale:
    """Panels of one kind, which share colours: `low` to `high` dB. `title` says what is drawn."""

    title: str
    cmap: str
    low: float
    high: float
    digits: int
    panels: list[Panel]

    @property
    def extend(self) -> str:
        """Which ends of the colour bar have values beyond them."""
        seen = np.concatenate([panel.values[np.isfinite(panel.values)] for panel in self.panels])
        below, above = seen.min() < self.low - 1e-9, seen.max() > self.high + 1e-9
        return {(True, True): "both", (True, False): "min", (False, True): "max"}.get((below, above), "neither")

    def span(self, panel: Panel) -> str:
        """Return a panel's lowest and highest value in words."""
        seen = panel.values[np.isfinite(panel.values)]
        ends = [number(float(end), self.digits, sign=True) for end in (seen.min(), seen.max())] if seen.size else []
        return f"{' … '.join(ends)} dB" if ends else "no values"


@dataclass(frozen=True)
class Heatmap:
    """One or two kinds of panels on the axes `log_snr` [L], rising, and `edges` [K+1], cycles/sample."""

    name: str
    log_snr: Array
    edges: Array
    scales: list[Scale]
    seeds: int = 1  # the most seeds that a difference is paired over


def heatmaps(files: RunFiles) -> list[Heatmap]:
    """Return the maps that the folder has data for: "denoising", "calibration" and "action"."""
    return [found for found in (denoising(files), calibration(files), action(files)) if found is not None]


def denoising(files: RunFiles) -> Heatmap | None:
    """Return the baseline's error and, for each other arm, arm − baseline: means over seeds, the latter paired.

    Without maps of a baseline: every arm's error.
    """
    found = _found(files)
    if not found:
        return None
    base = next((arm for arm in found if arm.name == files.comparison.get("baseline")), None)
    errors = {arm: {seed: d.error_db for seed, d in by_seed.items()} for arm, by_seed in found.items()}
    title = "error" if base is None else "baseline: error"
    shown = [_panel(arm, list(errors[arm].values())) for arm in ([base] if base else found)]
    scales = [_scale(f"{title} relative to the data’s power in the band, dB", "cividis", 1, shown)]
    pairs = {}
    if base is not None:
        rest = [arm for arm in found if arm != base and errors[arm].keys() & errors[base].keys()]
        pairs = {a: [errors[a][s] - errors[base][s] for s in sorted(errors[a].keys() & errors[base])] for a in rest}
    differences = [_panel(arm, maps, paired=True) for arm, maps in pairs.items()]
    reach = _reach(differences)
    if differences:
        title = "other arms − baseline, dB: blue is less error, red is more"
        scales.append(Scale(title, "RdBu_r", -reach, reach, 2, differences))
    return _heatmap("denoising", found, scales, seeds=max(map(len, pairs.values()), default=1))


def calibration(files: RunFiles) -> Heatmap | None:
    """Return the gain of each arm's denoiser in dB, means over seeds: 0 is calibrated; None where no run has it."""
    gains = {
        arm: [20 * np.log10(np.clip(d.gain, 1e-3, 1e3)) for d in by_seed.values() if d.gain is not None]
        for arm, by_seed in _found(files).items()
    }
    panels = [_panel(arm, maps) for arm, maps in gains.items() if maps]
    if not panels:
        return None
    reach, title = _reach(panels), "best factor on the prediction, dB: blue withholds, red adds what is not in the data"
    return _heatmap("calibration", _found(files), [Scale(title, "RdBu", -reach, reach, 1, panels)])


def action(files: RunFiles) -> Heatmap | None:
    """Return the pull of each arm's spectral term relative to the base loss's, means over seeds, at least −60 dB."""
    pulls = {
        arm: [np.maximum(d.pull_db, FLOOR) for d in by_seed.values() if d.pull_db is not None]
        for arm, by_seed in _found(files).items()
    }
    panels = [_panel(arm, maps) for arm, maps in pulls.items() if maps]
    if not panels:
        return None
    title = "gradient of λ × term / gradient of base loss, dB of power"
    return _heatmap("action", _found(files), [_scale(title, "BuPu", 0, panels)])


def figure(heatmap: Heatmap) -> Figure:
    """Return all panels on shared axes under their colour bars, for the PNG file."""
    from matplotlib.figure import Figure

    panels = [(scale, panel) for scale in heatmap.scales for panel in scale.panels]
    across = min(ACROSS, max(2, len(panels)))
    down = -(-len(panels) // across)
    figure = Figure(figsize=(WIDTH * across, (HEIGHT + 0.3) * down + 0.8), layout="constrained")
    grid = figure.add_gridspec(down + 1, across, height_ratios=[0.09, *[1.0] * down])
    for index, (scale, panel) in enumerate(panels):
        row, column = divmod(index, across)
        axes = figure.add_subplot(grid[row + 1, column])
        draw(axes, heatmap, scale, panel)
        below = index + across < len(panels)
        axes.tick_params(labelleft=column == 0, labelbottom=not below)
        axes.set(xlabel="" if below else axes.get_xlabel(), ylabel=axes.get_ylabel() if column == 0 else "")
        title = textwrap.fill(panel.arm.label, 30, max_lines=2, placeholder=" …")
        _above(axes, 0, 16, "■", color=panel.arm.color, size=10)
        _above(axes, 12, 16, title, size=9.5, weight="bold", parse_math=False)
        _above(axes, 0, 4, scale.span(panel), size=8.5, color=MUTED)
    starts = [0, 1][: len(heatmap.scales)]  # the first bar stands over its one panel, the next or only one over two
    for start, stop, scale in zip(starts, [*starts[1:], min(starts[-1] + 2, across)], heatmap.scales, strict=True):
        draw_bar(figure.add_subplot(grid[0, start:stop]), scale, wrap=34 * (stop - start))
    return figure


def panel_figure(heatmap: Heatmap, scale: Scale, panel: Panel) -> Figure:
    """Return one panel with its own ticks, without a title, for the page."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, HEIGHT))
    left, bottom = 0.5 / WIDTH, 0.42 / HEIGHT
    draw(figure.add_axes((left, bottom, 0.95 - left, 0.985 - bottom)), heatmap, scale, panel)
    return figure


def bar_figure(scale: Scale) -> Figure:
    """Return the colour bar of a kind of panels, without its title, for the page."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.6, 0.42))
    draw_bar(figure.add_axes((0.04, 0.58, 0.92, 0.38)), scale)
    return figure


def draw(axes: Axes, heatmap: Heatmap, scale: Scale, panel: Panel) -> None:
    """Draw one panel: noise levels down, the noisiest on top; bands across, all of one width."""
    levels, bands = panel.values.shape
    image = axes.imshow(panel.values, cmap=scale.cmap, vmin=scale.low, vmax=scale.high)
    image.set(interpolation="none", extent=(0, bands, levels, 0))
    axes.set_aspect("auto")
    rows, columns = np.nonzero(panel.agree)
    axes.plot(columns + 0.5, rows + 0.5, ls="", marker="o", ms=2.4, color=INK, mec="white", mew=0.4)
    step = next((n for n in range(1, bands) if bands % n == 0 and bands // n <= 5), -(-bands // 5))
    at = np.arange(0, bands + 1, step)
    axes.set_xticks(at, [f"{heatmap.edges[i]:.3g}" for i in at])
    rows = np.unique(np.linspace(0, levels - 1, min(levels, 6)).round().astype(int))
    axes.set_yticks(rows + 0.5, [number(snr_db(heatmap.log_snr[i]), 0, sign=True) for i in rows])
    axes.set_xlabel("frequency, cycles/sample", size=8.5, labelpad=2)
    axes.set_ylabel("SNR, dB  (top: noisy)", size=8.5, labelpad=1)
    axes.tick_params(length=2.5, pad=2, labelsize=8.5)
    axes.set(xlim=(0, bands), ylim=(levels, 0))
    axes.grid(False)


def draw_bar(axes: Axes, scale: Scale, *, wrap: int = 0) -> None:
    """Draw the colours of a kind of panels, across, with its values in dB and, if `wrap`, a title in lines so long."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    colors = ScalarMappable(Normalize(scale.low, scale.high), scale.cmap)
    bar = axes.figure.colorbar(colors, cax=axes, orientation="horizontal", extend=scale.extend)
    signed = scale.low < 0 < scale.high
    bar.locator = MaxNLocator(6, steps=[1, 2, 5, 10])
    bar.formatter = FuncFormatter(lambda value, _: f"{value:{'+' if signed and value else ''}g}".replace("-", "−"))
    bar.update_ticks()
    bar.outline.set_linewidth(0.5)
    axes.grid(False)
    axes.tick_params(length=2.5, pad=2, labelsize=8.5)
    if wrap:
        axes.set_title(textwrap.fill(scale.title, wrap), loc="left", size=9, color=INK)


def _above(axes: Axes, right: float, up: float, text: str, **options: Any) -> None:
    """Write text above the axes' upper left corner, `right` and `up` points away from it."""
    axes.annotate(text, (0, 1), (right, up), xycoords="axes fraction", textcoords="offset points", **options)


def snr_db(log_snr: float) -> float:
    """Return 10·log10 of a signal-to-noise ratio α²/σ² given as its natural logarithm."""
    return float(10 * log_snr / np.log(10))


def _found(files: RunFiles) -> dict[Arm, dict[int, Denoising]]:
    """Return arm -> seed -> maps of its finished cells; all must share noise levels and bands."""
    found: dict[Arm, dict[int, Denoising]] = {}
    first: Denoising | None = None
    for cell in files.runs:
        if cell.missing is not None or cell.denoising is None:
            continue
        first = first or cell.denoising
        for name in ("log_snr", "edges"):
            ours, theirs = getattr(cell.denoising, name), getattr(first, name)
            if ours.shape != theirs.shape or not np.allclose(ours, theirs, atol=1e-6):
                raise ValueError(f"{cell.folder}: {name} of denoising differs from the first run's; expected the same")
        found.setdefault(cell.arm, {})[cell.seed] = cell.denoising
    return found


def _heatmap(name: str, found: dict[Arm, dict[int, Denoising]], scales: list[Scale], *, seeds: int = 1) -> Heatmap:
    first = next(iter(next(iter(found.values())).values()))
    return Heatmap(name, first.log_snr, first.edges, scales, seeds)


def _panel(arm: Arm, maps: list[Array], *, paired: bool = False) -> Panel:
    """Return the mean of one map a seed; of paired differences also where the signs of several seeds agree."""
    every = np.stack(maps)
    same = np.abs(np.sign(every).sum(axis=0)) == len(every)
    agree = same & (paired and len(maps) > 1)
    return Panel(arm, every.mean(axis=0), agree, every.min(axis=0), every.max(axis=0), len(maps))


def _scale(title: str, cmap: str, digits: int, panels: list[Panel]) -> Scale:
    """Return a scale from the lowest to the highest value of its panels, within FLOOR and CEILING."""
    seen = np.concatenate([panel.values[np.isfinite(panel.values)] for panel in panels])
    low, high = (float(seen.min()), float(seen.max())) if seen.size else (-1.0, 0.0)
    low, high = max(low, FLOOR), min(high, CEILING)
    return Scale(title, cmap, low, max(high, low + 1), digits, panels)


def _reach(differences: list[Panel]) -> float:
    """Return the symmetric range of values around 0, dB: the largest one, within 0.1 and REACH."""
    sizes = [np.abs(panel.values[np.isfinite(panel.values)]).max(initial=0) for panel in differences]
    return float(np.clip(max(sizes, default=0), 0.1, REACH))
