"""`specreg reproduce`: the paper's tables."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from specreg.cli.console import (
    err,
    folder_to_write,
    home,
    print_left_out,
    print_path,
    print_table,
    resumable,
    whole_number,
)


def reproduce(
    what: Annotated[
        str, typer.Argument(help="table1: EDM image models; table2: the DiffWave vocoder.", metavar="TABLE")
    ],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Changes to the recipes, such as training.steps=50.", metavar="KEY=VALUE")
    ] = None,
    checkpoints: Annotated[Path, typer.Option(callback=home, help="table1: folder of the public checkpoints.")] = Path(
        "checkpoints"
    ),
    checkpoint: Annotated[
        Path | None, typer.Option(callback=home, help="table2: the DiffWave .pt to fine-tune.")
    ] = None,
    data: Annotated[
        Path, typer.Option(callback=home, help="Folder of the archives (table1) or clips (table2).")
    ] = Path("datasets"),
    samples: Annotated[
        int, typer.Option(parser=whole_number(2), metavar="INTEGER", help="table1: samples of each network and seed.")
    ] = 50_000,
    steps: Annotated[
        int | None, typer.Option(parser=whole_number(1), metavar="INTEGER", help="table2: of training; default 150000.")
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(min=1, help="Of training and sampling; default 3 (table1) or 5 (table2).")
    ] = None,
    rows: Annotated[str | None, typer.Option(help="table1: recipes, with commas between; default all.")] = None,
    arms: Annotated[
        str | None,
        typer.Option(help="edm, or losses with or without -weighted (table1); losses as haar@1e-4 (table2)."),
    ] = None,
    inception: Annotated[Path | None, typer.Option(callback=home, help="table1: Inception weights for FID.")] = None,
    folder: Annotated[
        Path | None, typer.Option("--out", callback=folder_to_write, help="Folder of the results; default runs/TABLE.")
    ] = None,
) -> None:
    """Rebuild a table of the paper from the files that exist. The same command again resumes where it stopped."""
    from specreg import _checks

    _checks.choice("table", what, ["table1", "table2"])
    folder = folder or Path("runs") / what
    named = _checks.pieces(arms, ",") if arms is not None else None
    if what == "table2":
        return _table2(checkpoint, data, folder, steps, seeds or 5, named, overrides or [])
    chosen = rows.split(",") if rows is not None else None
    return _table1(checkpoints, data, folder, samples, seeds or 3, chosen, named, overrides or [], inception)


def _table1(
    checkpoints: Path,
    data: Path,
    folder: Path,
    samples: int,
    seeds: int,
    rows: list[str] | None,
    arms: list[str] | None,
    overrides: list[str],
    inception: Path | None,
) -> None:
    import torch

    from specreg.metrics.features import InceptionFeatures, WeightsMissing, find_inception
    from specreg.reproduce import table1

    features = None
    try:
        weights = find_inception(inception)
    except WeightsMissing as missing:
        if inception is not None:
            raise
        err.print(f"No FID, spectral metrics alone. {missing}", soft_wrap=True)
    else:
        features = InceptionFeatures(weights, device="cuda" if torch.cuda.is_available() else "cpu")
    with resumable():
        content = table1.run(
            checkpoints,
            data,
            folder,
            samples=samples,
            seeds=seeds,
            rows=rows,
            arms=arms,
            overrides=overrides,
            features=features,
            console=err,
        )
    print_table(f"Table 1, {samples} samples a seed", ["", *table1.columns(content)], table1.lines_of(content), names=2)
    print_path("table", folder / "table1.md")


def _table2(
    checkpoint: Path | None,
    data: Path,
    folder: Path,
    steps: int | None,
    seeds: int,
    arms: list[str] | None,
    overrides: list[str],
) -> None:
    from specreg import processes
    from specreg.report import build_report
    from specreg.reproduce import table2

    if checkpoint is None:
        raise ValueError("--checkpoint: table2 expects the DiffWave .pt to fine-tune; got nothing")
    config = table2.configure(checkpoint, data, steps=steps, overrides=overrides)
    with resumable(), processes.together():
        content = table2.run(config, folder, seeds=seeds, arms=arms, console=err)
        main = processes.state().is_main_process
        report = build_report(folder) if main else None  # before anything is printed: output may be closed
    if report is None:
        return
    title = f"Table 2, {config.training.steps} steps, {seeds} seeds"
    print_table(title, ["arm", *table2.COLUMNS.values()], table2.beside(content), lines=True)
    print_left_out(content)
    print_path("table", folder / "table2.md")
    print_path("report", report)
