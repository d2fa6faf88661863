"""`specreg train`: one run, from a recipe or file to its report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from specreg.cli.console import (
    DryRun,
    Out,
    Overrides,
    err,
    print_left_out,
    print_path,
    print_table,
    print_yaml,
    read_config,
    resumable,
    run_folder,
)

if TYPE_CHECKING:
    from specreg.config import Config


def train(
    source: Annotated[
        str | None,
        typer.Argument(
            help="A recipe (see `specreg recipes`) or a YAML file; not needed with --model and a diffusers folder.",
            metavar="[RECIPE|FILE]",
        ),
    ] = None,
    overrides: Overrides = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            "--checkpoint",
            "--model",
            help="Network to start from: EDM .pkl, .safetensors, .pt, a diffusers folder, DiffWave .pt. A pipeline's "
            "folder says its schedule and prediction too.",
        ),
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Folder, zip or array of images; folder of sound files.")] = None,
    loss: Annotated[
        str | None,
        typer.Option(
            help="Spectral loss or one of the recipe's arms, with @λ, @auto or @auto:RATIO; none trains without."
        ),
    ] = None,
    weighted: Annotated[bool, typer.Option("--weighted", help="λ = λ_EDM(σ) instead of a constant.")] = False,
    folder: Out = Path("runs"),
    dry_run: DryRun = False,
) -> None:
    """Train one run, sample it, and write its report. The same command again resumes where it stopped."""
    source, settings = starting_point(source, overrides or [], checkpoint)
    config = with_options(
        read_config(source, [*settings, *path_overrides(checkpoint, data)]), loss=loss, weighted=weighted
    )
    if dry_run:
        return print_yaml(config)
    from specreg import evaluation, modalities, processes
    from specreg.report import build_report
    from specreg.training.trainer import Trainer

    target = run_folder(folder, config, unlike="comparison.json", kind="a comparison")
    with resumable(), processes.together():
        # Before training: what is wrong with it should show now.
        truth = evaluation.load_truth(config, device=processes.state().device)
        with Trainer(config, target, console=err) as trainer:
            trainer.run()
            results = evaluation.evaluate(target, truth, command=processes.command_line(), device=trainer.device)
            if results is None:  # not the main process
                return None
            truth.save(target / "truth")
            report = build_report(target)  # before anything is printed: output may be closed
    metrics = modalities.of(config).metrics
    rows = [
        [metrics[name].label, f"{value:.{metrics[name].digits}f} {metrics[name].unit}"]
        for name, value in results["metrics"].items()
    ]
    print_table(f"{config.title}, step {results['step']}", ["metric", "value"], rows)
    print_left_out(results)
    print_path("report", report)
    return None


def starting_point(source: str | None, overrides: list[str], checkpoint: Path | None) -> tuple[str, list[str]]:
    """Return the recipe or file and the settings of a run; what a diffusers folder says stands before the user's own.

    Without a recipe such a folder is fine-tuned as "textures" is trained, at a tenth of its learning rate.
    """
    if source is not None and "=" in source:
        overrides, source = [source, *overrides], None
    said: list[str] = []
    if checkpoint is not None and checkpoint.is_dir():
        from specreg.models import pipelines

        said = pipelines.settings_of(checkpoint)
        if source is None:
            source, said = "textures", ["name=finetuned", "title=Fine-tuned", "training.lr=1e-4", *said]
    if source is None:
        from specreg.config import ConfigError

        if checkpoint is not None:
            raise ConfigError(f"--model: expected a diffusers folder, or a recipe or file beside it; got {checkpoint}")
        raise ConfigError("expected a recipe (`specreg recipes` lists them) or a .yaml file; got nothing")
    return source, [*said, *overrides]


def path_overrides(checkpoint: Path | None, data: Path | None) -> list[str]:
    """Return what --checkpoint and --data mean as overrides."""
    given = {"model.checkpoint": checkpoint, "data.path": data}
    found = [f"{key}={path}" for key, path in given.items() if path is not None]
    return [*found, "model.kind=pretrained"] if checkpoint is not None else found


def with_options(config: Config, *, loss: str | None, weighted: bool) -> Config:
    """Return a run with the spectral term that --loss and --weighted ask for, which its name says too."""
    if loss is None and not weighted:
        return config
    from specreg.config import ConfigError
    from specreg.modalities import parse

    name = loss or (config.spectral.name if config.spectral else None)
    if name is None or (name == "none" and weighted):
        raise ConfigError("--weighted: expected a spectral loss to weight; got none")
    from specreg.compare.arms import folder_name, resolve_arms

    arm = f"{name}-weighted" if weighted else name
    tree = config.model_dump(mode="json")
    if name == "none":
        tree["spectral"] = None
    elif arm in config.arms:
        tree["spectral"] = tree["arms"][arm]
    elif "@" in name:
        spectral = resolve_arms(config, [name])[name]  # as --arms reads it
        tree["spectral"] = spectral.model_dump(mode="json") if spectral else None
        if weighted:
            tree["spectral"] |= {"noise_weight": "edm", "noise_options": {}}
    else:
        section = tree["spectral"] or {}
        options = section.get("options", {}) if section.get("name") == name else {}
        weight = {"noise_weight": "edm", "noise_options": {}} if weighted else {}
        tree["spectral"] = {**section, "name": name, "options": options, **weight}
    return parse({**tree, "name": folder_name(f"{config.name}-{arm}")}, where="options")
