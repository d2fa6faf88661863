"""Write report.html, one self-contained page, and its figures from the files of a comparison or a run."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import numpy as np

from specreg._files import whole_file
from specreg.report import exports, figures, heatmaps, logs, page, pictures, players, words
from specreg.report.colors import INK
from specreg.report.contents import Arm, Cell, Record, RunFiles
from specreg.report.merging import read_all
from specreg.report.table import (
    SIDES,
    arm_entries,
    duration,
    metrics_of,
    step_time,
    truth_entries,
    unit,
    verdict,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def build_report(
    folder: str | Path | Sequence[str | Path], *, out: str | Path | None = None, measured: Sequence[RunFiles] = ()
) -> Path:
    """Write the report of comparison folders and run folders, one or several, and return its path.

    The page goes to `out` and needs no other file: styles are inline, images are data URIs, there are no scripts. For
    one folder `out` is `folder`/report.html by default, and the figures go to `folder`/figures/*.png as well; for
    several it is report.html here. A figure without data is left out; unfinished cells are named on the page.

    Args:
        folder: a folder, or several: see `merging.read_all`.
        out: where the page goes.
        measured: sets of samples that are shown beside the folders: see `measured.measured`.

    Raises ValueError for a folder that is neither, or for a corrupt file, which the message names.
    """
    folders = [Path(folder)] if isinstance(folder, str | Path) else [Path(one) for one in folder]
    files = read_all(folders, measured=measured)
    alone = len(folders) == 1 and not measured
    out = (files.folder / "report.html" if alone else Path("report.html")) if out is None else Path(out)
    with figures.styled():
        content = _page(files, out.parent)
        if alone:
            _save_figures(files)
    page.write(out, page.render("report.html", content))
    return out


def _page(files: RunFiles, base: Path) -> Record:
    """Return what the template shows; links are relative to `base`, where the page will lie."""
    title = str(files.comparison.get("title") or files.folder.resolve().name)
    tables = _tables(files, title)
    paired = [(part, part.comparison.get("baseline")) for part in files.parts]
    others = [(part, arm) for part, baseline in paired if baseline for arm in part.arms if arm.name != baseline]
    said = [
        (arm, part.comparison["said"][arm.name])
        for part in files.parts
        for arm in part.arms
        if arm.name in part.comparison.get("said", {})
    ]
    entries = [entry for table in tables for _, row, *_ in table["rows"] for entry in row]
    helps = {(m.label, m.help): m for part in files.parts for m in metrics_of(part.comparison) if m.help}
    return {
        "title": title,
        "about": words.about(files.comparison),
        "seeds": max((len(files.of(arm)) for arm in files.arms), default=0),
        "seeded": any(part.comparison["seeds"] for part in files.parts),
        "intervals": any(cell.spectrum and cell.spectrum.low is not None for cell in files.cells),
        "verdicts": [(arm, verdict(part.comparison, arm.name)) for part, arm in others] + said,
        "notices": words.notices(files),
        "arms": files.arms,
        "arm_names": [(arm.label, arm.color) for arm in files.arms],
        "real_names": [(truth.name, INK) for truth in files.different_truths if truth.spectrum],
        "real": " or ".join(dict.fromkeys(truth.name for truth in files.different_truths)),
        "unit": unit(files.comparison),
        "clips": [_clip(clip) for clip in players.clips(files)],
        "panels": [(panel, page.data_uri("image/png", pictures.png(panel.pixels))) for panel in pictures.panels(files)],
        "plots": _plots(files, title),
        "maps": _maps(files, title),
        "spread": words.spread(entries, paired=bool(others)),
        "tables": tables,
        "helps": list(helps.values()),
        "steps": words.steps(files),
        "counted": words.counted(files),
        "facts": words.facts(files),
        "cells": [_cell(cell, base) for cell in files.runs],
        "repeats": [
            {
                "title": part.title,
                "command": part.comparison.get("command"),
                "config": part.comparison.get("config"),
            }
            for part in files.parts
            if part.comparison.get("command") or part.comparison.get("config")
        ],
    }


def _plots(files: RunFiles, title: str) -> dict[str, page.Plot]:
    """Return the curves by name, each with its data."""
    labels = {arm: arm.label for arm in files.arms}
    real = {truth.name: truth.spectrum for truth in files.different_truths if truth.spectrum}
    powers = {labels[arm]: curves for arm, curves in figures.powers_of(files).items()}
    errors = {labels[arm]: curves for arm, curves in figures.band_errors(files).items()}
    tables = {
        "spectrum": exports.over_seeds("power of a coefficient", real, powers),
        "band_error": exports.over_seeds("relative to real data, dB", {}, errors),
        **{name: exports.series(files, name, label) for name, label in (logs.LOSSES | logs.WEIGHTS).items()},
    }
    return {
        curve.name: page.plot(
            f"{title} {curve.name.replace('_', ' ')}",
            curve.alt,
            curve.figure,
            narrow=curve.narrow,
            complete=curve.complete,
            table=tables[curve.name],
        )
        for curve in [*figures.curves(files), *logs.curves(files)]
    }


def _maps(files: RunFiles, title: str) -> dict[str, list[Record]]:
    """Return the heat maps by name, one for each folder that has them."""
    found: dict[str, list[Record]] = {}
    for part in files.parts:
        where = part.title
        for heatmap in heatmaps.heatmaps(part):
            name = " ".join(filter(None, [title, where, heatmap.name]))
            saved = page.downloads(name, page.svg_uri(heatmaps.figure(heatmap)), exports.maps(heatmap))
            found.setdefault(heatmap.name, []).append(_map(heatmap) | {"title": where, "downloads": saved})
    return found


def _save_figures(files: RunFiles) -> None:
    """Write samples, curves and heat maps under figures/, each complete with its legend."""
    folder, panels = files.folder / "figures", pictures.panels(files)
    if panels:
        # 100 dpi: the figure is laid out in whole pixels.
        _save(pictures.samples_figure(panels), folder / "samples.png", dpi=100)
    if clips := players.clips(files):
        _save(players.figure(clips), folder / "clips.png", dpi=150)
    drawn = {
        "spectrum": figures.spectrum_figure(files),
        "band_error": figures.band_error_figure(files),
        "losses": logs.losses_figure(files),
        "lambda": logs.lambda_figure(files),
    }
    for name, figure in drawn.items():
        if figure is not None:
            figures.add_legend(figure, files, truth=name == "spectrum")
            _save(figure, folder / f"{name}.png", dpi=200)
    for heatmap in heatmaps.heatmaps(files):
        _save(heatmaps.figure(heatmap), folder / f"{heatmap.name}.png", dpi=200)


def _save(figure: Figure, path: Path, *, dpi: int) -> None:
    """Write a figure as PNG, whole or not at all. Raises WriteError."""
    with whole_file(path) as file:
        figure.savefig(file, format="png", dpi=dpi, metadata={"Software": None})


def _clip(clip: players.Clip) -> Record:
    """Return one clip as the template shows it, each take with its player and its spectrogram."""
    takes = [
        (
            take.title,
            take.color,
            page.data_uri("image/png", pictures.png(take.pixels)),
            page.data_uri("audio/wav", take.wav),
        )
        for take in clip.takes
    ]
    return {"name": clip.name, "seconds": f"{clip.seconds:.1f}", "seed": clip.seed, "takes": takes}


def _map(heatmap: heatmaps.Heatmap) -> Record:
    """Return one kind of heat maps as the template shows it: its colour bars, then its panels."""
    return {
        "seeds": heatmap.seeds,
        "gist": _gist(heatmap),
        "clipped": any(scale.extend != "neither" for scale in heatmap.scales),
        "bars": [(scale.title, page.svg_uri(heatmaps.bar_figure(scale))) for scale in heatmap.scales],
        "panels": [
            (panel.arm, scale.span(panel), scale.title, page.svg_uri(heatmaps.panel_figure(heatmap, scale, panel)))
            for scale in heatmap.scales
            for panel in scale.panels
        ],
    }


def _gist(heatmap: heatmaps.Heatmap) -> str:
    """Return the range of the first panel, which is the baseline's where there is one."""
    scale = heatmap.scales[0]
    return f"{scale.panels[0].arm.label}: {scale.span(scale.panels[0])}"


def _tables(files: RunFiles, title: str) -> list[Record]:
    """Return the table of each side that was measured; the times stand in the first."""
    columns = {metric.key: metric for part in files.parts for metric in metrics_of(part.comparison)}
    tables: list[Record] = []
    for side, heading in SIDES.items():
        metrics = [metric for metric in columns.values() if metric.side == side]
        if not metrics:
            continue
        rows = [
            (arm, arm_entries(part.comparison, arm.name, metrics), *_time(part, arm))
            for part in files.parts
            if not files.several or any(metric.side == side for metric in metrics_of(part.comparison))
            for arm in part.arms
        ]
        truths = {id(part.truths[0]): (part.truths[0].name, part.comparison) for part in reversed(files.parts)}
        reals = [(name, entries) for name, found in truths.values() if (entries := truth_entries(found, metrics))]
        parts = [(part.comparison, {arm.name: arm.label for arm in part.arms}) for part in files.parts]
        saved = page.downloads(f"{title} {heading}", None, exports.measurements(parts, metrics))
        seeds = {entry.seeds for _, entries, *_ in rows for entry in entries}
        table = {"title": heading, "side": side, "metrics": metrics, "truths": reals[::-1], "rows": rows}
        timed = not tables and any(time != "–" for *_, time, _ in rows)
        tables.append(table | {"timed": timed, "downloads": saved, "mixed": len(seeds - {0}) > 1})
    return tables


def _time(files: RunFiles, arm: Arm) -> tuple[str, str]:
    """Return an arm's time for a step and its ratio to the baseline's; where no arm was timed, the log's median."""
    if files.comparison.get("step_seconds"):
        return step_time(files.comparison, arm.name) or ("–", "")
    return duration(float(np.mean([cell.seconds_per_step for cell in files.of(arm)] or [math.nan]))), ""


def _cell(cell: Cell, base: Path) -> Record:
    """Return one row of the list of runs."""
    results = cell.results or {}
    names = {"folder": ".", "config": "config.yaml", "log": "metrics.jsonl", "results": "results.json"}
    paths = {text: cell.folder / name for text, name in names.items()} if cell.folder else {}
    return {
        "arm": cell.arm,
        "seed": cell.seed,
        "status": cell.missing or "finished",
        "stopped": cell.stopped,
        "step": results.get("step", "–"),
        "samples": results.get("samples", "–"),
        "time": duration(float((results.get("timing") or {}).get("train_seconds") or math.nan)),
        "links": [(text, _link(path, base)) for text, path in paths.items() if path.exists()],
    }


def _link(path: Path, base: Path) -> str:
    """Return a relative, quoted link; the leading "./" keeps a colon in a name from reading as a scheme."""
    return "./" + quote(Path(os.path.relpath(path, base)).as_posix())
