"""The spectra of a comparison's samples once more, with windows: does a verdict hang on the pictures' edges?

    python docs/measured/windowed.py RUNS TEST > docs/measured/NAME.json

RUNS is the folder of `specreg compare` or of a study, TEST what it is measured against. Numbers are those of `specreg
spectrum`, so the log-spectral distance is corrected for the number of samples and is not that of `specreg compare`.
Kept in the form that summarize.py has.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import kept

from specreg import instruments

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
    metrics = {
        f"{name}: {window}": {
            "label": f"{label}, {'no' if window == 'none' else window.title()} window",
            "unit": "dB",
            "better": better,
            "digits": digits,
        }
        for name, (label, better, digits) in METRICS.items()
        for window in WINDOWS
    }
    kept_arms = [arm for arm in comparison["arms"] if arm["name"] in arms]
    return kept.table(
        comparison, f"python docs/measured/windowed.py {runs} {test}", kept_arms, metrics, values, truth={}
    )


if __name__ == "__main__":
    print(json.dumps(measured(*map(Path, sys.argv[1:3])), indent=1, ensure_ascii=False))
