"""The samples of a study's networks drawn anew by other samplers: is a difference one of the networks, or of few steps?

    python docs/measured/sampled.py FOLDER NAME=VALUE,NAME=VALUE ... > docs/measured/NAME.json

FOLDER is that of `specreg compare` or of a study. Each word changes the sampling of the run, as `steps=100,eta=1` does,
from the latents of the run; `-` leaves it as it was. Kept in the form that summarize.py has.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import kept

from specreg import evaluation, modalities
from specreg.compare import CALIBRATED
from specreg.config import Config

METRICS = ("log_spectral_distance_db", "high_frequency_db", "contrast_db", "kernel_distance")


def measured(folder: Path, changes: list[str]) -> dict[str, Any]:
    """Return the table: each metric under each sampler, for each arm that was trained, paired by seed."""
    comparison = json.loads((folder / "comparison.json").read_text(encoding="utf-8"))
    cells = [(cell["arm"], folder / cell["folder"]) for cell in comparison["cells"] if cell["arm"] != CALIBRATED]
    values: dict[tuple[str, str], list[float]] = {}
    metrics: dict[str, dict[str, Any]] = {}
    for arm, cell in cells:
        found = evaluation.load_trained(cell)
        truth = evaluation.load_truth(found.config)
        for change in changes:
            config = changed(found.config, change)
            with tempfile.TemporaryDirectory() as scratch:
                scores = evaluation.evaluate_network(config, found.network.eval(), found.shape, truth, Path(scratch))
            for name in METRICS:
                if scores and name in scores["metrics"]:
                    about = modalities.of(config).metrics[name]._asdict()
                    kept_about = {key: about[key] for key in ("unit", "better", "digits")}
                    metrics[f"{name}: {change}"] = {"label": f"{about['label']}, {said(config)}", **kept_about}
                    values.setdefault((arm, f"{name}: {change}"), []).append(scores["metrics"][name])
    metrics = dict(sorted(metrics.items(), key=lambda item: METRICS.index(item[0].partition(": ")[0])))
    return kept.table(
        comparison,
        f"python docs/measured/sampled.py {folder} {' '.join(changes)}",
        [arm for arm in comparison["arms"] if arm["name"] in dict(cells)],
        metrics,
        values,
        {f"floor: {key}": comparison["truth"]["metrics"][f"floor: {key.partition(': ')[0]}"] for key in metrics},
    )


def changed(config: Config, change: str) -> Config:
    """Return a run with another sampler."""
    words = [] if change == "-" else [f"sampling.{word}" for word in change.split(",")]
    return modalities.parse(config.model_dump(mode="json"), words)


def said(config: Any) -> str:
    """Return the sampler of a run in words."""
    sampling = config.sampling
    return f"{sampling.steps} steps" + (f", eta {sampling.eta:g}" if sampling.eta else "")


if __name__ == "__main__":
    print(json.dumps(measured(Path(sys.argv[1]), sys.argv[2:]), indent=1, ensure_ascii=False))
