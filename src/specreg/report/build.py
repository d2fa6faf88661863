"""Write report.html, one self-contained page, and its figures from the files of a comparison or a run."""

from __future__ import annotations

import math
import os
from base64 import b64encode
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import numpy as np

from specreg.report import figures, samples
from specreg.report.reading import Arm, Cell, Record, Study, check_comparison, read_study

ARROWS = {"lower": "↓", "higher": "↑", "zero": "→ 0", "none": ""}
HEADLINE = (
    "log_spectral_distance_db"  # what the verdict is about; without it, the first metric with a direction
)
FLOOR = "floor: "  # prefix of the truth's metrics that compare real images with other real images
FIGURES = ("samples", "spectrum", "band_error", "losses")


def build_report(folder: str | Path, *, out: str | Path | None = None) -> Path:
    """Write the report of a comparison folder, or of a single run folder, and return its path.

    The page goes to `out` (default `folder`/report.html) and needs no other file: styles are inline, images
    are data URIs, there are no scripts. The figures go to `folder`/figures/*.png as well. A figure without
    data is left out; unfinished cells are named on the page.

    Raises ValueError for a folder that is neither, or for a corrupt file, which the message names.
    """
    from jinja2 import Environment

    folder = Path(folder)
    study = read_study(folder)
    out = folder / "report.html" if out is None else Path(out)
    template = files("specreg.report").joinpath("template.html").read_text(encoding="utf-8")
    with figures.styled():
        page = _page(study, out.parent)
        _save_figures(study)
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(environment.from_string(template).render(page), encoding="utf-8")
    return out


def summary_rows(comparison: Record) -> list[list[str]]:
    """Return the table of comparison.json as text, header first, then one row for each metric and arm."""
    check_comparison(comparison)
    base = comparison.get("baseline")
    rows = [["metric", "arm", "mean ± std", "seeds", f"difference from {base}, 95% interval", "verdict"]]
    for metric in _metrics(comparison):
        for arm in comparison["arms"]:
            row = _row(comparison, arm["name"], metric)
            if row is not None:
                entry = metric.entry(row)
                value = f"{entry.value} ± {entry.std}" if entry.std else entry.value
                seeds, arm_name = str(row.get("n", "–")), str(arm["name"])
                rows.append(
                    [metric.title, arm_name, value, seeds, entry.difference or "–", entry.verdict or "–"]
                )
    return rows


def verdicts(comparison: Record) -> list[str]:
    """Return one sentence an arm other than the baseline: what changed, how sure that is, what got worse."""
    check_comparison(comparison)
    others = [arm for arm in comparison["arms"] if arm["name"] != comparison.get("baseline")]
    return [f"{arm.get('label') or arm['name']}: {_verdict(comparison, arm['name'])}" for arm in others]


class Entry(NamedTuple):
    """One cell of the table, as text; empty where there is nothing to say."""

    value: str
    std: str = ""
    difference: str = ""
    verdict: str = ""
    best: bool = False


@dataclass(frozen=True)
class Metric:
    """How a metric is called, written and judged; from comparison.json's `metrics`."""

    key: str
    label: str
    unit: str
    better: str
    digits: int
    help: str

    @property
    def arrow(self) -> str:
        """The direction that is better."""
        return ARROWS[self.better]

    @property
    def title(self) -> str:
        """Label, unit and direction, e.g. "log-spectral distance, dB ↓"."""
        return f"{self.label}{f', {self.unit}' if self.unit else ''} {self.arrow}".strip()

    def text(self, value: float | None, *, sign: bool = False, unit: bool = False) -> str:
        """Return `value` with this metric's digits, a real minus sign, and its unit if asked for."""
        return number(value, self.digits, sign=sign) + (f" {self.unit}" if unit and self.unit else "")

    def interval(self, difference: Record) -> str:
        """Return "low … high" of a paired difference, or nothing where there is none (one seed)."""
        ends = difference.get("low"), difference.get("high")
        return "" if None in ends else " … ".join(self.text(end, sign=True) for end in ends)

    def entry(self, row: Record, *, best: bool = False) -> Entry:
        """Return a row of comparison.json's table as text."""
        difference, std = row.get("difference"), row.get("std")
        change = ""
        if difference:
            interval = self.interval(difference)
            change = self.text(difference.get("mean"), sign=True) + (f" [{interval}]" if interval else "")
        return Entry(
            value=self.text(row["mean"]),
            std="" if std is None else self.text(std),
            difference=change,
            verdict=row.get("verdict") or "",
            best=best,
        )


def number(value: float | None, digits: int, *, sign: bool = False) -> str:
    """Return `value` with `digits` decimals and a real minus sign; "–" for None, no sign on 0."""
    if value is None:
        return "–"
    if not math.isfinite(value):
        return "not finite"
    text = f"{value:+.{digits}f}" if sign else f"{value:.{digits}f}"
    return text.lstrip("+-") if float(text) == 0 else text.replace("-", "−")


def seconds(value: float) -> str:
    """Return a duration to three figures in the unit that suits it: µs, ms, s, min or h; "–" for NaN."""
    if not math.isfinite(value):
        return "–"
    for factor, unit in ((3600, "h"), (60, "min"), (1, "s"), (1e-3, "ms")):
        if value >= factor * (2 if factor > 1 else 1):
            return f"{value / factor:#.3g}".rstrip(".") + f" {unit}"
    return f"{value * 1e6:.0f} µs"


def _page(study: Study, base: Path) -> Record:
    """Return what the template shows; links are relative to `base`, where the page will lie."""
    comparison, metrics = study.comparison, _metrics(study.comparison)
    grids = samples.panels(study)
    images = [(grid, _data_uri("png", samples.png(grid.pixels))) for grid in grids]
    plots = {curve.name: curve for curve in figures.curves(study)}
    others = [arm for arm in study.arms if arm.name != comparison.get("baseline")]
    return {
        "title": str(comparison.get("title") or study.folder.resolve().name),
        "about": _about(comparison),
        "single": "baseline" not in comparison,
        "seeds": len(comparison["seeds"]),
        "verdicts": [(arm, _verdict(comparison, arm.name)) for arm in others if comparison.get("baseline")],
        "notices": _notices(study),
        "panels": images,
        "plots": {name: (_data_uri("svg+xml", figures.svg(c.figure)), c.alt) for name, c in plots.items()},
        "metrics": metrics,
        "truth": _truth_row(comparison, metrics),
        "rows": [(arm, _table_row(comparison, arm, metrics), *_time(study, arm)) for arm in study.arms],
        "cells": [_cell_row(cell, base) for cell in study.cells],
        "command": comparison.get("command"),
        "config": comparison.get("config"),
    }


def _save_figures(study: Study) -> None:
    folder = study.folder / "figures"
    folder.mkdir(exist_ok=True)
    grids = samples.panels(study)
    drawn = (
        (samples.samples_figure(grids) if grids else None, 100),  # 100 dpi: its pixels are the data's
        (figures.spectrum_figure(study), 200),
        (figures.band_error_figure(study), 200),
        (figures.losses_figure(study), 200),
    )
    for name, (figure, dpi) in zip(FIGURES, drawn, strict=True):
        path = folder / f"{name}.png"
        if figure is None:
            path.unlink(missing_ok=True)  # an older report's figure would lie beside this one's page
        else:
            figure.savefig(path, dpi=dpi, metadata={"Software": None})


def _metrics(comparison: Record) -> list[Metric]:
    """Return the metrics in the order of comparison.json; what it leaves open is read off the name."""
    found = []
    for key, about in comparison["metrics"].items():
        better = about.get("better", "none")
        if better not in ARROWS:
            raise ValueError(f"metric {key!r}: better must be one of {', '.join(ARROWS)}; got {better!r}")
        name, _, end = key.rpartition("_")
        plain, unit = (name, "dB") if end == "db" else (key, "")
        label = about.get("label", plain.replace("_", " "))
        digits, text = int(about.get("digits", 3)), about.get("help", "")
        found.append(Metric(key, label, about.get("unit") or unit, better, digits, text))
    return found


def _row(comparison: Record, arm: str, metric: Metric) -> Record | None:
    rows = (row for row in comparison["table"] if row["arm"] == arm and row["metric"] == metric.key)
    return next((row for row in rows if row["mean"] is not None), None)


def _verdict(comparison: Record, arm: str) -> str:
    """Return the headline metric's change for one arm in a sentence, and what else moved."""
    metrics = _metrics(comparison)
    judged = [metric for metric in metrics if metric.key == HEADLINE] or [m for m in metrics if m.arrow]
    base = _row(comparison, comparison["baseline"], judged[0]) if judged else None
    row = _row(comparison, arm, judged[0]) if judged else None
    if base is None or row is None:
        return "nothing to compare yet."
    metric, count = judged[0], row.get("n", 1)
    change = f"{metric.label} {metric.text(base['mean'], unit=True)} → {metric.text(row['mean'], unit=True)}"
    if count == 1:
        return f"{change} (one seed: a lead, not a result)."
    interval = metric.interval(row.get("difference") or {})
    unit = f" {metric.unit}" if metric.unit else ""
    paired = f"95% interval of the paired difference {interval}{unit}" if interval else "no paired interval"
    sentence = f"{change} ({', '.join(filter(None, [row.get('verdict'), paired]))}, {count} seeds)."
    for word in ("better", "worse"):
        rest = [(m.label, _row(comparison, arm, m)) for m in metrics if m is not metric]
        names = [label for label, other in rest if other and other.get("verdict") == word]
        sentence += f" Also {word}: {', '.join(names)}." if names and word == row.get("verdict") else ""
        sentence += (
            f" {word.capitalize()}: {', '.join(names)}." if names and word != row.get("verdict") else ""
        )
    return sentence


def _table_row(comparison: Record, arm: Arm, metrics: list[Metric]) -> list[Entry]:
    """Return one arm's entries; best marks the best mean of all arms, if its verdict is "better"."""
    entries = []
    for metric in metrics:
        row = _row(comparison, arm.name, metric)
        every = (_row(comparison, other["name"], metric) for other in comparison["arms"])
        keys = {"lower": float, "higher": lambda mean: -mean, "zero": abs, "none": lambda mean: 0}
        key: Any = keys[metric.better]
        best = row is not None and row.get("verdict") == "better"
        best = best and key(row["mean"]) <= min(key(other["mean"]) for other in every if other)  # type: ignore
        entries.append(metric.entry(row, best=best) if row else Entry("–"))
    return entries


def _truth_row(comparison: Record, metrics: list[Metric]) -> list[Entry] | None:
    """Return the real images' own values, or their distance from other real images; None if neither."""
    values = (comparison.get("truth") or {}).get("metrics") or {}
    row = []
    for metric in metrics:
        floor = values.get(FLOOR + metric.key)
        value = values.get(metric.key, floor)
        note = "real against real" if floor is not None and metric.key not in values else ""
        row.append(Entry(metric.text(value) if value is not None else "", verdict=note))
    return row if any(entry.value for entry in row) else None


def _time(study: Study, arm: Arm) -> tuple[str, str]:
    """Return the mean time a step over finished cells, and its ratio to the baseline's."""
    mean = {a.name: [c.seconds_per_step for c in study.of(a)] for a in study.arms}
    means = {name: float(np.mean(times)) if times else math.nan for name, times in mean.items()}
    ratio = means[arm.name] / means.get(str(study.comparison.get("baseline")), math.nan)
    return seconds(means[arm.name]), f"× {ratio:.2f}" if math.isfinite(ratio) else ""


def _notices(study: Study) -> list[str]:
    """Return what the reader must know before the numbers: unfinished cells, lines left out."""
    left = [f"{cell.arm.label}, seed {cell.seed} ({cell.missing})" for cell in study.cells if cell.missing]
    cut = [f"{cell.arm.label}, seed {cell.seed}" for cell in study.cells if cell.truncated]
    notices = [f"Unfinished, and not in the numbers below: {'; '.join(left)}."] if left else []
    if cut:
        count = f"{len(cut)} truncated last line{'s' if len(cut) > 1 else ''}"
        notices.append(f"{count} of metrics.jsonl left out: {'; '.join(cut)}.")
    return notices


def _about(comparison: Record) -> list[str]:
    versions = [f"{name} {version}" for name, version in (comparison.get("versions") or {}).items()]
    seeds = comparison["seeds"]
    plan = f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"
    return [
        str(part) for part in (comparison.get("created"), comparison.get("machine"), plan, *versions) if part
    ]


def _cell_row(cell: Cell, base: Path) -> Record:
    results = cell.results or {}
    timing = results.get("timing") or {}
    links = []
    if cell.folder is not None:
        names = [("folder", "."), *((n, n) for n in ("config.yaml", "metrics.jsonl", "results.json"))]
        links = [
            (text, _link(cell.folder / name, base)) for text, name in names if (cell.folder / name).exists()
        ]
    return {
        "arm": cell.arm,
        "seed": cell.seed,
        "status": cell.missing or "finished",
        "step": results.get("step", "–"),
        "samples": results.get("samples", "–"),
        "sampler": results.get("sampler", "–"),
        "parameters": f"{results['parameters']:,}".replace(",", " ") if results.get("parameters") else "–",
        "time": seconds(float(timing.get("train_seconds") or math.nan)),
        "links": links,
    }


def _link(path: Path, base: Path) -> str:
    """Return a relative, quoted link; the leading "./" keeps a colon in a name from reading as a scheme."""
    return "./" + quote(Path(os.path.relpath(path, base)).as_posix())


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{b64encode(content).decode('ascii')}"
