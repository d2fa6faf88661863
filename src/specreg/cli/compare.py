"""`specreg compare` and `specreg demo`: arms with and without the term, from the same seeds."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from specreg.cli.console import (
    DryRun,
    Out,
    Overrides,
    Source,
    err,
    out,
    print_left_out,
    print_path,
    print_table,
    print_yaml,
    read_config,
    resumable,
    run_folder,
)

Yardstick = Annotated[
    bool, typer.Option(help="Also measure the baseline with its own gain applied, which needs no training (images).")
]


def demo(
    overrides: Overrides = None,
    folder: Out = Path("runs"),
    seeds: Annotated[int, typer.Option(min=1, max=1000, help="Paired seeds.")] = 4,
    jobs: Annotated[int | None, typer.Option(min=1, help="Runs at a time; default two where there are cores.")] = None,
    calibrated: Yardstick = True,
    dry_run: DryRun = False,
) -> None:
    """Train on drawn images with and without the spectral term, from the same seeds, and show what it did."""
    _compare("demo", overrides, folder, None, seeds, jobs or min(2, os.cpu_count() or 1), calibrated, dry_run)


def compare(
    source: Source,
    overrides: Overrides = None,
    folder: Out = Path("runs"),
    arms: Annotated[
        str | None,
        typer.Option(
            help="Arms: none, a loss or a recipe's arm, with @λ, @auto or @auto:RATIO. Default: the recipe's own."
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, max=1000, help="Paired seeds, counted from the config's seed.")] = 1,
    jobs: Annotated[int, typer.Option(min=1, help="Runs at a time, each on a GPU of its own if there are.")] = 1,
    calibrated: Yardstick = True,
    dry_run: DryRun = False,
) -> None:
    """Train several arms from the same seeds and report what the spectral term changed. Finished cells are kept."""
    _compare(source, overrides, folder, arms, seeds, jobs, calibrated, dry_run)


def _compare(
    source: str,
    overrides: list[str] | None,
    folder: Path,
    arms: str | None,
    seeds: int,
    jobs: int,
    calibrated: bool,
    dry_run: bool,
) -> None:
    config = read_config(source, overrides)
    from specreg import _checks, processes
    from specreg import compare as comparing
    from specreg.config import SpectralConfig

    names = (
        _checks.pieces(arms, ",")
        if arms is not None
        else list(config.arms) or [config.spectral.name if config.spectral else SpectralConfig().name]
    )
    resolved = comparing.resolve_arms(config, names)
    if calibrated:
        resolved = comparing.with_yardstick(config, resolved)
    if dry_run:
        return print_yaml(config.model_copy(update={"arms": resolved}))
    from specreg.report import build_report, summary_rows, verdicts

    target = run_folder(folder, config, unlike="config.yaml", kind="a single run")
    with resumable(), processes.together():
        wanted = range(config.seed, config.seed + seeds)
        result = comparing.compare(config, target, resolved, wanted, jobs=jobs, console=err)
        main = processes.state().is_main_process
        report = build_report(target) if main else None  # before anything is printed: output may be closed
    if report is None:
        return None
    header, *rows = summary_rows(result)
    print_table(config.title, header, rows, lines=seeds > 1)
    for sentence in verdicts(result):
        out.print(sentence)
    print_left_out(result)
    print_path("report", report)
    return None
