"""What two denoisers know, by noise level and frequency band: gain and error, paired by seed.

python docs/measured/gains.py FOLDER ARM > docs/measured/NAME.json   # keep the numbers of a comparison or a study
python docs/measured/gains.py docs/measured/NAME.json                # print them as the page has them

The gain is that of `specreg.denoising`: 1 for a posterior mean, below 1 where a prediction has energy that the data do
not bear out.
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import Any

from curves import made, number

from specreg.compare import paired_difference, verdict

Measured = dict[str, Any]
BANDS = 2
"""Bands shown, from Nyquist down: those above half Nyquist."""


def collect(folder: Path, arm: str) -> Measured:
    """Return the gain and error of the baseline and of one arm at each noise level and band, by seed."""
    comparison = json.loads((folder / "comparison.json").read_text(encoding="utf-8"))
    kept = {key: comparison[key] for key in ("title", "command", "created", "machine", "versions", "seeds", "baseline")}
    found: Measured = {**kept, "arm": arm, "maps": {comparison["baseline"]: [], arm: []}}
    for cell in comparison["cells"]:
        if cell["arm"] not in found["maps"]:
            continue
        record = json.loads((folder / cell["folder"] / "results.json").read_text(encoding="utf-8"))["denoising"]
        found["log_snr"], found["edges"] = [round(level, 2) for level in record["log_snr"]], record["edges"]
        found["maps"][cell["arm"]].append({
            name: [[round(value, 4) for value in row] for row in record[name]] for name in ("gain", "error_db")
        })  # fmt: skip
    return found


def block(measured: Measured) -> str:
    """Return the Markdown table: noise levels by bands, the two gains and the difference of the errors."""
    baseline, arm, edges = measured["baseline"], measured["arm"], measured["edges"]
    bands = range(len(edges) - 1 - BANDS, len(edges) - 1)
    header = ["log SNR"]
    for band in bands:
        where = f"{edges[band]:g} to {edges[band + 1]:g}"
        header += [f"{where}: gain of MSE alone", f"of {arm}", "error, dB"]
    lines = ["| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
    for row, level in enumerate(measured["log_snr"]):
        cells = [number(level, 1, sign=True)]
        for band in bands:
            of = {
                (name, key): [seed[key][row][band] for seed in maps]
                for name, maps in measured["maps"].items()
                for key in ("gain", "error_db")
            }
            cells += [number(statistics.fmean(of[name, "gain"]), 2) for name in (baseline, arm)]
            difference = paired_difference(of[arm, "error_db"], of[baseline, "error_db"], "lower")
            assert difference is not None, "a map has one value for each seed"
            mark = {"better": " ▲", "worse": " ▼"}.get(verdict(difference, "lower") or "", "")
            half = number((difference.high - difference.low) / 2, 2)
            cells.append(f"{number(difference.mean, 2, sign=True)} ± {half}{mark}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", made(measured)])


if __name__ == "__main__":
    path = Path(sys.argv[1])
    if path.is_dir():
        print(json.dumps(collect(path, sys.argv[2]), ensure_ascii=False))
    else:
        print(block(json.loads(path.read_text(encoding="utf-8"))))
