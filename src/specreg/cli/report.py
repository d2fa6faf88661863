"""`specreg report`: write the report of a run or a comparison again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from specreg.cli.console import home, print_path


def report(
    folders: Annotated[list[Path], typer.Argument(help="Comparison folders and run folders.", metavar="FOLDER...")],
    to: Annotated[
        Path | None,
        typer.Option(
            "--to", callback=home, help="Where to write it; default FOLDER/report.html, of several folders report.html."
        ),
    ] = None,
) -> None:
    """Write the report of a run or a comparison again, or one of several, from their files alone.

    Runs that differ in their seed alone are one arm.
    """
    from specreg.report import build_report

    print_path("report", build_report(folders, out=to))
