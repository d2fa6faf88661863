"""Figures of the turbulence study from the samples of its runs.

    python docs/measured/turbulence.py RUNS TEST.npy docs/figures/turbulence

RUNS is the folder of `specreg compare turbulence`, TEST.npy the simulated fields that it is measured against. Writes
NAME.svg (spectra, distribution, structure functions, fluxes) and NAME-samples.jpg.
"""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
import torch
import yaml
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from specreg.metrics import turbulence
from specreg.report.fields import pictures, span

COLORS = ("#7f7f7f", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00")
EDGES = np.linspace(-6, 6, 61)


class Curves(NamedTuple):
    """What is drawn of one set of fields."""

    energy: np.ndarray
    enstrophy: np.ndarray
    density: np.ndarray
    second: np.ndarray
    third: np.ndarray
    enstrophy_flux: np.ndarray
    energy_flux: np.ndarray


def curves(fields: np.ndarray, spread: float) -> Curves:
    """Return the curves of vorticity `[N, 1, H, H]`; `spread` is the standard deviation of the truth."""
    omega = torch.from_numpy(np.ascontiguousarray(fields[:, 0]))
    spectra, structure, flux = (
        measure(omega) for measure in (turbulence.spectra, turbulence.structure_functions, turbulence.fluxes)
    )
    density, _ = np.histogram(fields / spread, EDGES, density=True)
    return Curves(
        spectra.energy.numpy(), spectra.enstrophy.numpy(), density, structure.second.numpy(), structure.third.numpy(),
        flux.enstrophy.numpy(), flux.energy.numpy(),
    )  # fmt: skip


def samples(runs: Path) -> dict[str, list[np.ndarray]]:
    """Return the samples of each arm whose weights are the same in all bands, one array for each finished seed."""
    found: dict[str, list[np.ndarray]] = {}
    for folder in sorted(runs.glob("*-seed*")):
        config, drawn = folder / "config.yaml", folder / "samples" / "samples.npy"
        if config.is_file() and (folder / "results.json").is_file():
            term = yaml.safe_load(config.read_text())["spectral"]
            if term is None or term["band_weight"] is None:
                arm = f"{term['name']}, ratio {term['ratio']:g}" if term else "none"
                found.setdefault(arm, []).append(np.load(drawn))
    return dict(sorted(found.items(), key=lambda arm: (-len(arm[1]), arm[0] != "none", arm[0])))


def main(runs: Path, test: Path, target: Path) -> None:
    """Draw both figures."""
    truth = np.load(test)
    drawn = samples(runs)
    written = io.StringIO()
    draw_statistics(truth, drawn).savefig(written, format="svg", metadata={"Date": None})
    # A tenth of a point is enough, and a third of the file.
    drawing = re.sub(r'(?<= d=")[^"]*', lambda d: re.sub(r"(\.\d)\d+", r"\1", d[0]), written.getvalue())
    target.with_suffix(".svg").write_text(drawing, encoding="utf-8")
    # Fields compress badly without loss.
    draw_samples(truth, drawn).savefig(target.parent / f"{target.name}-samples.jpg", pil_kwargs={"quality": 80})


def draw_statistics(truth: np.ndarray, drawn: dict[str, list[np.ndarray]]) -> Figure:
    """Return the figure of all statistics: means of the seeds in their range, the simulation dashed."""
    spread, side = float(truth.std()), truth.shape[-1]
    true = curves(truth, spread)
    found = {arm: [curves(each, spread) for each in sets] for arm, sets in drawn.items()}
    k, r = np.arange(1, side // 2 + 1), np.arange(1, side // 2 + 1) * 2 * np.pi / side
    middle = (EDGES[1:] + EDGES[:-1]) / 2
    figure = Figure(figsize=(13.5, 6.6), layout="constrained")
    axes = figure.subplots(2, 4)

    def draw(ax: Any, x: np.ndarray, name: str, change: Any = lambda y: y) -> None:
        for (arm, sets), color in zip(found.items(), COLORS, strict=False):
            values = np.array([change(getattr(each, name)) for each in sets])
            ax.plot(x, values.mean(0), color=color, lw=1.4, label=named(arm))
            if len(values) > 1:
                ax.fill_between(x, values.min(0), values.max(0), color=color, alpha=0.15, lw=0)
        ax.plot(x, change(getattr(true, name)), color="black", lw=1.2, ls="--", label="simulation")

    def slopes(ax: Any, values: np.ndarray, *lines: tuple[float, str], low: int = 5, high: int = 20) -> None:
        line = k[low - 1 : high].astype(float)
        for slope, label in lines:
            height = 4 * values[low - 1] * (line / low) ** slope
            ax.plot(line, height, color="#555555", lw=0.8, ls=":")
            ax.annotate(label, (line[-1], height[-1]), fontsize=8)

    logarithmic = {"xscale": "log", "yscale": "log", "xlabel": "k"}
    draw(axes[0, 0], k, "energy")
    slopes(axes[0, 0], true.energy, (-3.0, "$k^{-3}$"), (-5 / 3, "$k^{-5/3}$"))
    axes[0, 0].set(**logarithmic, title="energy spectrum E(k)")
    draw(axes[0, 1], k, "energy", lambda y: 10 * np.log10(y / true.energy))
    axes[0, 1].axhspan(-1, 1, color="black", alpha=0.06, lw=0)
    axes[0, 1].set(xscale="log", xlabel="k", title="E(k) over the simulation's, dB")
    slope = -np.polyfit(np.log(k[7:20]), np.log(true.energy[7:20]), 1)[0]
    draw(axes[0, 2], k[3:], "energy", lambda y: y[3:] * k[3:] ** slope)
    axes[0, 2].set(**logarithmic, title=f"compensated, $k^{{{slope:.1f}}}$ E(k)")
    draw(axes[0, 3], k, "enstrophy")
    slopes(axes[0, 3], true.enstrophy, (-1.0, "$k^{-1}$"))
    axes[0, 3].set(**logarithmic, title="enstrophy spectrum Z(k)")
    draw(axes[1, 0], middle, "density", lambda y: np.where(y > 0, y, np.nan))
    gaussian = np.exp(-(middle**2) / 2) / np.sqrt(2 * np.pi)
    axes[1, 0].plot(middle, gaussian, color="#555555", lw=0.8, ls=":", label="Gaussian")
    axes[1, 0].set(yscale="log", ylim=(1e-6, 1), xlabel="ω / σ of the simulation", title="distribution of vorticity")
    # At r = π, half a period, the third moment is 0 whatever the field.
    draw(axes[1, 1], r[:-1], "second", lambda y: y[:-1])
    draw(axes[1, 1], r[:-1], "third", lambda y: np.abs(y[:-1]))
    axes[1, 1].set(xscale="log", yscale="log", xlabel="r", title="structure functions ⟨δu²⟩, below |⟨δu³⟩|")
    for ax, name, title in (
        (axes[1, 2], "enstrophy_flux", "enstrophy flux Π(k)"),
        (axes[1, 3], "energy_flux", "energy flux Π(k)"),
    ):
        draw(ax, k, name)
        ax.axhline(0, color="#555555", lw=0.6)
        ax.set(xscale="log", xlabel="k", title=title)
    for ax in axes.flat:
        ax.title.set_size(10)
        ax.grid(visible=True, which="major", lw=0.4, color="#dddddd")
        ax.xaxis.set_minor_formatter(NullFormatter())
        if ax.get_xlabel() == "k":
            ax.set_xticks([1, 2, 4, 8, 16, 32], ["1", "2", "4", "8", "16", "32"])
    axes[0, 2].set_xlim(left=3.8)
    handles, labels = axes[1, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    return figure


def draw_samples(truth: np.ndarray, drawn: dict[str, list[np.ndarray]]) -> Figure:
    """Return six fields of the simulation and of each arm's first seed, in the same colours."""
    rows = [("simulation", truth[:: len(truth) // 6][:6])]
    rows += [(named(arm), sets[0][:6]) for arm, sets in drawn.items()]
    limits = span([truth])
    figure = Figure(figsize=(8.6, 1.4 * len(rows)), layout="constrained", dpi=90)
    grid = figure.subplots(len(rows), 1, squeeze=False)[:, 0]
    for ax, (name, fields) in zip(grid, rows, strict=True):
        tiles = pictures(fields, limits)
        wide = np.concatenate([np.pad(tile, ((0, 0), (0, 3), (0, 0)), constant_values=255) for tile in tiles], 1)
        ax.imshow(wide, interpolation="nearest")
        ax.set(xticks=[], yticks=[])
        ax.set_title(name, loc="left", fontsize=8, pad=2)
        ax.spines[:].set_visible(False)
    return figure


def named(arm: str) -> str:
    """Return the name of an arm as the page has it."""
    return "MSE alone" if arm == "none" else arm


if __name__ == "__main__":
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "turbulence"}):  # text as text, not as outlines
        main(*map(Path, sys.argv[1:4]))
