"""Keep the numbers of a comparison: `python docs/measured/summarize.py runs/demo > docs/measured/demo.json`.

`python docs/measured/summarize.py` prints the block of the README that stands on demo.json; a test compares the two.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

KEPT = ("title", "command", "created", "machine", "versions", "seeds", "baseline", "step_seconds")
HERE = Path(__file__).parent


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


def readme_block(measured: dict[str, Any]) -> str:
    """Return the README's sentences and table of one arm against the baseline."""
    baseline, arm = measured["baseline"], measured["arms"][-1]["name"]
    rows = {(row["arm"], row["metric"]): row for row in measured["table"]}
    lines = ["| | real images | MSE alone | with the term | paired difference [95%] | |", "|---|---|---|---|---|---|"]
    for name, about in measured["metrics"].items():
        ours, theirs, digits = rows[arm, name], rows[baseline, name], about["digits"]
        difference = ours["difference"]
        floor = measured["truth"].get(name, measured["truth"].get(f"floor: {name}"))
        arrow = {"lower": "↓", "higher": "↑", "zero": "→ 0"}[about["better"]]
        unit = f", {about['unit']}" if about["unit"] else ""
        lines.append(
            f"| {about['label']}{unit} {arrow} | {'' if floor is None else _number(floor, digits)} "
            f"| {_number(theirs['mean'], digits)} | {_number(ours['mean'], digits)} "
            f"| {_number(difference['mean'], digits, sign=True)} "
            f"[{_number(difference['low'], digits, sign=True)} … {_number(difference['high'], digits, sign=True)}] "
            f"| {'**better**' if ours['verdict'] == 'better' else ours['verdict']} |"
        )
    seeds = ", ".join(map(str, measured["seeds"]))
    lines += ["", f"Seeds {seeds}, {measured['created'][:10]}, {measured['machine']}: `{measured['command']}`"]
    return "\n".join(lines)


def _number(value: float, digits: int, *, sign: bool = False) -> str:
    text = f"{value:+.{digits}f}" if sign else f"{value:.{digits}f}"
    return text.replace("-", "−")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(summarize(Path(sys.argv[1])), indent=1, ensure_ascii=False))
    else:
        print(readme_block(json.loads((HERE / "demo.json").read_text(encoding="utf-8"))))
