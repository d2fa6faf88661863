"""Folders of a comparison and of runs, written by hand, and pages as read: for tests of the report."""

from __future__ import annotations

import json
from base64 import b64decode
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np

NASTY = "_<script>alert('x')</script> & $\\frac{$ \"λ\" = 0.1"
FREQUENCY = [0.0, 0.125, 0.25, 0.375, 0.5, 0.625]
TRUTH = [4.0, 1.0, 0.25, 0.1, 0.05, 0.0]
POWER = {  # of each arm and seed; the last band of the truth lies below the floor
    ("none", 0): [4.0, 0.9, 0.2, 0.05, 0.01, 0.0],
    ("none", 1): [4.2, 0.8, 0.2, 0.04, 0.02, 1e-7],
    ("reg", 0): [4.1, 1.0, 0.25, 0.1, 0.05, 1e-3],
    ("reg", 1): [4.0, 1.1, 0.30, 0.2, 0.04, 0.0],
}
MAGENTA = (255, 0, 255)


def truth_images() -> np.ndarray:
    """Return 7 RGB images of 8 x 6; the first holds the one magenta pixel of all, in its first corner."""
    images = np.random.default_rng(0).integers(0, 200, (7, 8, 6, 3), dtype=np.uint8)
    images[0, 0, 0] = MAGENTA
    return images


def comparison() -> dict[str, Any]:
    """Return a comparison of two arms over three seeds, of which ("reg", 1) was never begun."""
    db, share = "log_spectral_distance_db", "band_energy_share"
    return {
        "title": "Boards",
        "command": "specreg compare boards --arms none,reg && true",
        "created": "2026-11-22T17:40:12",
        "machine": "2-core CPU",
        "versions": {"specreg": "0.1.0"},
        "config": "loss:\n  weight: 0.1 # <b>\n",
        "arms": [{"name": "none", "label": "baseline"}, {"name": "reg", "label": NASTY, "loss": {}}],
        "baseline": "none",
        "seeds": [0, 1, 2],
        "step_seconds": {"none": 0.05, "reg": 0.0535},
        "cells": [
            {"arm": arm, "seed": seed, "folder": f"{arm}: seed#{seed} 50%"}
            for arm, seed in [*POWER, ("none", 2)]
        ],
        "truth": {
            "kind": "real boards",
            "samples": 7,
            "spectrum": {"frequency": FREQUENCY, "power": TRUTH},
            "metrics": {share: 1.0, f"floor: {db}": 0.214},
        },
        "metrics": {
            db: {"label": "log-spectral distance", "unit": "dB", "better": "lower", "digits": 1},
            share: {"label": "energy share", "unit": "", "better": "higher", "digits": 3, "help": "Much."},
        },
        "table": [
            {"arm": "none", "metric": db, "mean": 3.14, "std": 0.21, "n": 2, "difference": None},
            {
                "arm": "reg", "metric": db, "mean": 2.2, "std": 0.1, "n": 2,
                "difference": {"mean": -0.9, "low": -1.2, "high": -0.6}, "verdict": "better",
            },
            {"arm": "none", "metric": share, "mean": 0.95, "std": 0.01, "n": 2, "difference": None},
            {
                "arm": "reg", "metric": share, "mean": 0.97, "std": 0.02, "n": 2,
                "difference": {"mean": 0.02, "low": -0.01, "high": 0.05}, "verdict": "no difference seen",
            },
        ],
    }  # fmt: skip


def log_lines(seed: int, steps: int = 12) -> str:
    rows = [
        {"step": 10 * s, "base": 1.0 / s + 0.01 * seed, "spectral": None if seed else 2.0 / s, "loss": 1.0,
         "weight": 0.1, "lr": 1e-4, "grad_norm": 1.0, "seconds_per_step": 0.05}
        for s in range(1, steps + 1)
    ]  # fmt: skip
    return "".join(json.dumps(row) + "\n" for row in rows)


def write_run(folder: Path, arm: str, seed: int, power: list[float] | None) -> None:
    (folder / "samples").mkdir(parents=True)
    (folder / "config.yaml").write_text(f"arm: {arm}\n")
    (folder / "metrics.jsonl").write_text(log_lines(seed))
    if power is None:
        return
    np.save(folder / "samples" / "samples.npy", truth_images()[::-1])
    results = {
        "arm": arm, "seed": seed, "step": 120, "samples": 7, "sampler": "ddim 5 steps",
        "metrics": {"log_spectral_distance_db": 3.14, "novel_score": 0.5},
        "spectrum": {"frequency": FREQUENCY, "power": power},
        "timing": {"seconds_per_step": 0.05 if arm == "none" else 0.0535, "train_seconds": 130},
        "parameters": 1234567,
    }  # fmt: skip
    (folder / "results.json").write_text(json.dumps(results))


def write_comparison(folder: Path) -> Path:
    """Write the folder; ("none", 2) has a log but no results, and its last line was cut short."""
    content = comparison()
    (folder / "truth").mkdir(parents=True)
    np.save(folder / "truth" / "samples.npy", truth_images())
    (folder / "comparison.json").write_text(json.dumps(content))
    for cell in content["cells"]:
        write_run(folder / cell["folder"], cell["arm"], cell["seed"], POWER.get((cell["arm"], cell["seed"])))
    with (folder / "none: seed#2 50%" / "metrics.jsonl").open("a") as log:
        log.write('{"step": 130, "ba')
    return folder


LOG_SNR, EDGES = [2.302585092994046, 0.0, -4.605170185988092], [0.0, 0.25, 0.5]  # 10, 0 and -20 dB
ERROR = {  # dB, of each arm and seed: three noise levels, two bands
    ("none", 0): [[-20.0, -10.0], [-9.0, -6.0], [-1.0, 0.0]],
    ("none", 1): [[-22.0, -10.0], [-8.0, -6.0], [-1.0, 0.0]],
    ("reg", 0): [[-20.5, -10.5], [-8.0, -6.0], [-1.5, 5.0]],
    ("reg", 1): [[-22.5, -9.5], [-7.5, -6.5], [-1.25, 5.5]],
}
PULL = {
    ("reg", 0): [[-10.0, 2.0], [-30.0, -20.0], [-200.0, -80.0]],
    ("reg", 1): [[-14.0, 0.0], [-30.0, -20.0], [-200.0, -50.0]],
}
LAMBDA = {"none": lambda seed, i: None, "reg": lambda seed, i: 0.01 * min(i, 4) * (1 + seed)}


def write_maps(folder: Path, arm: str, seed: int) -> None:
    """Add a denoising map, and λ and gradient ratio over 12 logged steps, to a run."""
    path = folder / "results.json"
    if path.exists():
        record = {
            "timesteps": [100, 500, 900], "log_snr": LOG_SNR, "edges": EDGES, "signal_power": [1.0, 0.1],
            "error_db": ERROR[arm, seed], "energy_db": ERROR[arm, seed], "pull_db": PULL.get((arm, seed)),
        }  # fmt: skip
        path.write_text(json.dumps(json.loads(path.read_text()) | {"denoising": record}))
    lines = [json.loads(line) for line in log_lines(seed).splitlines()]
    for i, line in enumerate(lines):
        weight = LAMBDA[arm](seed, i)
        line |= {"lambda": weight, "gradient_ratio": None if weight is None or i % 2 else 3 * weight + 0.5}
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def two_sided(content: dict[str, Any]) -> dict[str, Any]:
    """Put metrics of denoising first into a comparison: the report has to put them last."""
    denoising = {"label": "denoising error", "unit": "dB", "better": "lower", "digits": 2, "side": "denoising"}
    content["metrics"] = {"error_db": denoising, "tail_db": denoising | {"label": "tail"}, **content["metrics"]}
    content["table"] += [
        {"arm": "none", "metric": "error_db", "mean": -8.0, "std": 0.1, "n": 2},
        {"arm": "reg", "metric": "error_db", "mean": -8.5, "std": 0.1, "n": 2, "verdict": "better",
         "difference": {"mean": -0.5, "low": -0.7, "high": -0.3}},
        {"arm": "none", "metric": "tail_db", "mean": -1.0, "std": 0.1, "n": 2},
        {"arm": "reg", "metric": "tail_db", "mean": -0.9, "std": 0.1, "n": 2, "verdict": "worse",
         "difference": {"mean": 0.1, "low": 0.05, "high": 0.15}},
    ]  # fmt: skip
    return content


def write_everything(folder: Path) -> Path:
    """Write the comparison with everything that newer runs write; a run of it has failed."""
    write_comparison(folder)
    for cell in comparison()["cells"]:
        write_maps(folder / cell["folder"], cell["arm"], cell["seed"])
    content = comparison() | {"cells": [*comparison()["cells"], {"arm": "reg", "seed": 2, "folder": "reg 2"}]}
    write_run(folder / "reg 2", "reg", 2, None)
    (folder / "reg 2" / "failure.json").write_text('{"step": 120, "message": "the spectral term is not finite"}')
    two_sided(content)
    (folder / "comparison.json").write_text(json.dumps(content))
    return folder


class Page(HTMLParser):
    """Tags with their attributes, the text of each table row by cell, and all text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self.strong: list[str] = []
        self.text = ""
        self.stack: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("img", "meta", "br", "source"):
            self.stack.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag, f"unbalanced {tag}"

    def handle_data(self, data: str) -> None:
        data = data.replace("\u00a0", " ")
        if "style" in self.stack:
            return
        self.text += data
        if "tr" in self.stack and self.rows[-1]:
            self.rows[-1][-1] += f"{data.strip()}|" if data.strip() else ""
            if "strong" in self.stack:
                self.strong.append(data)

    def links(self) -> list[str]:
        """Return where the links lead that save nothing."""
        return [a["href"] or "" for tag, a in self.tags if tag == "a" and "download" not in a]

    def saved(self) -> dict[str, bytes]:
        """Return what the page offers to save, by the name of the file."""
        every = [(a["download"], a["href"]) for tag, a in self.tags if tag == "a" and "download" in a]
        assert len({name for name, _ in every}) == len(every)
        return {name: b64decode(uri.partition(";base64,")[2], validate=True) for name, uri in every}

    def row(self, start: str) -> list[str]:
        return next(row for row in self.rows if row and row[0].startswith(start))
