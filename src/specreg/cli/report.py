"""`specreg report`: write the report of a run or a comparison again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from specreg.cli.console import home, print_path


def report(
    run_folder: Annotated[Path, typer.Argument(help="A comparison or a run folder.", metavar="RUN")],
    to: Annotated[
        Path | None, typer.Option("--to", callback=home, help="Where to write it; default RUN/report.html.")
    ] = None,
) -> None:
    """Write the report of a run or a comparison again, from its files alone."""
    from specreg.report import build_report

    print_path("report", build_report(run_folder, out=to))
