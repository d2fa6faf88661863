"""`specreg evaluate`: scores of a run's samples, or of files, against real data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from specreg._files import write_json
from specreg.cli.console import (
    err,
    file_to_write,
    folder_to_write,
    home,
    out,
    print_left_out,
    print_path,
    print_table,
    resumable,
    whole_number,
)


def evaluate(
    path: Annotated[Path, typer.Argument(help="A run folder, or images or sound files.", metavar="RUN|DIR")],
    reference: Annotated[
        Path | None, typer.Option(callback=home, help="Real images or sound; default: a run's held-out data.")
    ] = None,
    metrics: Annotated[
        str | None, typer.Option(help="Names, with commas between; default: all that can be measured here.")
    ] = None,
    count: Annotated[
        int | None, typer.Option(parser=whole_number(2), metavar="INTEGER", help="Samples that a run draws.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of the first sample and of resampling.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Images drawn at a time.")] = None,
    draws: Annotated[int, typer.Option(min=20, help="Resampled sets of which the intervals are made.")] = 200,
    inception: Annotated[Path | None, typer.Option(callback=home, help="Inception weights for FID, KID …")] = None,
    cache: Annotated[
        Path | None,
        typer.Option(callback=folder_to_write, help="Folder of the reference's features; default ~/.cache/specreg."),
    ] = None,
    work: Annotated[
        Path | None, typer.Option(callback=folder_to_write, help="Folder of drawn samples; default RUN/evaluate.")
    ] = None,
    to_json: Annotated[
        Path | None, typer.Option("--json", callback=file_to_write, help="File for all numbers.")
    ] = None,
) -> None:
    """Score samples against real data, with 95% intervals and real against real. The same command again resumes."""
    from specreg import processes, scoring

    options = scoring.Options(
        metrics=[name.strip() for name in metrics.split(",")] if metrics else None,
        count=count,
        seed=seed,
        batch_size=batch_size,
        draws=draws,
        inception=inception,
        cache=cache,
        work=work,
        device=processes.state().device,
    )
    with resumable(), processes.together():
        found = scoring.score(path, reference, options)
        if found is not None and to_json is not None:
            write_json(to_json, found)
    if found is None:  # not the main process
        return
    show(found)
    print_left_out(found)
    if to_json is not None:
        print_path("numbers", to_json)


def show(found: dict[str, Any]) -> None:
    """Print the scores as a table, and a sentence for each."""
    rows = []
    for each in found["metrics"].values():
        value, low, high = (f"{each[name]:.{each['digits']}f}" for name in ("value", "low", "high"))
        floor = "–" if each["floor"] is None else f"{each['floor']:.{each['digits']}f}"
        label = f"{each['label']}, {each['unit']}" if each["unit"] else each["label"]
        rows.append([label, value, f"{low} to {high}", floor, each["better"]])
    title = f"{found['samples']} {found['unit']} against {found['reference_samples']}"
    print_table(title, ["metric", "value", "95%", "real", "best"], rows)
    for each in found["metrics"].values():
        out.print(f"- {each['words']}")
    if not found["metrics"]:
        err.print("no metric could be measured")
