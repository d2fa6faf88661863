"""Figures of the turbulence study from the samples of its runs.

    python docs/measured/turbulence.py RUNS TEST.npy docs/figures/turbulence

RUNS is the folder of `specreg compare turbulence`, TEST.npy the simulated fields that it is measured against. Writes
NAME.svg (spectra, distribution, structure functions, fluxes) and NAME-samples.png.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure

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
    flux: np.ndarray


def curves(fields: np.ndarray, spread: float) -> Curves:
    """Return the curves of vorticity `[N, 1, H, H]`; `spread` is the standard deviation of the truth."""
    omega = torch.from_numpy(np.ascontiguousarray(fields[:, 0]))
    spectra, structure = turbulence.spectra(omega), turbulence.structure_functions(omega)
    density, _ = np.histogram(fields / spread, EDGES, density=True)
    return Curves(
        spectra.energy.numpy(), spectra.enstrophy.numpy(), density, structure.second.numpy(), structure.third.numpy(),
        turbulence.fluxes(omega).enstrophy.numpy(),
    )  # fmt: skip


def samples(runs: Path, arm: str) -> list[np.ndarray]:
    """Return the samples of an arm, one array for each seed."""
    comparison = json.loads((runs / "comparison.json").read_text())
    folders = [runs / cell["folder"] for cell in comparison["cells"] if cell["arm"] == arm]
    return [np.load(folder / "samples" / "samples.npy") for folder in folders if (folder / "results.json").is_file()]


def main(runs: Path, test: Path, target: Path) -> None:
    """Draw both figures."""
    truth = np.load(test)
    spread = float(truth.std())
    true = curves(truth, spread)
    names = [arm["name"] for arm in json.loads((runs / "comparison.json").read_text())["arms"]]
    drawn = {name: found for name in names if name != "calibrated" and (found := samples(runs, name))}
    found = {name: [curves(each, spread) for each in sets] for name, sets in drawn.items()}
    side = truth.shape[-1]
    k, r = np.arange(1, side // 2 + 1), np.arange(1, side // 2 + 1) * 2 * np.pi / side
    middle = (EDGES[1:] + EDGES[:-1]) / 2

    figure = Figure(figsize=(11, 6.6), layout="constrained")
    axes = figure.subplots(2, 3)
    colors = dict(zip(found, COLORS, strict=False))

    def draw(ax: Any, x: np.ndarray, name: str, change: Any = lambda y: y) -> None:
        for arm, sets in found.items():
            values = np.array([change(getattr(each, name)) for each in sets])
            ax.plot(x, values.mean(0), color=colors[arm], lw=1.4, label="MSE alone" if arm == "none" else arm)
            ax.fill_between(x, values.min(0), values.max(0), color=colors[arm], alpha=0.15, lw=0)
        ax.plot(x, change(getattr(true, name)), color="black", lw=1.2, ls="--", label="simulation")

    ax = axes[0, 0]
    draw(ax, k, "energy")
    for slope, label, low in ((-3.0, "$k^{-3}$", 5), (-5 / 3, "$k^{-5/3}$", 5)):
        line = k[low - 1 : 20].astype(float)
        ax.plot(line, 4 * true.energy[low - 1] * (line / low) ** slope, color="#555555", lw=0.8, ls=":")
        ax.annotate(label, (line[-1], 4 * true.energy[low - 1] * (line[-1] / low) ** slope), fontsize=8)
    ax.set(xscale="log", yscale="log", xlabel="k", ylabel="E(k)", title="energy spectrum")
    ax = axes[0, 1]
    draw(ax, k, "energy", lambda y: 10 * np.log10(y / true.energy))
    ax.axhspan(-1, 1, color="black", alpha=0.06, lw=0)
    ax.set(xscale="log", xlabel="k", ylabel="dB", title="energy spectrum over the simulation's")
    ax = axes[0, 2]
    slope = -np.polyfit(np.log(k[7:20]), np.log(true.energy[7:20]), 1)[0]
    draw(ax, k[3:], "energy", lambda y: y[3:] * k[3:] ** slope)
    ax.set(xscale="log", yscale="log", xlabel="k", ylabel=f"$k^{{{slope:.1f}}}$ E(k)", title="compensated")
    ax = axes[1, 0]
    draw(ax, middle, "density", lambda y: np.where(y > 0, y, np.nan))
    ax.plot(middle, np.exp(-(middle**2) / 2) / np.sqrt(2 * np.pi), color="#555555", lw=0.8, ls=":", label="Gaussian")
    ax.set(yscale="log", ylim=(1e-6, 1), xlabel="ω / σ of the simulation", title="distribution of vorticity")
    ax = axes[1, 1]
    draw(ax, r, "second")
    draw(ax, r, "third", np.abs)
    ax.set(xscale="log", yscale="log", xlabel="r", title="structure functions: ⟨δu²⟩ above, |⟨δu³⟩| below")
    ax = axes[1, 2]
    draw(ax, k, "flux")
    ax.axhline(0, color="#555555", lw=0.6)
    ax.set(xscale="log", xlabel="k", ylabel="Π(k)", title="enstrophy flux")
    handles, labels = axes[1, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    for ax in axes.flat:
        ax.title.set_size(10)
        ax.grid(visible=True, which="major", lw=0.4, color="#dddddd")
    figure.savefig(target.with_suffix(".svg"))

    rows = [("simulation", truth[:: len(truth) // 6][:6])]
    rows += [("MSE alone" if arm == "none" else arm, sets[0][:6]) for arm, sets in drawn.items()]
    limits = span([truth])
    figure = Figure(figsize=(7.6, 1.16 * len(rows)), layout="constrained", dpi=110)
    grid = figure.subplots(len(rows), 1)
    for ax, (name, fields) in zip(grid, rows, strict=True):
        tiles = pictures(fields, limits)
        wide = np.concatenate([np.pad(tile, ((0, 0), (0, 3), (0, 0)), constant_values=255) for tile in tiles], 1)
        ax.imshow(wide, interpolation="nearest")
        ax.set(xticks=[], yticks=[])
        ax.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=8)
        ax.spines[:].set_visible(False)
    figure.savefig(target.parent / f"{target.name}-samples.png")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]))
