"""A comparison as its folder shows it: which cells are finished, and the summary of their results."""

from __future__ import annotations

import datetime
import importlib.metadata
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from specreg import _html, evaluation, modalities, processes
from specreg import config as configs
from specreg._files import read_json, write_json
from specreg.compare.arms import BASELINE, CALIBRATED, cell_config, cell_name, label
from specreg.compare.paired import paired_difference, verdict
from specreg.config import Config
from specreg.metrics.info import MetricInfo
from specreg.modalities.protocol import Truth

FAILURE = "failure.json"
"""File in a cell whose training stopped for good: at which step, and why."""


class Summary(dict[str, Any]):
    """What comparison.json holds; a notebook shows its table."""

    def _repr_html_(self) -> str:
        labels = {arm["name"]: arm["label"] for arm in self["arms"]}
        rows = []
        for row in self["table"]:
            metric, change = self["metrics"][row["metric"]], row.get("difference")
            value, spread, *ends = (
                _html.number(part, metric["digits"])
                for part in (row["mean"], row.get("std"), *((change or {}).get(end) for end in ("mean", "low", "high")))
            )
            unit = f" {metric['unit']}".rstrip()
            mean = f"{value} ± {spread}{unit}" if row["n"] > 1 else f"{value}{unit} (one seed)"
            difference = f"{ends[0]} [{ends[1]} … {ends[2]}]" if change else ""
            rows.append([metric["label"], labels[row["arm"]], mean, difference, row.get("verdict") or ""])
        header = ["metric", "arm", "mean ± standard deviation over seeds", "difference from the baseline [95%]", ""]
        return _html.table(self["title"], header, rows)


class Comparison(NamedTuple):
    """What the processes that work on a comparison know of it."""

    config: Config
    folder: Path
    seeds: list[int]
    truth: Truth
    command: str

    @property
    def metrics(self) -> Mapping[str, MetricInfo]:
        """How metrics are shown and read."""
        return modalities.of(self.config).metrics

    @property
    def cells(self) -> list[tuple[str, int]]:
        """The cells (arm, seed) in the order in which they are run: all arms of one seed first."""
        return [(arm, seed) for seed in self.seeds for arm in self.config.arms]

    def at(self, arm: str, seed: int) -> Path:
        """Return the folder of a cell."""
        return self.folder / cell_name(arm, seed)

    def others(self) -> list[str]:
        """Return the folders of finished cells that lie beside those of this comparison."""
        ours = {cell_name(*cell) for cell in self.cells}
        return sorted({found.parent.name for found in self.folder.glob("*/results.json")} - ours)

    def results(self, arm: str, seed: int) -> dict[str, Any] | None:
        """Return a cell's results, if they are of the last step, and sampled and measured as the config asks now."""
        path, config = self.at(arm, seed) / "results.json", cell_config(self.config, arm, seed)
        if not path.exists():
            return None
        found: dict[str, Any] = read_json(path)
        asked = (evaluation.RESULTS_VERSION, config.training.steps, self.truth.fingerprint)
        if tuple(map(found.get, ("version", "step", "truth_sha256"))) != asked:
            return None
        if found.get("sampling") != config.sampling.model_dump(mode="json"):
            return None
        if arm == CALIBRATED:  # of the network that the baseline has now
            baseline = self.results(BASELINE, seed)
            if baseline is None or found.get("weights_sha256") != baseline.get("weights_sha256"):
                return None
        return found

    def failure(self, arm: str, seed: int) -> dict[str, Any] | None:
        """Return at which step a cell's training stopped for good, and why; None where it did not or has results."""
        path = self.at(arm, seed) / FAILURE
        return read_json(path) if path.exists() and not self.results(arm, seed) else None

    def waits(self, arm: str, seed: int) -> bool:
        """Return whether a cell needs another one that has not ended: the calibrated baseline needs the baseline."""
        return arm == CALIBRATED and self.outcome(BASELINE, seed) is None

    def outcome(self, arm: str, seed: int) -> str | None:
        """Return how a cell ended, in a line; None for a cell that has not."""
        if results := self.results(arm, seed):
            name, value = next(iter(results["metrics"].items()))
            return f"{arm}, seed {seed}: {self.metrics[name].label} {value:.2f} {self.metrics[name].unit}"
        if failure := self.failure(arm, seed):
            return f"{arm}, seed {seed}: stopped at step {failure['step']}: {failure['message']}"
        return None

    def record(self, step_seconds: Mapping[str, float] | None = None) -> Summary:
        """Summarize the finished cells, write the summary to `comparison.json` and return it."""
        content = self.summary(step_seconds or {})
        if processes.state().is_main_process:
            write_json(self.folder / "comparison.json", content)
        return content

    def summary(self, step_seconds: Mapping[str, float]) -> Summary:
        """Return all that the report needs besides the cells' own files; its table leaves out unfinished cells."""
        found = {cell: results["metrics"] for cell in self.cells if (results := self.results(*cell))}
        config, seeds = self.config, self.seeds
        measured = {name for metrics in found.values() for name in metrics}
        names = [name for name in self.metrics if name in measured]
        every = [results for cell in self.cells if (results := self.results(*cell))]
        return Summary(
            {
                "title": config.title,
                "command": self.command,
                "created": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
                "machine": processes.machine(),
                "versions": {name: importlib.metadata.version(name) for name in ("specreg", "torch", "accelerate")},
                "config": configs.dump(config),
                "arms": [
                    {"name": arm, "label": label(spectral, arm), "loss": spectral.model_dump() if spectral else None}
                    for arm, spectral in config.arms.items()
                ],
                "baseline": BASELINE,
                "seeds": seeds,
                "cells": [
                    {"arm": arm, "seed": seed, "folder": cell_name(arm, seed)} for arm in config.arms for seed in seeds
                ],
                "step_seconds": dict(step_seconds),
                "truth": self.truth.record(),
                **_left_out(every),
                "metrics": {name: self.metrics[name]._asdict() for name in names},
                "table": [
                    row
                    for name in names
                    for arm in config.arms
                    if (row := _row(found, name, self.metrics[name].better, arm, seeds))
                ],
            }
        )


def _left_out(every: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return why metrics could not be measured, by metric, and how many samples have no value in each."""
    missing: dict[str, str] = {}
    failures: dict[str, int] = {}
    for results in every:
        missing |= results.get("missing") or {}
        for metric, clips in (results.get("failures") or {}).items():
            failures[metric] = failures.get(metric, 0) + len(clips)
    return {**({"missing": missing} if missing else {}), **({"failures": failures} if failures else {})}


def _row(
    results: Mapping[tuple[str, int], Mapping[str, float]], metric: str, better: str, arm: str, seeds: Sequence[int]
) -> dict[str, Any] | None:
    """Return one metric of one arm over its finished seeds, paired where the baseline's are finished too."""
    values = [results[arm, seed][metric] for seed in seeds if metric in results.get((arm, seed), {})]
    if not values:
        return None
    pairs = [seed for seed in seeds if all(metric in results.get((side, seed), {}) for side in (arm, BASELINE))]
    difference = None
    if arm != BASELINE:
        ours, theirs = ([results[side, seed][metric] for seed in pairs] for side in (arm, BASELINE))
        difference = paired_difference(ours, theirs, better)
    return {
        "arm": arm,
        "metric": metric,
        "mean": statistics.fmean(values),
        "std": statistics.stdev(values) if len(values) > 1 else None,
        "n": len(values),
        "difference": difference._asdict() if difference else None,
        "verdict": verdict(difference, better),
    }
