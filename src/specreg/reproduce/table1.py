"""Table 1: eight ways to fine-tune each EDM checkpoint for a few steps, scored over seeds beside the paper's numbers.

Rows whose files exist are run, the others are skipped and named. A run resumes where it stopped: a cell (checkpoint ×
arm × seed) is finished when its `score.json` is made of what is asked for now.
"""

from __future__ import annotations

import shutil
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.console import Console

from specreg import _checks, evaluation, modalities
from specreg._files import read_json, sha256, write_json, write_text
from specreg.config import Config
from specreg.modalities.protocol import Features, Streamed
from specreg.recipes import RECIPES
from specreg.reproduce import published
from specreg.training.trainer import Trainer

UNTOUCHED = "edm"
"""The arm without any training: the checkpoint as it is."""

LABELS = {
    "fid": "FID ↓",
    "log_spectral_distance_db": "log-spectral distance, dB ↓",
    "high_frequency_db": "energy above half Nyquist, dB (0 is right)",
    "contrast_db": "contrast, dB (0 is right)",
}


class Row(NamedTuple):
    """One line of the table, and the files that it needs."""

    recipe: str
    label: str
    checkpoint: str  # stem of the public file
    data: str  # stem of the archive


ROWS = (
    Row("edm-cifar10-cond-ve", "CIFAR-10 cond VE", "edm-cifar10-32x32-cond-ve", "cifar10-32x32"),
    Row("edm-cifar10-cond-vp", "CIFAR-10 cond VP", "edm-cifar10-32x32-cond-vp", "cifar10-32x32"),
    Row("edm-afhqv2-ve", "AFHQv2 VE", "edm-afhqv2-64x64-uncond-ve", "afhqv2-64x64"),
    Row("edm-afhqv2-vp", "AFHQv2 VP", "edm-afhqv2-64x64-uncond-vp", "afhqv2-64x64"),
    Row("edm-ffhq-ve", "FFHQ VE", "edm-ffhq-64x64-uncond-ve", "ffhq-64x64"),
    Row("edm-ffhq-vp", "FFHQ VP", "edm-ffhq-64x64-uncond-vp", "ffhq-64x64"),
)
LOSSES = ("amplitude", "amplitude_phase", "haar", "bior1.3")
ARMS = (UNTOUCHED, *(f"{loss}{suffix}" for loss in LOSSES for suffix in ("-weighted", "")))


class Files(NamedTuple):
    """The paths of a row's files."""

    checkpoint: Path
    archive: Path


def find(row: Row, checkpoints: Path, data: Path) -> Files | str:
    """Return the files of a row, or the sentence that says which is missing."""
    kinds = [checkpoints / f"{row.checkpoint}{suffix}" for suffix in (".safetensors", ".pkl", ".pt")]
    checkpoint = next((path for path in kinds if path.is_file()), None)
    archive = data / f"{row.data}.zip"
    if checkpoint is None:
        return f"{row.label}: skipped, there is no {row.checkpoint}.pkl (or .safetensors) in {checkpoints}"
    if not archive.is_file():
        return f"{row.label}: skipped, there is no {archive.name} in {data}"
    return Files(checkpoint, archive)


def run(
    checkpoints: Path,
    data: Path,
    folder: Path,
    *,
    samples: int = 50_000,
    seeds: int = 3,
    rows: Sequence[str] | None = None,
    arms: Sequence[str] | None = None,
    overrides: Sequence[str] = (),
    features: Features | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """Run every cell that has its files and is not finished; return the content of `table1.json`.

    Args:
        checkpoints: folder of the public checkpoints, by their public names.
        data: folder of the archives in EDM's zip form; an .npz beside an archive and of its name is its FID reference.
        folder: where results are written.
        samples: number of samples of a cell.
        seeds: of training and sampling; seed s draws samples from s·samples on.
        rows: recipes; None for all.
        arms: among `ARMS`; None for all.
        overrides: of the recipes, such as training.steps=50.
        features: Inception features; None scores spectra alone.
        console: where progress is shown.

    Raises FileNotFoundError when no row has its files.
    """
    console = console or Console(stderr=True)
    for arm in arms or ():
        _checks.choice("arm", arm, ARMS)
    for recipe in rows or ():
        _checks.choice("row", recipe, [row.recipe for row in ROWS])
    wanted = [row for row in ROWS if rows is None or row.recipe in rows]
    found = {row: find(row, checkpoints, data) for row in wanted}
    skipped = [files for files in found.values() if isinstance(files, str)]
    for sentence in skipped:
        console.print(sentence)
    if len(skipped) == len(found):
        raise FileNotFoundError(f"nothing to run; {skipped[0]}")
    for row, files in found.items():
        if isinstance(files, str):
            continue
        weights, truth = sha256(files.checkpoint), None
        for seed in range(seeds):
            for arm in [a for a in ARMS if arms is None or a in arms]:
                cell = folder / row.recipe / f"{arm}-seed{seed}"
                config = cell_config(row, files, arm, seed, samples, overrides)
                if truth is None:
                    truth = _streamed(config).reference(config, folder / "cache", features)
                made_of = asked(config, weights, truth.fingerprint)
                if finished(cell, made_of):
                    continue
                console.print(f"{row.label}, {arm}, seed {seed}")
                _run_cell(cell, config, arm, truth, features, made_of, console)
                write_table(folder, skipped, samples)
    return write_table(folder, skipped, samples)


def cell_config(row: Row, files: Files, arm: str, seed: int, samples: int, overrides: Sequence[str]) -> Config:
    """Return the run of one cell."""
    tree = RECIPES[row.recipe]()
    tree["spectral"] = None if arm == UNTOUCHED else tree["arms"][arm]
    tree |= {"name": f"{arm}-seed{seed}", "seed": seed, "arms": {}}
    tree["data"]["path"], tree["model"]["checkpoint"] = str(files.archive), str(files.checkpoint)
    config = modalities.parse(tree, overrides, where=row.recipe)
    sampling = config.sampling.model_copy(update={"seed": seed * samples, "count": samples})
    return config.model_copy(update={"sampling": sampling})


def asked(config: Config, weights: str, truth: str) -> dict[str, Any]:
    """Return all that decides the score of a cell: its run, the checkpoint's SHA-256 and that of the truth.

    Where files lie does not: they are known by their content.
    """
    run = config.model_dump(mode="json", exclude={"name": True, "title": True, "metrics": True})
    run["data"].pop("path")
    run["model"].pop("checkpoint")
    run["sampling"].pop("batch_size", None)
    for name in ("keep", "log_every", "checkpoint_every", "workers", "compile"):
        run["training"].pop(name)
    return {"version": evaluation.RESULTS_VERSION, "run": run, "weights": weights, "truth": truth}


def finished(cell: Path, made_of: dict[str, Any]) -> bool:
    """Return whether a cell has the score that is asked for."""
    path = cell / "score.json"
    return path.exists() and read_json(path).get("made_of") == made_of


def _run_cell(
    cell: Path,
    config: Config,
    arm: str,
    truth: Any,
    features: Features | None,
    made_of: dict[str, Any],
    console: Console,
) -> None:
    if arm == UNTOUCHED:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        prepared = modalities.of(config).prepare(config, None)
        network, shape = prepared.network.module.to(device).eval(), prepared.shape
    else:
        with Trainer(config, cell, console=console) as trainer:
            trainer.run()
        device = trainer.device
        trained = evaluation.load_trained(cell, device)
        network, shape = trained.network, trained.shape
    values = _streamed(config).stream(
        config, network, shape, cell, truth, features=features, made_of=made_of, device=device
    )
    write_json(
        cell / "score.json",
        {
            "arm": arm,
            "seed": config.seed,
            "samples": config.sampling.count,
            "steps": config.training.steps,
            "made_of": made_of,
            "metrics": values,
        },
    )
    shutil.rmtree(cell / "checkpoints", ignore_errors=True)  # about a gigabyte a cell, and five steps to make again


def _streamed(config: Config) -> Streamed:
    """Return the modality of the table's runs, which can score any number of samples."""
    modality: Any = modalities.of(config)
    return modality  # type: ignore[no-any-return]


def write_table(folder: Path, skipped: Sequence[str], samples: int) -> dict[str, Any]:
    """Summarize every finished cell in `folder` as `table1.json` and `table1.md`."""
    rows = []
    for row in ROWS:
        for arm in ARMS:
            scores = [read_json(path) for path in sorted((folder / row.recipe).glob(f"{arm}-seed*/score.json"))]
            scores = [found for found in scores if found["samples"] == samples]
            if not scores:
                continue
            metrics = {}
            for name in LABELS:
                values = [found["metrics"][name] for found in scores if name in found["metrics"]]
                if values:
                    std = statistics.stdev(values) if len(values) > 1 else None
                    metrics[name] = {"mean": statistics.fmean(values), "std": std, "n": len(values)}
            steps = sorted({found["steps"] for found in scores})
            rows.append({"recipe": row.recipe, "label": row.label, "arm": arm, "metrics": metrics,
                         "paper_fid": published.fid(row.recipe, arm), "training_steps": steps})  # fmt: skip
    content = {"samples": samples, "rows": rows, "skipped": list(skipped)}
    write_json(folder / "table1.json", content)
    lines = ["| | " + " | ".join(header) + " |" for header in [columns(content)]]
    lines += ["|---" * (len(columns(content)) + 1) + "|"]
    lines += ["| " + " | ".join(line) + " |" for line in lines_of(content)]
    write_text(folder / "table1.md", "\n".join([f"{samples} samples a seed; mean ± std over seeds.", "", *lines, ""]))
    return content


def columns(content: dict[str, Any]) -> list[str]:
    """Return the headers of the table's columns after the first."""
    measured = [name for name in LABELS if any(name in row["metrics"] for row in content["rows"])]
    return ["arm", *(LABELS[name] for name in measured), "paper's FID", "seeds"]


def lines_of(content: dict[str, Any]) -> list[list[str]]:
    """Return the lines of the table, each with the row's name first."""
    measured = [name for name in LABELS if any(name in row["metrics"] for row in content["rows"])]
    lines = []
    for row in content["rows"]:
        shown = []
        for name in measured:
            value = row["metrics"].get(name)
            spread = "" if value is None or value["std"] is None else f" ± {value['std']:.3f}"
            shown.append("–" if value is None else f"{value['mean']:.3f}{spread}")
        seeds = max(value["n"] for value in row["metrics"].values())
        lines.append([row["label"], row["arm"], *shown, f"{row['paper_fid']:.2f}", str(seeds)])
    return lines
