"""What the spectral term adds to a training step: `python -m benchmarks.step_overhead [--json FILE]`.

Arms take turns step by step on one network and one data stream, so that a noisy machine is noisy for all of them; what
is shown is the median over rounds of each arm's step time divided by the baseline's step of the same round, with the
interval of that median (95%, from order statistics).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.measure import median_ratio
from specreg.compare import BASELINE, label, resolve_arms, step_seconds
from specreg.modalities import parse
from specreg.recipes import RECIPES

ARMS = ["amplitude@0.1", "amplitude@auto", "amplitude_phase@0.1", "amplitude_phase@auto", "haar@0.1", "haar@auto"]


def main() -> None:
    """Measure, print a table, and write the numbers where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", choices=RECIPES, default="checkerboard", help="its network, data and batch")
    parser.add_argument("--arms", default=",".join(ARMS), help="as in specreg compare")
    parser.add_argument("--against", default=BASELINE, help="arm to divide by")
    parser.add_argument("--rounds", type=int, default=100, help="steps of each arm")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of torch on the CPU")
    parser.add_argument("--json", type=Path, help="write the numbers here too")
    parser.add_argument("overrides", nargs="*", help="such as data.resolution=32")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    config = parse({**RECIPES[options.recipe](), "training": {"steps": options.rounds + 5}}, options.overrides)
    arms = resolve_arms(config, options.arms.split(","))
    seconds = step_seconds(config.model_copy(update={"arms": arms}), arms, rounds=options.rounds, warmup=5)

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {options.threads} threads"
    title = f"{options.recipe}, batch {config.training.batch_size}, {device}, torch {torch.__version__}"
    table = Table(
        "arm", "step, ms", f"ratio to {options.against}", "95% interval", title=title, title_justify="left", box=None
    )
    rows = {}
    for arm, spectral in arms.items():
        middle, low, high = median_ratio(np.array(seconds[arm]), np.array(seconds[options.against]))
        rows[arm] = {"ms": 1000 * float(np.median(seconds[arm])), "ratio": middle, "low": low, "high": high}
        shown = ("", "") if arm == options.against else (f"{middle:.3f}", f"{low:.3f} … {high:.3f}")
        table.add_row(label(spectral), f"{rows[arm]['ms']:.1f}", *shown)
    Console().print(table)
    if options.json:
        options.json.write_text(json.dumps({"title": title, "rounds": options.rounds, "arms": rows}, indent=1))


if __name__ == "__main__":
    main()
