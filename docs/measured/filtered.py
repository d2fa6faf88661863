"""Is what a term does to samples a filter? Its network and MSE alone's, each with a filter that needs no training.

    python docs/measured/filtered.py FOLDER ARM > docs/measured/NAME.json

FOLDER is that of `specreg compare` or of a study. Two rows are added to MSE alone and ARM, from networks as they are:

- "MSE alone, filtered": every x0_hat of it multiplied by noise level and band so that on training images it has the
  energy that the arm's has. Had the term taught its network nothing but how strong a prediction is, this would do the
  same.
- "ARM, calibrated": the arm's network with its own gain, which takes away what it adds beyond the posterior mean.

Kept in the form that summarize.py has.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import kept
import numpy as np
import torch
from torch import nn

from specreg import calibrated, evaluation, modalities
from specreg.config import Config
from specreg.denoising import DenoisingMap, denoising_map
from specreg.modalities.protocol import Truth
from specreg.objectives import Objective
from specreg.training.term import build_objective

IMAGES = 256
"""Training images on which filters are measured, as for the row `calibrated` of `specreg compare`."""

FILTERED = "MSE alone, filtered"


def measured(folder: Path, arm: str) -> dict[str, Any]:
    """Return the table: MSE alone, it filtered, the arm, and it calibrated, paired by seed."""
    comparison = json.loads((folder / "comparison.json").read_text(encoding="utf-8"))
    cells = {(cell["arm"], cell["seed"]): folder / cell["folder"] for cell in comparison["cells"]}
    baseline, seeds = comparison["baseline"], comparison["seeds"]
    truth = evaluation.load_truth(evaluation.load_trained(cells[baseline, seeds[0]]).config)
    own = f"{arm}, calibrated"
    values: dict[str, list[dict[str, float]]] = {row: [] for row in (baseline, FILTERED, arm, own)}
    for seed in seeds:
        plain, termed = (evaluation.load_trained(cells[name, seed]) for name in (baseline, arm))
        objective = build_objective(plain.config, "cpu", saved=plain.description)
        maps = [_map(found.config, objective, found.network) for found in (plain, termed)]
        energies = maps[0]._replace(cross=(maps[0].energy * maps[1].energy).sqrt())  # "gain": √(arm's / MSE alone's)
        for row, network in (
            (FILTERED, calibrated.Calibrated(plain.network, objective, energies)),
            (own, calibrated.Calibrated(termed.network, objective, maps[1])),
        ):
            values[row].append(_scores(plain.config, objective, network, plain.shape, truth))
        for name in (baseline, arm):
            values[name].append(json.loads((cells[name, seed] / "results.json").read_text(encoding="utf-8"))["metrics"])
    metrics = {
        name: {key: about[key] for key in ("label", "unit", "better", "digits")}
        for name, about in comparison["metrics"].items()
        if all(name in scores for row in values.values() for scores in row)
    }
    return kept.table(
        comparison,
        f"python docs/measured/filtered.py {folder} {arm}",
        [{"name": row, "label": row} for row in values],
        metrics,
        {(row, name): [scores[name] for scores in found] for row, found in values.items() for name in metrics},
        comparison["truth"]["metrics"],
    )


def _map(config: Config, objective: Objective, network: nn.Module) -> DenoisingMap:
    data = modalities.of(config).open(config)
    chosen = np.linspace(0, len(data) - 1, min(IMAGES, len(data))).round().astype(int).tolist()
    x0 = torch.stack([data.item(i) for i in chosen])
    return denoising_map(objective, network, x0, levels=calibrated.LEVELS)


def _scores(
    config: Config, objective: Objective, network: nn.Module, shape: tuple[int, ...], truth: Truth
) -> dict[str, float]:
    """Return the metrics of samples and of one-step denoising, from the latents of the run."""
    network = network.eval()
    with tempfile.TemporaryDirectory() as scratch:
        found = evaluation.evaluate_network(config, network, shape, truth, Path(scratch))
    denoised = modalities.of(config).denoise(config, objective, network, truth, device="cpu")
    return {**(found or {})["metrics"], **(denoised.values if denoised else {})}


if __name__ == "__main__":
    print(json.dumps(measured(Path(sys.argv[1]), sys.argv[2]), indent=1, ensure_ascii=False))
