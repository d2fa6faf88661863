"""The data of the report's figures and tables, as rows that a page offers as CSV: all that was drawn."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from specreg.report.contents import Record, RunFiles, Spectrum
from specreg.report.figures import Curves
from specreg.report.heatmaps import Heatmap, snr_db
from specreg.report.logs import smoothed
from specreg.report.page import Table
from specreg.report.table import FLOOR, Column

FREQUENCY = "frequency, cycles/sample"


def over_seeds(quantity: str, truths: Mapping[str, Spectrum], arms: Mapping[str, Curves]) -> Table:
    """Return curves over frequency, by name: mean over seeds, ends of the band, then each seed's own value."""
    seeds = sorted({seed for curves in arms.values() if curves.ends is None for seed in curves.by_seed})

    def rows() -> Iterator[Sequence[object]]:
        for name, truth in truths.items():
            for row in zip(truth.frequency.tolist(), truth.power.tolist(), strict=True):
                yield [name, *row, *[None] * (4 + len(seeds))]
        for name, curves in arms.items():
            mean, band = curves.every.mean(axis=0), curves.band()
            of_seed = curves.by_seed if curves.ends is None else {}
            count = len(curves.by_seed) if curves.ends is None else None
            kind = "" if band is None else "lowest to highest seed" if curves.ends is None else "95% interval"
            for k, at in enumerate(curves.frequency.tolist()):
                ends = [None, None] if band is None else band[:, k].tolist()
                own = [float(of_seed[seed][k]) if seed in of_seed else None for seed in seeds]
                yield [name, at, float(mean[k]), *ends, kind, count, *own]

    header = ["name", FREQUENCY, quantity, "low", "high", "from low to high", "seeds"]
    return Table([*header, *(f"seed {seed}" for seed in seeds)], rows())


def series(files: RunFiles, column: str, label: str) -> Table:
    """Return what was logged at each step, as logged and as drawn."""

    def rows() -> Iterator[Sequence[object]]:
        for cell in files.runs:
            values = cell.log[column]
            good = np.isfinite(values)
            drawn = smoothed(column, values[good])
            for row in zip(cell.log["step"][good].tolist(), values[good].tolist(), drawn.tolist(), strict=True):
                yield [cell.arm.label, cell.seed, int(row[0]), *row[1:]]

    return Table(["name", "seed", "step", label, "smoothed"], rows())


def maps(heatmap: Heatmap) -> Table:
    """Return each cell of each panel: the mean over seeds, the lowest and highest seed, whether all signs agree."""

    def rows() -> Iterator[Sequence[object]]:
        for scale in heatmap.scales:
            for panel in scale.panels:
                for (row, band), value in np.ndenumerate(panel.values):
                    level = snr_db(float(heatmap.log_snr[row]))
                    where = [panel.arm.label, scale.title, level, *map(float, heatmap.edges[band : band + 2])]
                    several = panel.seeds > 1
                    ends = [float(end[row, band]) if several else None for end in (panel.low, panel.high)]
                    yield [*where, float(value), *ends, panel.seeds, int(panel.agree[row, band])]

    header = ["name", "quantity", "SNR, dB", f"from {FREQUENCY}", f"to {FREQUENCY}", "mean, dB", "lowest", "highest"]
    return Table([*header, "seeds", "same sign in all seeds"], rows())


def measurements(parts: Sequence[tuple[Record, Mapping[str, str]]], metrics: Sequence[Column]) -> Table:
    """Return the numbers of a table: mean, spread over seeds, interval, paired difference, verdict.

    `parts` are comparisons, each with the labels of its arms by name.
    """
    by_key = {metric.key: metric for metric in metrics}

    def rows() -> Iterator[Sequence[object]]:
        for comparison, labels in parts:
            truth = comparison.get("truth") or {}
            for key, value in (truth.get("metrics") or {}).items():
                if (metric := by_key.get(key.removeprefix(FLOOR))) is not None:
                    against = "real against real" if key.startswith(FLOOR) else None
                    name = str(truth.get("kind") or "real data")
                    yield [name, metric.label, metric.unit, value, *[None] * 7, against]
            for row in comparison["table"]:
                if (metric := by_key.get(row["metric"])) is not None:
                    over = [row["mean"], row.get("std"), None if "low" in row else row.get("n", 1)]
                    ends = [row.get("low"), row.get("high")]
                    change = [(row.get("difference") or {}).get(key) for key in ("mean", "low", "high")]
                    name = labels[row["arm"]]
                    yield [name, metric.label, metric.unit, *over, *ends, *change, row.get("verdict")]

    value = ["value", "standard deviation over seeds", "seeds", "95% low", "95% high"]
    change = ["difference from the baseline", "its 95% low", "its 95% high", "verdict"]
    return Table(["name", "metric", "unit", *value, *change], rows())
