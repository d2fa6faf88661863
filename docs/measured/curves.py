"""Keep, print and draw the learning curves of `python -m benchmarks.study`.

python docs/measured/curves.py FOLDER > docs/measured/NAME.json      # keep the numbers of a study
python docs/measured/curves.py docs/measured/NAME.json               # print them as the page has them
python docs/measured/curves.py docs/measured/NAME.json FIGURE.png    # draw them
"""

from __future__ import annotations

import itertools
import json
import math
import statistics
import sys
from pathlib import Path
from typing import Any

from specreg.compare import paired_difference, verdict

Measured = dict[str, Any]
BASELINE = "none"
CALIBRATED = "calibrated"
LABELS = {BASELINE: "MSE alone", CALIBRATED: "MSE alone, calibrated"}
BRIEF = (BASELINE, CALIBRATED, "amplitude@auto:2", "haar@auto:2", "amplitude+haar@auto:2")


def collect(folder: Path) -> Measured:
    """Return what the page needs of a study's curve-STEPS.json files: the metrics of cells by steps and arm."""
    paths = sorted(folder.glob("curve-*.json"), key=lambda path: int(path.stem.partition("-")[2]))
    records = {path.stem.partition("-")[2]: json.loads(path.read_text(encoding="utf-8")) for path in paths}
    last = next(reversed(records.values()))
    metrics = last["metrics"]
    return {
        **{key: last[key] for key in ("title", "command", "created", "machine", "versions", "seeds")},
        "truth": {name: round(value, 4) for name, value in last["truth"].items()},
        "metrics": metrics,
        "values": {
            steps: {
                arm["name"]: {
                    name: [round(record["values"][arm["name"]][str(seed)][name], 4) for seed in record["seeds"]]
                    for name in metrics
                }
                for arm in record["arms"]
            }
            for steps, record in records.items()
        },
    }


def block(measured: Measured) -> str:
    """Return the study in Markdown: a table for each metric, arms by optimizer steps, and the steps that arms save."""
    lines = []
    for name, about in measured["metrics"].items():
        lines += [*_table(measured, name, about), ""]
    return "\n".join([*lines, *_saved(measured), "", made(measured)])


def brief(measured: Measured, steps: str) -> str:
    """Return one length in Markdown: every metric of MSE alone, calibrated too, and of three arms."""
    metrics, at = measured["metrics"], measured["values"][steps]
    arms = [arm for arm in BRIEF if arm in at]
    lines = ["| " + " | ".join([f"{steps} steps", *(LABELS.get(arm, arm) for arm in arms)]) + " |"]
    lines.append("|---" * (len(arms) + 1) + "|")
    for name, about in metrics.items():
        cells = [_named(measured, name, about), *(_cell(measured, steps, arm, name, about) for arm in arms)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def rows(measured: Measured, steps: str) -> str:
    """Return one length in Markdown: a row for each arm, a column for each metric, and how it was made."""
    metrics, at = measured["metrics"], measured["values"][steps]
    header = [f"{steps} steps", *(_named(measured, name, about) for name, about in metrics.items())]
    lines = ["| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
    for arm in at:
        cells = [LABELS.get(arm, arm), *(_cell(measured, steps, arm, name, about) for name, about in metrics.items())]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", made(measured)])


def arms_of(measured: Measured) -> list[str]:
    """Return the arms in the order of the first length, the baseline first."""
    return list(next(iter(measured["values"].values())))


def made(measured: Measured) -> str:
    """Return the seeds, the day, the machine and the command."""
    seeds = ", ".join(map(str, measured["seeds"]))
    return f"Seeds {seeds}, {measured['created'][:10]}, {measured['machine']}: `{measured['command']}`"


def _named(measured: Measured, name: str, about: Measured) -> str:
    """Return a metric's name, unit and direction, and what real images have."""
    unit = f", {about['unit']}" if about["unit"] else ""
    arrow = {"lower": "↓", "higher": "↑", "zero": "→ 0"}[about["better"]]
    floor = measured["truth"].get(name, measured["truth"].get(f"floor: {name}"))
    real = "" if floor is None else f" (real images: {number(floor, about['digits'])})"
    return f"{about['label']}{unit} {arrow}{real}"


def _table(measured: Measured, name: str, about: Measured) -> list[str]:
    lengths = list(measured["values"])
    lines = [
        "| " + " | ".join([_named(measured, name, about), *lengths]) + " |",
        "|---" * (len(lengths) + 1) + "|",
    ]
    for arm in arms_of(measured):
        cells = [LABELS.get(arm, arm), *(_cell(measured, steps, arm, name, about) for steps in lengths)]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _cell(measured: Measured, steps: str, arm: str, name: str, about: Measured) -> str:
    at = measured["values"][steps]
    if arm not in at:
        return ""
    digits, values = about["digits"], at[arm][name]
    mean = number(statistics.fmean(values), digits)
    if arm == BASELINE:
        return f"{mean} ± {number(statistics.stdev(values), digits)}"
    difference = paired_difference(values, at[BASELINE][name], about["better"])
    if difference is None:
        return mean
    mark = {"better": " ▲", "worse": " ▼"}.get(verdict(difference, about["better"]) or "", "")
    half = number((difference.high - difference.low) / 2, digits)
    return f"{mean} ({number(difference.mean, digits, sign=True)} ± {half}){mark}"


def saved(measured: Measured, arm: str, name: str, steps: str) -> float | None:
    """Return the optimizer steps that the baseline needs for what `arm` has at `steps`; None where it never has it.

    Means over seeds, linear in the logarithm of the steps between two lengths; the first crossing counts.
    """
    wanted = statistics.fmean(measured["values"][steps][arm][name])
    sign = -1 if measured["metrics"][name]["better"] == "higher" else 1
    points = [(math.log(int(n)), sign * statistics.fmean(at[BASELINE][name])) for n, at in measured["values"].items()]
    if points[0][1] <= sign * wanted:
        return math.exp(points[0][0])
    for (n0, v0), (n1, v1) in itertools.pairwise(points):
        if v1 <= sign * wanted:
            return math.exp(n0 + (n1 - n0) * (v0 - sign * wanted) / (v0 - v1))
    return None


def _saved(measured: Measured) -> list[str]:
    names = [name for name, about in measured["metrics"].items() if about["better"] != "zero"]
    header = [
        "steps that MSE alone needs for what the arm has",
        *(measured["metrics"][name]["label"] for name in names),
    ]
    lines = ["| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
    if len(measured["values"]) == 1:
        return []
    longest = max(map(int, measured["values"]))
    for steps, at in measured["values"].items():
        for arm in at:
            if arm == BASELINE or not arm.endswith("@auto:2"):
                continue
            found = [saved(measured, arm, name, steps) for name in names]
            shown = [f"more than {longest}" if n is None else f"{round(n)}" for n in found]
            lines.append(f"| {arm} at {steps} | " + " | ".join(shown) + " |")
    return lines


def number(value: float, digits: int, *, sign: bool = False) -> str:
    """Return a number with a true minus sign."""
    return (f"{value:+.{digits}f}" if sign else f"{value:.{digits}f}").replace("-", "−")


def draw(measured: Measured, target: Path) -> None:
    """Draw every metric against optimizer steps: means as lines, seeds as points."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    colors = {BASELINE: "#D55E00", "amplitude": "#0072B2", "haar": "#009E73", "amplitude+haar": "#000000"}
    colors |= {"amplitude_phase": "#56B4E9", "bior1.3": "#CC79A7"}
    names = list(measured["metrics"])
    figure, axes = plt.subplots(2, math.ceil(len(names) / 2), figsize=(11, 5.6), layout="constrained", squeeze=False)
    for axis, name in zip(axes.flat, names, strict=False):
        about = measured["metrics"][name]
        for arm in arms_of(measured):
            base, _, ratio = arm.partition("@auto:")
            if ratio not in ("", "2") or arm == CALIBRATED:
                continue
            points = [(int(n), at[arm][name]) for n, at in measured["values"].items() if arm in at]
            steps = [n for n, _ in points]
            strong = {"linewidth": 2.2} if base in (BASELINE, "amplitude+haar") else {"linewidth": 1.1}
            axis.plot(
                steps,
                [statistics.fmean(v) for _, v in points],
                color=colors[base],
                label=LABELS.get(arm, base),
                **strong,
            )
            for n, values in points:
                axis.plot([n] * len(values), values, ".", color=colors[base], markersize=3, alpha=0.5)
        floor = measured["truth"].get(name, measured["truth"].get(f"floor: {name}"))
        if floor is not None:
            axis.axhline(floor, color="#999999", linewidth=0.8, linestyle="--")
        axis.set_xscale("log", base=2)
        axis.set_xticks([int(n) for n in measured["values"]], labels=list(measured["values"]))
        axis.minorticks_off()
        axis.set_title(f"{about['label']}{', ' + about['unit'] if about['unit'] else ''}", fontsize=9)
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    for axis in axes.flat[len(names) :]:
        axis.axis("off")
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=6, fontsize=9, frameon=False)
    figure.supxlabel("optimizer steps (dashed: real images; points: seeds)", fontsize=9)
    figure.savefig(target, dpi=110)


if __name__ == "__main__":
    path = Path(sys.argv[1])
    if path.is_dir():
        print(json.dumps(collect(path), ensure_ascii=False))
    elif len(sys.argv) > 2:
        draw(json.loads(path.read_text(encoding="utf-8")), Path(sys.argv[2]))
    else:
        print(block(json.loads(path.read_text(encoding="utf-8"))))
