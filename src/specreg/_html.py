"""Small tables for notebooks: what `_repr_html_` of this package's objects returns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape


def table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]], *, note: str = "") -> str:
    """Return a table with a title above and a note below it; all text is escaped, and colours are the notebook's."""
    head = "".join(f'<th style="text-align:left">{escape(name)}</th>' for name in header)
    lines = [
        "<tr>" + "".join(f'<td style="text-align:left">{escape(cell)}</td>' for cell in row) + "</tr>" for row in rows
    ]
    below = f"<p>{escape(note)}</p>" if note else ""
    body = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
    return f'<div><p><strong>{escape(title)}</strong></p><div style="overflow-x:auto">{body}</div>{below}</div>'


def number(value: float | None, digits: int | None = None) -> str:
    """Return a number to four figures, or with `digits` decimals; "–" for None."""
    if value is None:
        return "–"
    if not math.isfinite(value):
        return "not finite"
    return f"{value:.4g}" if digits is None else f"{value:.{digits}f}"
