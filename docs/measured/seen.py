"""The table of what each loss sees, from losses-seen.json."""

from __future__ import annotations

from typing import Any


def block(measured: dict[str, Any]) -> str:
    """Return the Markdown table: one row a loss, one column a damage, three strengths in each cell."""
    damages = measured["damages"]
    header = ["loss", *(f"{name} ({_strengths(what)})" for name, what in damages.items()), "cost", "gradient"]
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    for row in measured["rows"]:
        cells = [" · ".join(map(_number, row["seen"][name])) for name in damages]
        lines.append(
            "| " + " | ".join([f"`{row['loss']}`", *cells, f"{row['cost']:.2g}", _number(row["gradient"])]) + " |"
        )
    return "\n".join(lines)


def _strengths(what: dict[str, Any]) -> str:
    return f"{' · '.join(f'{strength:g}' for strength in what['strengths'])} {what['unit']}"


def _number(value: float) -> str:
    if value < 0.005:
        return "0"
    if value < 10:
        return f"{value:.2g}"
    return f"{value:.0f}" if value < 1000 else f"{value:.0e}".replace("e+0", "e")
