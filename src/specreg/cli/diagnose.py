"""`specreg diagnose`: what a trained denoiser withholds or adds, by noise level and frequency band."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from specreg._files import write_json
from specreg.cli.console import err, file_to_write, home, out, print_path, whole_number

COLUMNS = 16
"""Bands in one part of the table: with level and crossing they fit into 80 characters."""


def diagnose(
    path: Annotated[
        Path,
        typer.Argument(
            help="A run folder, an EDM checkpoint, a DiffWave .pt, or a diffusers pipeline folder.",
            metavar="RUN|CHECKPOINT|PIPELINE",
        ),
    ],
    data: Annotated[
        Path | None,
        typer.Option(callback=home, help="Images, sound, or float latents (.npy); default: a run's held-out data."),
    ] = None,
    levels: Annotated[int, typer.Option(min=1, help="Noise levels, spread evenly over training.")] = 12,
    bands: Annotated[int | None, typer.Option(min=1, help="Frequency bands; default by size, at most 16.")] = None,
    count: Annotated[int, typer.Option(parser=whole_number(8), metavar="INTEGER", help="Real data at most.")] = 256,
    seed: Annotated[int, typer.Option(min=0, help="Of noise and resampling.")] = 0,
    batch_size: Annotated[int, typer.Option(min=1, help="Data at a time; changes no number.")] = 64,
    loss: Annotated[str | None, typer.Option(help="Spectral loss whose pull is shown; default the run's.")] = None,
    to_json: Annotated[
        Path | None, typer.Option("--json", callback=file_to_write, help="File for all numbers.")
    ] = None,
    to: Annotated[
        Path | None, typer.Option("--out", callback=file_to_write, help="Page (.html) or figure (.svg, .png).")
    ] = None,
) -> None:
    """Say what a denoiser holds back or adds by noise level and frequency, with 95% intervals. Nothing is trained."""
    if to is not None and to.suffix not in (".html", ".svg", ".png"):
        raise ValueError(f"--out: expected a .html, .svg or .png file; got {to}")
    import torch

    from specreg import diagnosis
    from specreg.diagnosis.subjects import open_subject
    from specreg.report.diagnosis import write

    device = "cuda" if torch.cuda.is_available() else "cpu"
    subject = open_subject(path, data, count=count, loss=loss, device=device)
    x0 = subject.real.x0
    with err.status(f"denoising {len(x0)} at {levels} noise levels"):
        powers = subject.powers(levels=levels, bands=bands, seed=seed, batch_size=batch_size)
        units = diagnosis.Units(subject.real.unit, subject.real.scale)
        found = diagnosis.record(
            diagnosis.diagnose(powers, x0, seed=seed),
            units=units,
            loss=subject.loss,
            trained_with=subject.trained_with,
        )
    found = {"title": subject.title, "data": str(data) if data else None, **found}
    out.print(Text(subject.title, "bold"), soft_wrap=True)
    for sentence in found["words"]:
        out.print(f"- {sentence}")
    for line in table(found):
        out.print(line, soft_wrap=True)
    if to_json is not None:
        write_json(to_json, found)
        print_path("numbers", to_json)
    if to is not None:
        write(to, found)
        print_path("page" if to.suffix == ".html" else "figure", to)


def table(found: dict[str, Any]) -> Iterator[Text]:
    """Yield the lines of the table, at most 80 characters wide, least noise first."""
    edges, unit = found["edges"], found["frequency_unit"]
    yield Text()
    yield Text("% of what the network knows that it holds back (+) or adds (-). *: the joint 95%")
    yield Text("interval excludes 2%.  . : noise leaves nothing to know.  SNR = alpha²/sigma².")
    yield Text(f"Columns start at, {unit}; last: where data meet noise.")
    for first in range(0, len(edges) - 1, COLUMNS):
        columns = range(first, min(first + COLUMNS, len(edges) - 1))
        yield Text("SNR dB " + "".join(f"{_short(edges[k]):<4}" for k in columns) + "meet", "bold")
        for row, snr in enumerate(found["snr_db"]):
            line = Text(f"{snr:+6.1f} ")
            for k in columns:
                line.append_text(_cell(found, row, k))
            meet = found["crossing"]["value"][row]
            line.append("-" if meet is None else f" {meet:.3g}" if line.plain.endswith("*") else f"{meet:.3g}")
            yield line


def _cell(found: dict[str, Any], row: int, k: int) -> Text:
    withheld, joint = found["withheld"][row][k], found["gain_joint"]
    if not found["judged"][row][k] or withheld is None:
        return Text(" .  ", "dim")
    percent = max(-99, min(99, round(100 * withheld)))
    tolerance = found["tolerance"]
    departs = joint["low"][row][k] > 1 / (1 - tolerance) or joint["high"][row][k] < 1 / (1 + tolerance)
    style = "" if not departs else "bold blue" if percent > 0 else "bold red"
    return Text(f"{percent:+d}{'*' if departs else ''}".ljust(4), style)


def _short(edge: float) -> str:
    """Return a frequency in three characters."""
    if edge == 0:
        return "0"
    if edge >= 10:
        return f"{edge:.0f}"[:3]
    text = f"{edge:.2f}" if edge < 1 else f"{edge:.1f}"
    return text.lstrip("0")[:3] if math.floor(edge) == 0 else text[:3]
