"""The spectra of a comparison's samples once more, with windows: does a verdict hang on the pictures' edges?

    python docs/measured/windowed.py RUNS TEST > docs/measured/NAME.json

RUNS is the folder of `specreg compare` or of a study, TEST what it is measured against. Numbers are those of `specreg
spectrum`, so the log-spectral distance is corrected for the number of samples and is not that of `specreg compare`.
Kept in the form that summarize.py has.
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import Any

from specreg import instruments
from specreg.compare.paired import paired_difference, verdict

WINDOWS = ("none", "tukey", "hann")
METRICS = {
    "log_spectral_distance_db": ("log-spectral distance", "lower", 2),
    "high_band_db": ("energy above half Nyquist", "zero", 2),
}


def measured(runs: Path, test: Path) -> dict[str, Any]:
    """Return the table: each metric under each window, for each arm, paired by seed."""
    comparison = json.loads((runs / "comparison.json").read_text(encoding="utf-8"))
    folders = {(cell["arm"], cell["seed"]): runs / cell["folder"] for cell in comparison["cells"]}
    arms = list(dict.fromkeys(arm for arm, _ in folders))
    values: dict[tuple[str, str], list[float]] = {}
    for window in WINDOWS:
        settings = instruments.Settings(window=window)
        found = instruments.spectra(str(test), *map(str, folders.values()), settings=settings)
        for (arm, _), result in zip(folders, found.sets, strict=True):
            for name in METRICS:
                values.setdefault((arm, f"{name}: {window}"), []).append(result.values()[name].value)
    baseline, metrics, rows = comparison["baseline"], {}, []
    for name, (label, better, digits) in METRICS.items():
        for window in WINDOWS:
            key = f"{name}: {window}"
            about = f"{label}, {'no' if window == 'none' else window.title()} window"
            metrics[key] = {"label": about, "unit": "dB", "better": better, "digits": digits}
            for arm in arms:
                ours = values[arm, key]
                difference = None if arm == baseline else paired_difference(ours, values[baseline, key], better)
                rows.append({
                    "arm": arm, "metric": key, "mean": statistics.fmean(ours), "std": statistics.stdev(ours),
                    "n": len(ours), "difference": difference and difference._asdict(),
                    "verdict": verdict(difference, better),
                })  # fmt: skip
    kept = {name: comparison[name] for name in ("title", "created", "machine", "versions", "seeds", "baseline")}
    return {
        **kept,
        "command": f"python docs/measured/windowed.py {runs} {test}",
        "arms": [{"name": arm["name"], "label": arm["label"]} for arm in comparison["arms"] if arm["name"] in arms],
        "truth": {},
        "metrics": metrics,
        "table": rows,
    }


if __name__ == "__main__":
    print(json.dumps(measured(*map(Path, sys.argv[1:3])), indent=1, ensure_ascii=False))
