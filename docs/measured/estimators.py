"""The table of how steady λ is by estimator, from auto-weight.json."""

from __future__ import annotations

from typing import Any

SHOWN = 4
"""The batch of which all estimators are shown; of the other one, those that AutoWeight has."""
OFFERED = ("geometric", "geometric, 200 calls")


def block(measured: dict[str, Any]) -> str:
    """Return the Markdown table: a row an estimator and batch, a column a base weight, three numbers in each cell."""
    rows = measured["rows"]
    cases = list(dict.fromkeys(row["case"] for row in rows))
    cells = {(row["estimator"], row["batch"], row["case"]): row for row in rows}
    lines = ["| " + " | ".join(["estimator", "batch", *cases, "follows"]) + " |", "|" + "---|" * (len(cases) + 3)]
    for estimator, batch in dict.fromkeys((row["estimator"], row["batch"]) for row in rows):
        if batch != SHOWN and estimator not in OFFERED:
            continue
        found = [cells[estimator, batch, case] for case in cases]
        calls = sorted(row["follows"] for row in found)
        span = f"{calls[0]:.0f}" if calls[0] == calls[-1] else f"{calls[0]:.0f} to {calls[-1]:.0f}"
        texts = (f"{row['spread']:.2f} · {row['early']:.1f} · {row['level']:.2g}" for row in found)
        lines.append("| " + " | ".join([estimator, str(batch), *texts, span]) + " |")
    return "\n".join(lines)
