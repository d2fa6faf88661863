"""The form in which measurements beside a comparison's own are kept, which is that of summarize.py."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from specreg.compare import paired_difference, verdict

Record = dict[str, Any]


def table(
    comparison: Record,
    command: str,
    arms: Sequence[Mapping[str, str]],
    metrics: Mapping[str, Mapping[str, Any]],
    values: Mapping[tuple[str, str], Sequence[float]],
    truth: Mapping[str, float],
) -> Record:
    """Return what a page needs: values by arm and metric, one for each seed, as means and paired differences."""
    baseline, rows = comparison["baseline"], []
    for name, about in metrics.items():
        for arm in (arm["name"] for arm in arms):
            ours, better = values[arm, name], about["better"]
            difference = None if arm == baseline else paired_difference(ours, values[baseline, name], better)
            rows.append({
                "arm": arm, "metric": name, "mean": statistics.fmean(ours), "std": statistics.stdev(ours),
                "n": len(ours), "difference": difference and difference._asdict(),
                "verdict": verdict(difference, better),
            })  # fmt: skip
    return {
        **{key: comparison[key] for key in ("title", "created", "machine", "versions", "seeds", "baseline")},
        "command": command,
        "arms": [{"name": arm["name"], "label": arm["label"]} for arm in arms],
        "truth": dict(truth),
        "metrics": {name: dict(about) for name, about in metrics.items()},
        "table": rows,
    }
