"""Keep the numbers of a comparison: `python docs/measured/summarize.py runs/demo > docs/measured/demo.json`.

`python docs/measured/summarize.py docs/measured/demo.json` prints it as the table that the pages hold; a test compares.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

NAMES = {"calibrated": "MSE alone, calibrated"}
ARROWS = {"lower": "↓", "higher": "↑", "zero": "→ 0"}
KEPT = ("title", "command", "created", "machine", "versions", "seeds", "baseline", "step_seconds")


def summarize(folder: Path) -> dict[str, Any]:
    """Return what the docs need of a comparison's comparison.json."""
    comparison = json.loads((folder / "comparison.json").read_text(encoding="utf-8"))
    return {
        **{key: comparison[key] for key in KEPT},
        "arms": [{"name": arm["name"], "label": arm["label"]} for arm in comparison["arms"]],
        "truth": comparison["truth"]["metrics"],
        "metrics": {
            name: {key: about[key] for key in ("label", "unit", "better", "digits")}
            for name, about in comparison["metrics"].items()
        },
        "table": comparison["table"],
    }


def block(measured: dict[str, Any]) -> str:
    """Return the table of a comparison in Markdown, each arm beside the baseline, and how it was made."""
    baseline = measured["baseline"]
    arms = [arm["name"] for arm in measured["arms"] if arm["name"] != baseline]
    rows = {(row["arm"], row["metric"]): row for row in measured["table"]}
    header = ["", "real images", "MSE alone"]
    for arm in arms:
        header += [NAMES.get(arm, f"with {arm}"), "paired difference [95%]"]
    lines = ["| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
    for name, about in measured["metrics"].items():
        digits = about["digits"]
        floor = measured["truth"].get(name, measured["truth"].get(f"floor: {name}"))
        cells = [_titled(about), "" if floor is None else _number(floor, digits)]
        cells.append(_number(rows[baseline, name]["mean"], digits))
        for arm in arms:
            row = rows[arm, name]
            cells.append(_number(row["mean"], digits))
            mean, low, high = (_number(row["difference"][end], digits, sign=True) for end in ("mean", "low", "high"))
            verdict = f"**{row['verdict']}**" if row["verdict"] in ("better", "worse") else row["verdict"]
            cells.append(f"{mean} [{low} … {high}] {verdict}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", _made(measured)])


def wide(measured: dict[str, Any]) -> str:
    """Return the same as a row for each metric and a column for each arm, for comparisons of many arms."""
    baseline = measured["baseline"]
    arms = [arm["name"] for arm in measured["arms"] if arm["name"] != baseline]
    rows = {(row["arm"], row["metric"]): row for row in measured["table"]}
    header = ["", "real", "MSE alone", *(NAMES.get(arm, arm) for arm in arms)]
    lines = ["| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
    for name, about in measured["metrics"].items():
        digits = about["digits"]
        floor = measured["truth"].get(name, measured["truth"].get(f"floor: {name}"))
        cells = [_titled(about), "" if floor is None else _number(floor, digits)]
        cells.append(_number(rows[baseline, name]["mean"], digits))
        for arm in arms:
            row = rows[arm, name]
            cell, difference = _number(row["mean"], digits), row["difference"]
            if difference is not None:
                half = _number((difference["high"] - difference["low"]) / 2, digits)
                mark = {"better": " ▲", "worse": " ▼"}.get(row["verdict"], "")
                cell += f" ({_number(difference['mean'], digits, sign=True)} ± {half}){mark}"
            cells.append(cell)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", _made(measured)])


def _titled(about: dict[str, Any]) -> str:
    unit = f", {about['unit']}" if about["unit"] else ""
    return f"{about['label']}{unit} {ARROWS[about['better']]}"


def _made(measured: dict[str, Any]) -> str:
    seeds = ", ".join(map(str, measured["seeds"]))
    return f"Seeds {seeds}, {measured['created'][:10]}, {measured['machine']}: `{measured['command']}`"


def _number(value: float, digits: int, *, sign: bool = False) -> str:
    text = f"{value:+.{digits}f}" if sign else f"{value:.{digits}f}"
    return text.replace("-", "−")


if __name__ == "__main__":
    path = Path(sys.argv[1])
    if path.suffix == ".json":
        print(block(json.loads(path.read_text(encoding="utf-8"))))
    else:
        print(json.dumps(summarize(path), indent=1, ensure_ascii=False))
