"""The table of what the term is of a step of networks that people train, from networks.json."""

from __future__ import annotations

from typing import Any


def block(measured: dict[str, Any]) -> str:
    """Return the Markdown table: one row a network, and how it was measured."""
    rows = measured["networks"]
    losses = next(iter(rows.values()))["losses"]
    header = [
        "network",
        "parameters",
        "samples of a step",
        "step, s",
        *(f"`{name}`, ms, of the step" for name in losses),
    ]
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    for name, row in rows.items():
        size, samples = f"{row['parameters'] / 1e6:.0f} M", " × ".join(map(str, row["samples"]))
        cells = [f"{loss['ms']:.1f}, {100 * loss['share']:.3f}%" for loss in row["losses"].values()]
        lines.append("| " + " | ".join([name, size, samples, f"{row['step_seconds']:.1f}", *cells]) + " |")
    return "\n".join(
        [
            *lines,
            "",
            f"{measured['created']}, {measured['title']}: `{measured['command']}`",
        ]
    )
