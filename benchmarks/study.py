"""Learning curves of arms: one comparison at growing numbers of optimizer steps.

    python -m benchmarks.study tiles FOLDER data.path=tiles.zip data.test_path=tiles-test.zip --seed 0

trains every arm of a study from three paired seeds, and writes FOLDER/curve-STEPS.json at each length, which is what
docs/measured/summarize.py keeps of a comparison. The learning rate is constant, so that a longer training is a shorter
one continued. The same command resumes. Studies of a term that begins late need `--after OTHER`, the folder of a study
of the same network: every arm continues its training with MSE alone, optimizer and all.
"""

from __future__ import annotations

import argparse
import json
import runpy
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console

from specreg import modalities
from specreg._files import write_json
from specreg.compare import BASELINE, CALIBRATED, cell_config, cell_name, compare, resolve_arms, with_yardstick
from specreg.config import Config
from specreg.recipes import RECIPES
from specreg.recipes.edm import LOSSES
from specreg.training import checkpoint
from specreg.training.identity import refuse_other_run

RATIO_2 = ["amplitude@auto:2", "amplitude_phase@auto:2", "haar@auto:2", "bior1.3@auto:2", "amplitude+haar@auto:2"]
OTHER_RATIOS = [f"{loss}@auto:{ratio}" for loss in ("amplitude", "haar", "amplitude+haar") for ratio in (0.5, 5)]
SOFTER = ["amplitude@auto:1", "amplitude@auto:0.5"]
LATE = ["amplitude@auto:2", SOFTER[1], "haar@auto:2", "amplitude+haar@auto:2"]
LONGEST = ["amplitude@auto:2", "amplitude+haar@auto:2"]

LENGTHS = {200: RATIO_2 + OTHER_RATIOS, 400: RATIO_2 + OTHER_RATIOS, 800: RATIO_2 + OTHER_RATIOS, 1600: RATIO_2} | {
    3200: LONGEST,
    6400: LONGEST,
}
"""Arms at each number of optimizer steps; a further length has a subset of the arms before it."""


class Study(NamedTuple):
    """A recipe, what is changed in it, and the arms at each length."""

    recipe: str
    changes: list[str]
    lengths: dict[int, list[str]]
    begins: int = 0  # the step of MSE alone at which all arms begin


TILES = [
    "data.kind=images",
    "data.channels=3",
    "diffusion.prediction=v",
    "model.attention=[]",
    "metrics.kernel_distance=true",
]
SHORT = ["sampling.count=256", "sampling.steps=25", "spectral.noise_options={}", "training.checkpoint_every=1000000"]

EPSILON = ["diffusion.prediction=epsilon"]
FLOW = ["diffusion.objective=flow", "diffusion.prediction=flow", "sampling.sampler=heun"]
WEIGHTS = {
    "half": "name: amplitude, ratio: 0.5, noise_options: {power: 0.5}",
    "power-1": "name: amplitude, ratio: 2, noise_options: {power: 1}",
    "power-2": "name: amplitude, ratio: 2, noise_options: {power: 2}",
    "power-1-half": "name: amplitude, ratio: 0.5, noise_options: {power: 1}",
    "gate": "name: amplitude, ratio: 2, noise_weight: hard_gate",
    "sum-power-2": "name: amplitude+haar, ratio: 2, noise_options: {power: 2}",
}
WEIGHTED = ", ".join(f"{arm}: {{{said}, weight: auto}}" for arm, said in WEIGHTS.items())
OTHERS = {steps: [LONGEST[0], "haar@auto:2", LONGEST[1]] for steps in (400, 800, 1600, 3200)}

EDM = ["metrics.kernel_distance=true", "sampling.count=128", "sampling.steps=12", "training.checkpoint_every=1000000"]
SCRATCH = [*EDM, "data.resolution=32", "model.width=16", "training.warmup=50", "training.decay=constant"]
HALVES = ["amplitude+haar@auto:0.5", "amplitude@auto:0.5"]
WITH_SUM = (*LOSSES, "amplitude+haar")
ARMS = ", ".join(
    f"{loss}{suffix}: {{name: {loss}, weight: {weight}, noise_weight: {noise}, options: {{reduction: sum}}}}"
    for loss in WITH_SUM
    for suffix, weight, noise in (
        ("", "1.0", "constant"),
        ("-weighted", "1.0", "edm"),
        ("-auto", "auto, ratio: 2", "snr"),
    )
)
FINE_TUNE = [*EDM, "model.dropout=0", f"arms={{{ARMS}}}"]
HALF = "amplitude-half: {name: amplitude, weight: auto, ratio: 0.5, noise_weight: snr, options: {reduction: sum}}"
OTHERS_FINE_TUNED = ["amplitude_phase", "bior1.3", "amplitude-weighted", "amplitude+haar-weighted"]
REST_FINE_TUNED = [*(f"{loss}-weighted" for loss in LOSSES[1:]), "amplitude_phase-auto", "bior1.3-auto"]
FINE_TUNED = [f"{loss}{suffix}" for loss in WITH_SUM for suffix in ("", "-weighted", "-auto")]

BOARDS = ["data.resolution=32", "data.squares=[2, 4]", "model.width=16", "training.decay=constant", *SHORT]

ENDED = ", ".join(
    f"{name}-ended: {{name: {loss}, weight: auto, ratio: 2, cooldown: 0.3}}"
    for name, loss in (("amplitude", "amplitude"), ("haar", "haar"), ("sum", "amplitude+haar"))
)
CONSTANTS = {f"{loss}-{weight}": (loss, weight) for loss in ("amplitude", "haar", "bior1.3") for weight in (0.1, 1, 10)}
CONSTANT_ARMS = ", ".join(f"{arm}: {{name: {loss}, weight: {weight}}}" for arm, (loss, weight) in CONSTANTS.items())

STUDIES = {
    "tiles": Study("demo", [*TILES, *SHORT], LENGTHS),
    "tiles-weights": Study(
        "demo",
        [
            *TILES,
            *SHORT,
            "arms={constant-amplitude: {name: amplitude, weight: auto, ratio: 2, noise_weight: constant}, "
            "constant-sum: {name: amplitude+haar, weight: auto, ratio: 2, noise_weight: constant}, "
            "power-2: {name: amplitude+haar, weight: auto, ratio: 2, noise_options: {power: 2}}}",
        ],
        {steps: ["constant-amplitude", "constant-sum", "power-2"] for steps in (400, 800)},
    ),
    "tiles-ended": Study(
        "demo",
        [*TILES, *SHORT, f"arms={{{ENDED}}}"],
        {1600: ["amplitude@auto:2", "amplitude-ended", "haar@auto:2", "haar-ended", LONGEST[1], "sum-ended"]},
    ),
    "tiles-constants": Study("demo", [*TILES, *SHORT, f"arms={{{CONSTANT_ARMS}}}"], {800: list(CONSTANTS)}),
    "tiles-epsilon": Study("demo", [*TILES, *SHORT, *EPSILON, "spectral.noise_options={power: 0.5}"], OTHERS),
    "tiles-epsilon-weights": Study(
        "demo", [*TILES, *SHORT, *EPSILON, f"arms={{{WEIGHTED}}}"], {1600: list(WEIGHTS), 3200: ["power-1", "power-2"]}
    ),
    "tiles-1": Study("demo", [*TILES, *SHORT], dict.fromkeys([400, 800, 3200, 6400], SOFTER[:1])),
    "tiles-late": Study("demo", [*TILES, *SHORT], dict.fromkeys([13200, 14400], LATE), 12800),
    "tiles-late-1": Study("demo", [*TILES, *SHORT], dict.fromkeys([13200, 14400], SOFTER[:1]), 12800),
    "tiles-late-confirm": Study("demo", [*TILES, *SHORT], dict.fromkeys([6500, 6800, 8000], LATE[:2]), 6400),
    "tiles-epsilon-late": Study("demo", [*TILES, *SHORT, *EPSILON], dict.fromkeys([13200, 14400], LATE), 12800),
    "tiles-epsilon-long": Study(
        "demo",
        [*TILES, *SHORT, *EPSILON, f"arms={{{WEIGHTED}}}"],
        {6400: ["power-1", "gate"], 12800: ["power-1"]},
    ),
    "tiles-epsilon-confirm": Study("demo", [*TILES, *SHORT, *EPSILON], dict.fromkeys([400, 3200], LONGEST[:1])),
    "tiles-flow-ratios": Study("demo", [*TILES, *SHORT, *FLOW], dict.fromkeys([400, 3200], SOFTER)),
    "tiles-flow": Study("demo", [*TILES, *SHORT, *FLOW], OTHERS),
    "tiles-32": Study("demo", [*TILES, *SHORT, "data.resolution=32"], dict.fromkeys([400, 800, 1600], LONGEST)),
    "tiles-confirm": Study(
        "demo", [*TILES, *SHORT], dict.fromkeys([200, 400, 800, 1600], RATIO_2) | dict.fromkeys([3200, 6400], LONGEST)
    ),
    "tiles-long": Study(
        "demo", [*TILES, *SHORT], {steps: [LONGEST[0], "amplitude@auto:0.5"] for steps in (6400, 12800)}
    ),
    "boards": Study(
        "checkerboard",
        BOARDS,
        {
            steps: ["amplitude@auto:2", "haar@auto:2", "amplitude+haar@auto:2"]
            for steps in (200, 400, 800, 1600, 3200, 6400)
        },
    ),
    "boards-long": Study("checkerboard", BOARDS, dict.fromkeys([1600, 3200, 6400], LONGEST)),
    "boards-ended": Study(
        "checkerboard", [*BOARDS, f"arms={{{ENDED}}}"], {1600: ["amplitude@auto:2", "amplitude-ended"]}
    ),
    "edm-scratch": Study("edm-textures", SCRATCH, dict.fromkeys((500, 1000, 2000, 4000), LONGEST[1:])),
    "edm-scratch-half": Study("edm-textures", SCRATCH, dict.fromkeys((500, 1000, 2000), HALVES)),
    "edm-classes": Study(
        "edm-textures",
        [*SCRATCH, "model.classes=10", "sampling.classes=data"],
        dict.fromkeys((500, 1000, 2000), LONGEST[1:]),
    ),
    "edm-finetune": Study("edm-cifar10-uncond-vp", FINE_TUNE, dict.fromkeys([5, 100], FINE_TUNED)),
    "edm-finetune-weights": Study("edm-cifar10-uncond-vp", FINE_TUNE, {1000: ["amplitude", "haar", "amplitude+haar"]}),
    "edm-finetune-others": Study("edm-cifar10-uncond-vp", FINE_TUNE, {1000: OTHERS_FINE_TUNED}),
    "edm-finetune-rest": Study("edm-cifar10-uncond-vp", FINE_TUNE, {1000: REST_FINE_TUNED}),
    "edm-finetune-long": Study(
        "edm-cifar10-uncond-vp",
        [*EDM, "model.dropout=0", f"arms={{{ARMS}, {HALF}}}"],
        {1000: ["amplitude-auto", "amplitude-half", "haar-auto", "amplitude+haar-auto"]},
    ),
}


def main(argv: list[str] | None = None) -> None:
    """Run a study, length by length."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("folder", type=Path)
    parser.add_argument("changes", nargs="*", help="KEY=VALUE, as of `specreg train`")
    parser.add_argument("--seed", type=int, default=0, help="first of three")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--after", type=Path, help="folder of a study whose MSE alone is continued")
    parser.add_argument("--longest", type=int, default=10**9, help="optimizer steps to stop at")
    asked = parser.parse_args(argv)
    study = STUDIES[asked.study]
    for steps, names in study.lengths.items():
        if steps > asked.longest:
            break
        kept = asked.folder / f"curve-{steps}.json"
        if kept.exists():
            continue
        last = max(steps for steps in study.lengths)
        changes = [*study.changes, f"training.steps={steps}", f"training.keep={len(study.lengths)}", *asked.changes]
        config = modalities.parse(RECIPES[study.recipe](), [f"name={asked.study}", f"seed={asked.seed}", *changes])
        command = f"python -m benchmarks.study {' '.join(sys.argv[1:] if argv is None else argv)}"
        seeds = range(asked.seed, asked.seed + 3)
        arms = with_yardstick(config, resolve_arms(config, names))
        if study.begins:
            if asked.after is None:
                parser.error(f"{asked.study} begins with MSE alone at step {study.begins}: give its folder as --after")
            begin(asked.folder, asked.after, study.begins, config.model_copy(update={"arms": arms}), seeds)
        compare(config, asked.folder, arms, seeds, jobs=asked.jobs, command=command, console=Console())
        write_json(kept, summary(asked.folder))
        print(f"{kept} of {last} steps", flush=True)


def begin(folder: Path, base: Path, step: int, config: Config, seeds: Iterable[int]) -> None:
    """Give the cells of a study that have no checkpoint the one that MSE alone has in another study at a step."""
    for seed in seeds:
        source = base / cell_name(BASELINE, seed)
        refuse_other_run(source, cell_config(config, BASELINE, seed))
        found = source / "checkpoints" / f"step-{step:08d}"
        checkpoint.load(found)
        for arm in config.arms:
            target = folder / cell_name(arm, seed) / "checkpoints"
            if arm != CALIBRATED and checkpoint.latest(target) is None:
                shutil.copytree(found, target / f".{found.name}", dirs_exist_ok=True)
                (target / f".{found.name}").rename(target / found.name)


def summary(folder: Path) -> dict[str, Any]:
    """Return what docs/measured keeps of a comparison."""
    path = Path(__file__).parents[1] / "docs" / "measured" / "summarize.py"
    found: dict[str, Any] = runpy.run_path(str(path))["summarize"](folder)
    found["values"] = values(folder)
    return found


def values(folder: Path) -> dict[str, dict[str, dict[str, float]]]:
    """Return each cell's metrics, by arm and seed."""
    comparison = json.loads((folder / "comparison.json").read_text(encoding="utf-8"))
    found: dict[str, dict[str, dict[str, float]]] = {}
    for cell in comparison["cells"]:
        results = json.loads((folder / cell["folder"] / "results.json").read_text(encoding="utf-8"))
        found.setdefault(cell["arm"], {})[str(cell["seed"])] = results["metrics"]
    return found


if __name__ == "__main__":
    main()
