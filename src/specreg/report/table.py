"""The numbers of a comparison in words: table entries, rows for the terminal, one verdict an arm."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from specreg.report.contents import Record
from specreg.report.reading import check_comparison

ARROWS = {"lower": "↓", "higher": "↑", "zero": "→ 0", "none": ""}
HEADLINE = "log_spectral_distance_db"  # what a verdict is about; without it, the first metric with a direction
SIDES = {"samples": "Samples", "denoising": "One-step denoising of real data"}
WIDE = 4  # arms: more of them, and the terminal's table has a row an arm
FLOOR = "floor: "  # prefix of the truth's metrics that compare some real data with other real data


class Entry(NamedTuple):
    """One cell of the table as text; empty where there is nothing to say."""

    value: str
    std: str = ""
    difference: str = ""
    verdict: str = ""
    best: bool = False
    interval: str = ""  # 95%, of a value over samples
    seeds: int = 0  # 0: not over seeds


@dataclass(frozen=True)
class Column:
    """One metric as a column of the tables: its name, how values are written, which are better."""

    key: str
    label: str
    unit: str
    better: str
    digits: int
    help: str
    side: str = "samples"

    @property
    def arrow(self) -> str:
        """The direction that is better."""
        return ARROWS[self.better]

    @property
    def title(self) -> str:
        """Label, unit and direction, e.g. "log-spectral distance, dB ↓"."""
        return f"{self.label}{self.unit and f', {self.unit}'} {self.arrow}".strip()

    def interval(self, difference: Record | None) -> str:
        """Return "low … high" of a paired difference; nothing where there is none, as with one seed."""
        ends = [(difference or {}).get(end) for end in ("low", "high")]
        return "" if None in ends else " … ".join(number(end, self.digits, sign=True) for end in ends)

    def badness(self, value: float) -> float:
        """Return a number that is lowest for the best value; NaN where no value is better than another."""
        return {"lower": value, "higher": -value, "zero": abs(value)}.get(self.better, math.nan)

    def entry(self, row: Record | None, *, best: bool = False) -> Entry:
        """Return one row of comparison.json's table as text."""
        if row is None:
            return Entry("–")
        difference, std = row.get("difference"), row.get("std")
        change = number(difference.get("mean"), self.digits, sign=True) if difference else ""
        if interval := self.interval(difference):
            change += f" [{interval}]"
        spread = "" if std is None else number(std, self.digits)
        own = " … ".join(number(row[end], self.digits) for end in ("low", "high")) if "low" in row else ""
        seeds = 0 if own else int(row.get("n", 1))
        return Entry(number(row["mean"], self.digits), spread, change, row.get("verdict") or "", best, own, seeds)


def number(value: float | None, digits: int, *, sign: bool = False) -> str:
    """Return `value` with `digits` decimals and a real minus sign; "–" for None, no sign on 0."""
    if value is None:
        return "–"
    if not math.isfinite(value):
        return "not finite"
    text = f"{value:+.{digits}f}" if sign else f"{value:.{digits}f}"
    return text.lstrip("+-") if float(text) == 0 else text.replace("-", "−")


def metrics_of(comparison: Record) -> list[Column]:
    """Return the metrics, those of samples first, else in comparison.json's order.

    What the file leaves open is read off the metric's name.
    """
    found = []
    described = comparison["metrics"]
    tabled = dict.fromkeys(row["metric"] for row in comparison["table"])  # in order, each once
    for key in [*described, *(key for key in tabled if key not in described)]:
        about = described.get(key) or {}
        better = about.get("better", "none")
        if better not in ARROWS:
            raise ValueError(f"metric {key!r}: better must be one of {', '.join(ARROWS)}; got {better!r}")
        decibels = key.endswith("_db")
        label = about.get("label") or key.removesuffix("_db").replace("_", " ")
        unit = about.get("unit", "dB" if decibels else "") or ""
        side = about.get("side", "samples")
        if side not in SIDES:
            raise ValueError(f"metric {key!r}: side must be one of {', '.join(SIDES)}; got {side!r}")
        found.append(Column(key, label, unit, better, int(about.get("digits", 3)), about.get("help") or "", side))
    return sorted(found, key=lambda metric: list(SIDES).index(metric.side))


def arm_entries(comparison: Record, arm: str, metrics: list[Column]) -> list[Entry]:
    """Return one arm's entries, one a metric; best: the best mean of all arms, with the verdict "better"."""
    entries = []
    for metric in metrics:
        row = _row(comparison, arm, metric)
        every = [_row(comparison, other["name"], metric) for other in comparison["arms"]]
        best = row is not None and row.get("verdict") == "better"
        if row is not None and best:
            best = metric.badness(row["mean"]) == min(metric.badness(other["mean"]) for other in every if other)
        entries.append(metric.entry(row, best=best))
    return entries


def truth_entries(comparison: Record, metrics: list[Column]) -> list[Entry] | None:
    """Return what the truth scores itself, or some of it against the rest; None if neither was measured."""
    values = (comparison.get("truth") or {}).get("metrics") or {}
    entries = []
    for metric in metrics:
        if metric.key in values:
            entries.append(Entry(number(values[metric.key], metric.digits)))
        elif FLOOR + metric.key in values:
            floor = number(values[FLOOR + metric.key], metric.digits)
            entries.append(Entry(floor, verdict="real against real"))
        else:
            entries.append(Entry(""))
    return entries if any(entry.value for entry in entries) else None


def summary_rows(comparison: Record) -> list[list[str]]:
    """Return the table of comparison.json as text, header first: a row a metric, a column an arm.

    An entry is "mean ± std"; under it, for arms that were paired with the baseline over several seeds, the
    difference with its 95% interval, and the verdict. The first column of values is that of the truth.
    Metrics of denoising come last, under a row that says so. More than four arms have a row each, and one table
    under the other for the two sides.
    """
    check_comparison(comparison)
    metrics = metrics_of(comparison)
    sides = [found for side in SIDES if (found := [metric for metric in metrics if metric.side == side])]
    if len(comparison["arms"]) > WIDE:
        blocks = [_block(comparison, side, timed=index == 0) for index, side in enumerate(sides or [[]])]
        width = max(len(row) for block in blocks for row in block)
        blocks = [[row + [""] * (width - len(row)) for row in block] for block in blocks]
        for side, block in zip(sides, blocks, strict=bool(sides)):
            block[0][0] = SIDES[side[0].side] if len(sides) > 1 else ""
        return [row for block in blocks for row in block]
    header, *rows = map(list, zip(*_block(comparison, metrics, timed=True), strict=True))
    if len(sides) > 1:
        for start, side in ((0, sides[0]), (len(sides[0]) + 1, sides[1])):
            rows.insert(start, [SIDES[side[0].side], *[""] * (len(header) - 1)])
        if len(rows) > len(metrics) + 2:
            rows.insert(-1, ["Cost", *[""] * (len(header) - 1)])
    return [header, *rows]


def _block(comparison: Record, metrics: list[Column], *, timed: bool) -> list[list[str]]:
    """Return some metrics as text, a column each: a header, the truth if it has values, a row for each arm."""
    arms, truth = comparison["arms"], truth_entries(comparison, metrics)
    rows = [["", *(metric.title for metric in metrics)]]
    if truth:
        rows.append([truth_name(comparison), *(entry.value for entry in truth)])
    for arm in arms:
        row = [str(arm.get("label") or arm["name"])]
        for entry in arm_entries(comparison, arm["name"], metrics):
            value = f"{entry.value} ± {entry.std}" if entry.std else entry.value
            difference = entry.difference.replace(" [", "\n[" if len(arms) > WIDE else " [")
            row.append("\n".join(filter(None, [value, difference, entry.verdict])))
        rows.append(row)
    times = [step_time(comparison, arm["name"]) for arm in arms]
    if timed and any(times):
        column = ["time per step", *([""] if truth else []), *(" ".join(time or ("–",)) for time in times)]
        rows = [[*row, text] for row, text in zip(rows, column, strict=True)]
    return rows


def truth_name(comparison: Record) -> str:
    """Return what the real data are called."""
    return str((comparison.get("truth") or {}).get("kind") or "real data")


def unit(comparison: Record) -> str:
    """Return what samples are called, in the plural."""
    return str((comparison.get("truth") or {}).get("unit") or "samples")


def step_time(comparison: Record, arm: str) -> tuple[str, str] | None:
    """Return an arm's time for a training step, the arms having taken turns, and its ratio to the baseline's."""
    seconds = comparison.get("step_seconds") or {}
    if arm not in seconds:
        return None
    base = seconds.get(comparison.get("baseline"))
    return duration(seconds[arm]), f"× {seconds[arm] / base:.2f}" if base else ""


def duration(seconds: float) -> str:
    """Return `seconds` to three figures, in the unit that suits it; "–" for NaN."""
    if not math.isfinite(seconds):
        return "–"
    units = ((7200, 3600, "h"), (120, 60, "min"), (1, 1, "s"), (0, 1e-3, "ms"))
    factor, unit = next((factor, unit) for least, factor, unit in units if seconds >= least)
    return f"{seconds / factor:#.3g}".rstrip(".") + f" {unit}"


def verdicts(comparison: Record) -> list[str]:
    """Return one sentence an arm other than the baseline: what changed, how sure that is, what got worse."""
    check_comparison(comparison)
    others = [arm for arm in comparison["arms"] if arm["name"] != comparison.get("baseline")]
    return [f"{arm.get('label') or arm['name']}: {verdict(comparison, arm['name'])}" for arm in others]


def verdict(comparison: Record, arm: str) -> str:
    """Return how the headline metric changed from the baseline to `arm`, and which others moved; so for each side."""
    metrics = metrics_of(comparison)
    samples, denoising = ([metric for metric in metrics if metric.side == side] for side in SIDES)
    if not denoising:
        return _verdict(comparison, arm, samples)
    said = [_verdict(comparison, arm, samples)] if samples else []
    second = _verdict(comparison, arm, denoising, brief=True)
    if said == [second]:  # nothing to compare on either side
        return second
    second = second if second.startswith("denoising") else f"in denoising, {second}"
    return " ".join([*said, second[0].upper() + second[1:]])


def _verdict(comparison: Record, arm: str, metrics: list[Column], *, brief: bool = False) -> str:
    """Return the verdict on some metrics; `brief`: without interval and number of seeds."""
    judged = [m for m in metrics if m.key == HEADLINE] or [m for m in metrics if m.arrow]
    if not judged:
        return "no metric to compare."
    metric = judged[0]
    base, row = _row(comparison, comparison.get("baseline"), metric), _row(comparison, arm, metric)
    if base is None or row is None:
        return "nothing to compare yet."
    unit = metric.unit and f" {metric.unit}"
    change = " → ".join(f"{number(side['mean'], metric.digits)}{unit}" for side in (base, row))
    seeds, word = row.get("n", 1), row.get("verdict")
    if seeds == 1:
        return f"{metric.label} {change}{'' if brief else ' (one seed: a lead, not a result)'}."
    interval = metric.interval(row.get("difference"))
    paired = f"95% interval of the paired difference {interval}{unit}" if interval else "no paired interval"
    how = ", ".join(filter(None, [word] if brief else [word, paired, f"{seeds} seeds"]))
    sentence = f"{metric.label} {change}{f' ({how})' if how else ''}."
    for said in sorted(("better", "worse"), key=lambda said: said != word):
        rest = [(m.label, _row(comparison, arm, m)) for m in metrics if m is not metric]
        names = ", ".join(label for label, other in rest if other and other.get("verdict") == said)
        if names:
            sentence += f" {'Also' if said == word else 'But'} {said}: {names}."
    return sentence


def _row(comparison: Record, arm: str | None, metric: Column) -> Record | None:
    rows = (row for row in comparison["table"] if (row["arm"], row["metric"]) == (arm, metric.key))
    return next((row for row in rows if row["mean"] is not None), None)
