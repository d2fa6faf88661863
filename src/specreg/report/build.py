"""Write report.html, one self-contained page, and its figures from the files of a comparison or a run."""

from __future__ import annotations

import math
import os
from base64 import b64encode
from importlib.resources import files
from pathlib import Path
from urllib.parse import quote

import numpy as np

from specreg.report import figures, samples
from specreg.report.reading import Arm, Cell, Record, Study, read_study
from specreg.report.table import (
    arm_entries,
    duration,
    metrics_of,
    step_time,
    truth_entries,
    verdict,
)


def build_report(folder: str | Path, *, out: str | Path | None = None) -> Path:
    """Write the report of a comparison folder, or of a single run folder, and return its path.

    The page goes to `out` (default `folder`/report.html) and needs no other file: styles are inline, images
    are data URIs, there are no scripts. The figures go to `folder`/figures/*.png as well. A figure without
    data is left out; unfinished cells are named on the page.

    Raises ValueError for a folder that is neither, or for a corrupt file, which the message names.
    """
    from jinja2 import Environment

    folder = Path(folder)
    out = folder / "report.html" if out is None else Path(out)
    study = read_study(folder)
    with figures.styled():
        page = _page(study, out.parent)
        _save_figures(study)
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    template = files("specreg.report").joinpath("template.html").read_text(encoding="utf-8")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(environment.from_string(template).render(page), encoding="utf-8")
    return out


def _page(study: Study, base: Path) -> Record:
    """Return what the template shows; links are relative to `base`, where the page will lie."""
    comparison, baseline = study.comparison, study.comparison.get("baseline")
    others = [arm for arm in study.arms if arm.name != baseline] if baseline else []
    return {
        "title": str(comparison.get("title") or study.folder.resolve().name),
        "about": _about(comparison),
        "paired": bool(others),
        "seeds": len(comparison["seeds"]),
        "verdicts": [(arm, verdict(comparison, arm.name)) for arm in others],
        "notices": _notices(study),
        "arms": study.arms,
        "panels": [(panel, _data_uri("png", samples.png(panel.pixels))) for panel in samples.panels(study)],
        "plots": {
            name: (_data_uri("svg+xml", figures.svg(figure)), alt) for name, alt, figure in figures.curves(study)
        },
        "metrics": metrics_of(comparison),
        "truth": truth_entries(comparison),
        "rows": [(arm, arm_entries(comparison, arm.name), *_time(study, arm)) for arm in study.arms],
        "facts": _facts(study),
        "cells": [_cell(cell, base) for cell in study.cells],
        "command": comparison.get("command"),
        "config": comparison.get("config"),
    }


def _save_figures(study: Study) -> None:
    """Write samples, spectrum, band_error and losses under figures/, each complete with its legend."""
    folder, panels = study.folder / "figures", samples.panels(study)
    folder.mkdir(exist_ok=True)
    if panels:
        # 100 dpi: the figure is laid out in whole pixels.
        samples.samples_figure(panels).savefig(folder / "samples.png", dpi=100, metadata={"Software": None})
    drawn = {
        "spectrum": figures.spectrum_figure(study),
        "band_error": figures.band_error_figure(study),
        "losses": figures.losses_figure(study),
    }
    for name, figure in drawn.items():
        if figure is not None:
            truth = name == "spectrum" and study.truth_spectrum is not None
            figures.add_legend(figure, study, truth=truth)
            figure.savefig(folder / f"{name}.png", dpi=200, metadata={"Software": None})


def _about(comparison: Record) -> list[str]:
    """Return the line under the title: when, on what, which seeds, which versions."""
    created = str(comparison.get("created") or "")[:16].replace("T", " ")  # to the minute
    seeds = comparison["seeds"]
    plan = f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"
    versions = [f"{name} {version}" for name, version in (comparison.get("versions") or {}).items()]
    return [part for part in (created, str(comparison.get("machine") or ""), plan, *versions) if part]


def _facts(study: Study) -> str:
    """Return network size and sampler of the finished cells: once, not in every row."""
    results = [cell.results for cell in study.cells if cell.results]
    sizes = sorted({record["parameters"] for record in results if record.get("parameters")})
    samplers = sorted({record["sampler"] for record in results if record.get("sampler")})
    parameters = " or ".join(f"{size:,}".replace(",", "\u202f") for size in sizes)
    facts = [f"{parameters} parameters"] * bool(sizes) + [f"sampled with {' or '.join(samplers)}"] * bool(samplers)
    return "; ".join(facts)


def _notices(study: Study) -> list[str]:
    """Return what the reader must know before the numbers: unfinished cells, lines left out."""
    left = [f"{cell.arm.label}, seed {cell.seed} ({cell.missing})" for cell in study.cells if cell.missing]
    cut = [f"{cell.arm.label}, seed {cell.seed}" for cell in study.cells if cell.truncated]
    notices = [f"Unfinished, and not in the numbers below: {'; '.join(left)}."] if left else []
    if cut:
        lines = f"{len(cut)} truncated last line{'s' if len(cut) > 1 else ''}"
        notices.append(f"{lines} of metrics.jsonl left out: {'; '.join(cut)}.")
    return notices


def _time(study: Study, arm: Arm) -> tuple[str, str]:
    """Return an arm's time for a step and its ratio to the baseline's; without a measurement, from the log."""
    measured = step_time(study.comparison, arm.name)
    if measured is not None:
        return measured
    return duration(float(np.mean([cell.seconds_per_step for cell in study.of(arm)] or [math.nan]))), ""


def _cell(cell: Cell, base: Path) -> Record:
    """Return one row of the list of runs."""
    results = cell.results or {}
    names = {"folder": ".", "config": "config.yaml", "log": "metrics.jsonl", "results": "results.json"}
    paths = {text: cell.folder / name for text, name in names.items()} if cell.folder else {}
    return {
        "arm": cell.arm,
        "seed": cell.seed,
        "status": cell.missing or "finished",
        "step": results.get("step", "–"),
        "samples": results.get("samples", "–"),
        "time": duration(float((results.get("timing") or {}).get("train_seconds") or math.nan)),
        "links": [(text, _link(path, base)) for text, path in paths.items() if path.exists()],
    }


def _link(path: Path, base: Path) -> str:
    """Return a relative, quoted link; the leading "./" keeps a colon in a name from reading as a scheme."""
    return "./" + quote(Path(os.path.relpath(path, base)).as_posix())


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{b64encode(content).decode('ascii')}"
