"""Table 2: the DiffWave vocoder fine-tuned with every loss and λ, scored over seeds beside the paper's numbers.

The table is a comparison like any other, of the arms `LOSS@λ` and the baseline without a term, in one folder: it
resumes where it stopped, also within a run, and has a report. The untouched checkpoint is scored over the same seeds.
"""

from __future__ import annotations

import hashlib
import statistics
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from filelock import FileLock
from rich.console import Console

from specreg import _checks, evaluation, modalities, processes
from specreg._files import read_json, write_json, write_text
from specreg.compare import BASELINE, cell_config, compare, resolve_arms
from specreg.config import Config
from specreg.recipes import RECIPES
from specreg.reproduce import published

UNTOUCHED = "untouched checkpoint"
LOSSES = ("amplitude", "amplitude_phase", "haar", "bior1.3")
LAMBDAS = ("1e-4", "1e-5", "1e-6")
ARMS = tuple(f"{loss}@{lam}" for loss in LOSSES for lam in LAMBDAS)
ARROWS = {"lower": " ↓", "higher": " ↑"}
COLUMNS = {"fad": "FAD ↓", "utmos": "UTMOS ↑", "pesq": "PESQ ↑", "mr_stft": "MR-STFT ↓", "ndb": "NDB ↓"}
"""The paper's metrics by our names for them; in the table, metrics that only we measure come after them."""


def configure(
    checkpoint: Path, data: Path, *, steps: int | None = None, recipe: str = "diffwave", overrides: Sequence[str] = ()
) -> Config:
    """Return the recipe's config with a checkpoint and data of the user."""
    given = [f"model.checkpoint={checkpoint}", f"data.path={data}", "model.kind=pretrained"]
    given += [f"training.steps={steps}"] if steps is not None else []
    tree = {**RECIPES[recipe](), "name": "table2", "title": "Table 2: DiffWave, fine-tuned"}
    return modalities.parse(tree, [*given, *overrides], where=f"recipe {recipe}")


def run(
    config: Config,
    folder: Path,
    *,
    seeds: int = 5,
    arms: Sequence[str] | None = None,
    jobs: int = 1,
    console: Console | None = None,
) -> dict[str, Any]:
    """Run every cell that is not finished; writes `table2.md` and returns the content of `comparison.json`.

    Args:
        config: from `configure`.
        folder: of the results.
        seeds: of training and sampling, counted from the config's.
        arms: among `ARMS`; None for all. The baseline, fine-tuned without a term, is always there.
        jobs: runs at a time.
        console: where progress goes.

    Raises ValueError for an unknown arm, and where `compare` does.
    """
    for arm in arms or ():
        _checks.choice("arm", arm, ARMS)
    resolved = resolve_arms(config, [arm for arm in ARMS if arms is None or arm in arms])
    numbers = range(config.seed, config.seed + seeds)
    console = console or Console(stderr=True)
    content = compare(config, folder, resolved, numbers, jobs=jobs, console=console)
    (folder / ".locks").mkdir(exist_ok=True)
    alone = processes.state().num_processes == 1  # processes of a launcher score together
    with FileLock(folder / ".locks" / "untouched") if alone else nullcontext(), console.status(f"{UNTOUCHED}: scoring"):
        content["untouched"] = _untouched(config, folder / "untouched", numbers)
    if processes.state().is_main_process:
        write_json(folder / "comparison.json", content)
        write_text(folder / "table2.md", markdown(content))
    return content


def _untouched(config: Config, folder: Path, seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Return rows as in a comparison's table of the checkpoint without any training, scored once for each seed."""
    device = processes.state().device
    modality = modalities.of(config)
    prepared = modality.prepare(config, None)
    truth = evaluation.load_truth(config, device=device, scored=False)
    network = prepared.network.module.eval().to(device)
    weights = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        weights.update(name.encode() + tensor.cpu().numpy().tobytes())
    config = config.model_copy(update={"arms": {BASELINE: None}})
    scored = []
    for seed in seeds:
        cell, path = cell_config(config, BASELINE, seed), folder / f"seed{seed}.json"
        sampling = cell.sampling.model_dump(mode="json")
        asked = [evaluation.RESULTS_VERSION, truth.fingerprint, weights.hexdigest(), sampling]
        kept = read_json(path) if path.exists() else {}
        if not processes.gather(kept.get("asked") == asked)[0]:  # all processes do as the main one does
            kept = evaluation.evaluate_network(
                cell, network, prepared.shape, truth, folder / f"seed{seed}", device=device
            )
            if kept is not None:
                write_json(path, {"asked": asked, **kept})
        scored.append(processes.gather(kept and kept["metrics"])[0])
    columns = {name: [metrics[name] for metrics in scored if name in metrics] for name in modality.metrics}
    return [
        {
            "arm": UNTOUCHED,
            "metric": name,
            "mean": statistics.fmean(values),
            "std": statistics.stdev(values) if len(values) > 1 else None,
            "n": len(values),
        }
        for name, values in columns.items()
        if values
    ]


def header(content: dict[str, Any]) -> list[str]:
    """Return the table's headers: the arm, each metric measured here, the paper's five."""
    about = content["metrics"]
    ours = [f"{about[name]['label']}{ARROWS.get(about[name]['better'], '')}" for name in measured(content)]
    return ["arm", *ours, *(f"paper's {label}" for label in COLUMNS.values()), "seeds"]


def lines(content: dict[str, Any]) -> list[list[str]]:
    """Return the table's lines, the untouched checkpoint and the baseline first; "–" where there is no number."""
    found = []
    for label, rows, paper in _rows(content):
        cells = [_cell(rows.get(name), content) for name in measured(content)]
        seeds = max((row["n"] for row in rows.values()), default=0)
        beside_them = map(str, paper) if paper else ["–"] * len(COLUMNS)
        found.append([label, *cells, *beside_them, str(seeds)])
    return found


def beside(content: dict[str, Any]) -> list[list[str]]:
    """Return the paper's five metrics alone, for a terminal: each cell holds our value above the paper's."""
    found = []
    for label, rows, paper in _rows(content):
        values = [_cell(rows.get(name), content) for name in COLUMNS]
        beneath = [f"paper {value}" for value in paper] if paper else ["–"] * len(COLUMNS)
        found.append([label, *map("\n".join, zip(values, beneath, strict=True))])
    return found


def _rows(content: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any], Sequence[float] | None]]:
    """Yield the label of each line, our rows by metric, and the paper's numbers where it has such a line."""
    table = [*content.get("untouched", ()), *content["table"]]  # other ranks do not have the first
    for arm in (UNTOUCHED, *(each["name"] for each in content["arms"])):
        rows = {row["metric"]: row for row in table if row["arm"] == arm}
        yield "DiffWave" if arm == BASELINE else arm, rows, published.TABLE2.get(arm)


def measured(content: dict[str, Any]) -> list[str]:
    """Return the metrics that were measured: the paper's in its order, then the others."""
    return [name for name in dict.fromkeys([*COLUMNS, *content["metrics"]]) if name in content["metrics"]]


def markdown(content: dict[str, Any]) -> str:
    """Return the table as Markdown, with the metrics that could not be measured below it."""
    table = [header(content), ["---"] * len(header(content)), *lines(content)]
    text = [
        "Mean ± standard deviation over seeds; DiffWave is the checkpoint fine-tuned without a term, beside the "
        "paper's row of that name.",
        "",
    ]
    text += ["| " + " | ".join(line) + " |" for line in table]
    text += ["", *(f"Not measured: {name}. {why}" for name, why in (content.get("missing") or {}).items())]
    return "\n".join([*text, ""])


def _cell(row: dict[str, Any] | None, content: dict[str, Any]) -> str:
    if row is None:
        return "–"
    digits = content["metrics"].get(row["metric"], {}).get("digits", 3)
    spread = "" if row["std"] is None else f" ± {row['std']:.{digits}f}"
    return f"{row['mean']:.{digits}f}{spread}"
