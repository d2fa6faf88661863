"""`specreg recipes`: list the runs that have a name."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from specreg.cli.console import out


def recipes() -> None:
    """List the recipes that train, compare and demo know."""
    from specreg.recipes import RECIPES

    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("recipe", "what it runs"):
        table.add_column(column, overflow="fold")
    for name, recipe in RECIPES.items():
        table.add_row(Text(name, "bold"), (recipe.__doc__ or "").strip())
    out.print(table)
    out.print("\nShow one in full: specreg train RECIPE --dry-run")
