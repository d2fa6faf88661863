"""Fill sentences of the pages from the numbers in this folder.

A sentence holds references in braces: `{NAME STEPS METRIC ARM FORM}`, where NAME.json is a study (STEPS of optimizer
steps) or a comparison (STEPS is "-"), METRIC is a key or one of `METRICS`, and ARM is as the file has it, or "real", or
"a/b" for a beside b instead of MSE alone; "~" is a blank. FORM:

    (none)  the mean: 1.08
    ->      of MSE alone, then of the arm: 2.69 → 1.08
    +       the paired difference: −1.61
    +-      the same with half of its 95% interval: −1.61 ± 0.30
    by, by- these two without their sign: 1.61, 1.61 ± 0.30
    %       how much larger the mean is than that of MSE alone, in percent: 3%
    abs     the mean without its sign
    .N      N digits instead of the metric's own, with any of the others: .1 or ->.1 or +.2

cases.json is the table of the README, index.md and choosing.md, ratios.json another of choosing.md; said.json has the
sentences that must stand on each page as filled.
"""

from __future__ import annotations

import functools
import json
import re
import statistics
from pathlib import Path
from typing import Any, NamedTuple

from curves import number

from specreg.compare import paired_difference

HERE = Path(__file__).parent
METRICS = {
    "lsd": "log_spectral_distance_db",
    "high": "high_frequency_db",
    "contrast": "contrast_db",
    "kernel": "kernel_distance",
    "den": "denoising_error_db",
    "den-high": "denoising_high_db",
}
REFERENCE = re.compile(r"\{([^{}]+)\}")
FORM = re.compile(r"(?P<form>->|\+-|\+|by-|by|abs|%|)(?:\.(?P<digits>\d))?")


class Found(NamedTuple):
    """A metric of an arm: its mean and that of MSE alone, the paired difference, half of its interval, and digits."""

    mean: float
    baseline: float | None
    difference: float | None
    half: float | None
    digits: int


def filled(text: str) -> str:
    """Return a sentence with its references filled in."""
    return REFERENCE.sub(lambda match: _said(match[1]), text)


def block(measured: dict[str, Any]) -> str:
    """Return the table of cases in Markdown."""
    header, *rows = measured["rows"]
    lines = ["| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(map(filled, row)) + " |" for row in rows)])


def missing(pages: dict[str, str]) -> list[str]:
    """Return the sentences of said.json that their page does not have as the numbers are now."""
    said = json.loads((HERE / "said.json").read_text(encoding="utf-8"))
    wanted = [(page, filled(text)) for page, texts in said.items() for text in texts]
    return [f"{page}: {text}" for page, text in wanted if text not in " ".join(pages[page].split())]


def _said(reference: str) -> str:
    name, steps, metric, arm, *form = (part.replace("~", " ") for part in reference.split())
    parsed = FORM.fullmatch(form[0] if form else "")
    if parsed is None or len(form) > 1:
        raise ValueError(
            f"expected '', '->', '+', '+-', 'by', 'by-', 'abs' or '%', with '.N' or without, in {{{reference}}}"
        )
    arm, _, other = arm.partition("/")
    found = _found(_numbers(name), steps, METRICS.get(metric, metric), arm)
    if other:
        found = found._replace(
            baseline=_found(_numbers(name), steps, METRICS.get(metric, metric), other).mean, difference=None
        )
    digits = found.digits if parsed["digits"] is None else int(parsed["digits"])
    if parsed["form"] in ("", "abs"):
        return number(abs(found.mean) if parsed["form"] else found.mean, digits)
    if parsed["form"] in ("->", "%") and found.baseline is not None:
        if parsed["form"] == "%":
            return f"{100 * (found.mean / found.baseline - 1):.0f}%"
        return f"{number(found.baseline, digits)} → {number(found.mean, digits)}"
    if found.difference is None or found.half is None:
        raise ValueError(f"{{{reference}}} has no paired difference")
    signed = parsed["form"].startswith("+")
    difference = number(found.difference if signed else abs(found.difference), digits, sign=signed)
    return f"{difference} ± {number(found.half, digits)}" if parsed["form"].endswith("-") else difference


def _found(measured: dict[str, Any], steps: str, metric: str, arm: str) -> Found:
    about = measured["metrics"][metric]
    digits = about["digits"]
    if arm == "real":
        return Found(measured["truth"].get(metric, measured["truth"].get(f"floor: {metric}")), None, None, None, digits)
    if steps == "-":
        rows = {row["arm"]: row for row in measured["table"] if row["metric"] == metric}
        row, baseline = rows[arm], rows[measured["baseline"]]["mean"]
        difference = row["difference"]
        if difference is None:
            return Found(row["mean"], baseline, None, None, digits)
        half = (difference["high"] - difference["low"]) / 2
        return Found(row["mean"], baseline, difference["mean"], half, digits)
    at = measured["values"][steps]
    ours, theirs = at[arm][metric], at["none"][metric]
    paired = paired_difference(ours, theirs, about["better"])
    half = None if paired is None else (paired.high - paired.low) / 2
    return Found(statistics.fmean(ours), statistics.fmean(theirs), paired and paired.mean, half, digits)


@functools.cache
def _numbers(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((HERE / f"{name}.json").read_text(encoding="utf-8"))
    return found
