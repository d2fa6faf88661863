"""Write report.html, one self-contained page, and its figures from the files of a comparison or a run."""

from __future__ import annotations

import math
import os
from pathlib import Path
from urllib.parse import quote

import numpy as np

from specreg.report import figures, heatmaps, logs, page, pictures, players
from specreg.report.reading import Arm, Cell, Record, RunFiles, read_files
from specreg.report.table import (
    SIDES,
    Column,
    arm_entries,
    duration,
    metrics_of,
    step_time,
    truth_entries,
    truth_name,
    unit,
    verdict,
)


def build_report(folder: str | Path, *, out: str | Path | None = None) -> Path:
    """Write the report of a comparison folder, or of a single run folder, and return its path.

    The page goes to `out` (default `folder`/report.html) and needs no other file: styles are inline, images
    are data URIs, there are no scripts. The figures go to `folder`/figures/*.png as well. A figure without
    data is left out; unfinished cells are named on the page.

    Raises ValueError for a folder that is neither, or for a corrupt file, which the message names.
    """
    folder = Path(folder)
    out = folder / "report.html" if out is None else Path(out)
    files = read_files(folder)
    with figures.styled():
        content = _page(files, out.parent)
        _save_figures(files)
    page.write(out, page.render("report.html", content))
    return out


def _page(files: RunFiles, base: Path) -> Record:
    """Return what the template shows; links are relative to `base`, where the page will lie."""
    title = str(files.comparison.get("title") or files.folder.resolve().name)
    comparison, baseline = files.comparison, files.comparison.get("baseline")
    others = [arm for arm in files.arms if arm.name != baseline] if baseline else []
    return {
        "title": title,
        "about": _about(comparison),
        "paired": bool(others),
        "seeds": len(comparison["seeds"]),
        "verdicts": [(arm, verdict(comparison, arm.name)) for arm in others],
        "notices": _notices(files),
        "arms": files.arms,
        "arm_names": [(arm.label, arm.color) for arm in files.arms],
        "real": truth_name(comparison),
        "unit": unit(comparison),
        "clips": [_clip(clip) for clip in players.clips(files)],
        "panels": [(panel, page.data_uri("image/png", pictures.png(panel.pixels))) for panel in pictures.panels(files)],
        "plots": {
            name: page.plot(f"{title} {name}", *drawn) for name, *drawn in [*figures.curves(files), *logs.curves(files)]
        },
        "maps": {heatmap.name: _map(heatmap) for heatmap in heatmaps.heatmaps(files)},
        "tables": _tables(files),
        "helps": [metric for metric in metrics_of(comparison) if metric.help],
        "steps": _steps(files),
        "counted": _counted(files),
        "facts": _facts(files),
        "cells": [_cell(cell, base) for cell in files.cells],
        "command": comparison.get("command"),
        "config": comparison.get("config"),
    }


def _save_figures(files: RunFiles) -> None:
    """Write samples, curves and heat maps under figures/, each complete with its legend."""
    folder, panels = files.folder / "figures", pictures.panels(files)
    folder.mkdir(exist_ok=True)
    if panels:
        # 100 dpi: the figure is laid out in whole pixels.
        pictures.samples_figure(panels).savefig(folder / "samples.png", dpi=100, metadata={"Software": None})
    if clips := players.clips(files):
        players.figure(clips).savefig(folder / "clips.png", dpi=150, metadata={"Software": None})
    drawn = {
        "spectrum": figures.spectrum_figure(files),
        "band_error": figures.band_error_figure(files),
        "losses": logs.losses_figure(files),
        "lambda": logs.lambda_figure(files),
    }
    for name, figure in drawn.items():
        if figure is not None:
            truth = name == "spectrum" and files.truth_spectrum is not None
            figures.add_legend(figure, files, truth=truth)
            figure.savefig(folder / f"{name}.png", dpi=200, metadata={"Software": None})
    for heatmap in heatmaps.heatmaps(files):
        heatmaps.figure(heatmap).savefig(folder / f"{heatmap.name}.png", dpi=200, metadata={"Software": None})


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


def _tables(files: RunFiles) -> list[Record]:
    """Return the table of each side that was measured; the times stand in the first."""
    every, tables = metrics_of(files.comparison), []
    for side, title in SIDES.items():
        metrics: list[Column] = [metric for metric in every if metric.side == side]
        if metrics:
            rows = [(arm, arm_entries(files.comparison, arm.name, metrics), *_time(files, arm)) for arm in files.arms]
            truth = truth_entries(files.comparison, metrics)
            table = {"title": title, "side": side, "metrics": metrics, "truth": truth, "rows": rows}
            tables.append(table | {"timed": not tables})
    return tables


def _about(comparison: Record) -> list[str]:
    """Return the line under the title: when, on what, which seeds, which versions."""
    created = str(comparison.get("created") or "")[:16].replace("T", " ")  # to the minute
    seeds = comparison["seeds"]
    plan = f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"
    versions = [f"{name} {version}" for name, version in (comparison.get("versions") or {}).items()]
    return [part for part in (created, str(comparison.get("machine") or ""), plan, *versions) if part]


def _facts(files: RunFiles) -> str:
    """Return network size and sampler of the finished cells: once, not in every row."""
    results = [cell.results for cell in files.cells if cell.results]
    sizes = sorted({record["parameters"] for record in results if record.get("parameters")})
    samplers = sorted({record["sampler"] for record in results if record.get("sampler")})
    parameters = " or ".join(f"{size:,}".replace(",", "\u202f") for size in sizes)
    facts = [f"{parameters} parameters"] * bool(sizes) + [f"sampled with {' or '.join(samplers)}"] * bool(samplers)
    return "; ".join(facts)


def _steps(files: RunFiles) -> str:
    """Return how long training was, in words."""
    last = {f"{cell.log['step'][-1]:.0f}" for cell in files.cells if cell.log["step"].size}
    return f"{' or '.join(sorted(last, key=int))} steps" if last and len(last) < 4 else ""


def _counted(files: RunFiles) -> str:
    """Return how many runs ended how, in words."""
    states = [("failed" if c.stopped else "unfinished") if c.missing else "finished" for c in files.cells]
    return ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(sorted(states)))


def _notices(files: RunFiles) -> list[str]:
    """Return what the reader must know before the numbers: unfinished cells, lines left out."""
    left, stopped = (
        [f"{c.arm.label}, seed {c.seed} ({c.missing})" for c in files.cells if c.missing and c.stopped == failed]
        for failed in (False, True)
    )
    cut = [f"{cell.arm.label}, seed {cell.seed}" for cell in files.cells if cell.truncated]
    notices = [f"Unfinished, and not in the numbers below: {'; '.join(left)}."] if left else []
    if stopped:
        notices.insert(0, f"Failed, and not in the numbers below: {'; '.join(stopped)}.")
    if cut:
        lines = f"{len(cut)} truncated last line{'s' if len(cut) > 1 else ''}"
        notices.append(f"{lines} of metrics.jsonl left out: {'; '.join(cut)}.")
    skipped = [(cell, int((cell.results or {}).get("skipped_steps") or 0)) for cell in files.cells]
    if counted := [f"{count} in {cell.arm.label}, seed {cell.seed}" for cell, count in skipped if count]:
        notices.append(f"Optimizer steps skipped because of fp16 overflow: {'; '.join(counted)}.")
    for metric, why in (files.comparison.get("missing") or {}).items():
        notices.append(f"Not measured: {metric}. {why}")
    for metric, count in (files.comparison.get("failures") or {}).items():
        notices.append(f"{metric}: {count} samples have no value and are not in its means.")
    return notices


def _time(files: RunFiles, arm: Arm) -> tuple[str, str]:
    """Return an arm's time for a step and its ratio to the baseline's; without a measurement, from the log."""
    measured = step_time(files.comparison, arm.name)
    if measured is not None:
        return measured
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
