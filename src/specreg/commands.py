"""Commands about checkpoints and the paper's tables; `cli.py` gives them their names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

if TYPE_CHECKING:
    from specreg.evaluation import Trained
    from specreg.training.config import Config

out = Console(markup=False, emoji=False)
err = Console(stderr=True, markup=False, emoji=False)


def convert(
    source: Annotated[
        Path, typer.Argument(help="An EDM .pkl, a .safetensors or a .pt file, or a run folder.", metavar="SRC")
    ],
    target: Annotated[Path, typer.Argument(help="A .safetensors or a .pt file to write.", metavar="OUT")],
    like: Annotated[
        Path | None, typer.Option(help="A checkpoint of the same network, for files that do not say what they hold.")
    ] = None,
) -> None:
    """Convert a pretrained network without running code that its file may hold."""
    from specreg.models import pretrained

    if source.is_dir():
        from specreg.evaluation import averaged_network, trained_diffwave

        if (trained := trained_diffwave(source)) is not None:
            return _export_diffwave(trained, target)
        found = averaged_network(source)
    else:
        found = pretrained.read(source, config=pretrained.read(like).config if like else None)
    pretrained.save(target, found)
    network = found.config
    parameters = sum(p.numel() for p in network.skeleton().parameters())
    out.print(
        f"{network.architecture} under {network.preconditioning} preconditioning, {parameters:,} parameters: {target}",
        soft_wrap=True,
    )
    return None


def _export_diffwave(trained: Trained, target: Path) -> None:
    """Write a run's DiffWave in the public format."""
    from specreg.models.diffwave import DiffWave
    from specreg.models.diffwave_checkpoint import save_diffwave

    if target.suffix != ".pt":
        raise ValueError(f"expected a .pt file to write a DiffWave to; got {target}")
    model, training = trained.model, trained.config.training
    assert isinstance(model, DiffWave)
    params = {"batch_size": training.batch_size, "learning_rate": training.lr, "max_grad_norm": training.clip}
    save_diffwave(target, model, step=trained.step, other_params=params)
    parameters = sum(p.numel() for p in model.parameters())
    out.print(f"DiffWave at {model.config.sample_rate} Hz, {parameters:,} parameters: {target}", soft_wrap=True)


def sample_clips(trained: Trained, folder: Path, count: int, seed: int, sampler: str | None, *, device: str) -> None:
    """Vocode held-out clips of a run's data into `folder` as wav files."""
    from specreg import evaluation_audio
    from specreg.models.diffwave import DiffWave
    from specreg.training.config import parse

    tree = trained.config.model_dump(mode="json")
    tree["sampling"] |= {"count": count, "seed": seed, **({"sampler": sampler} if sampler else {})}
    config = parse(tree, where="options")
    assert isinstance(trained.model, DiffWave)
    truth = evaluation_audio.load_truth(config, network=trained.model.config, scored=False)
    with err.status(f"vocoding {len(truth.clips)} clips at step {trained.step}"):
        clips = dict(evaluation_audio.vocode(config, trained.model, truth, device=device))
    evaluation_audio.save_clips(folder, clips, truth.settings.sample_rate)
    out.print(f"{len(clips)} clips: {folder}", soft_wrap=True)


def print_left_out(results: Mapping[str, Any]) -> None:
    """Say which metrics did not run, and how many clips have no value."""
    for metric, why in (results.get("missing") or {}).items():
        err.print(f"not measured: {metric}. {why}", soft_wrap=True)
    for metric, clips in (results.get("failures") or {}).items():
        number = clips if isinstance(clips, int) else len(clips)
        err.print(f"clips without a value: {number} in {metric}", soft_wrap=True)


def reproduce(
    what: Annotated[
        str, typer.Argument(help="table1: EDM image models; table2: the DiffWave vocoder.", metavar="TABLE")
    ],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Changes to the recipes, such as training.steps=50.", metavar="KEY=VALUE")
    ] = None,
    checkpoints: Annotated[Path, typer.Option(help="table1: folder of the public checkpoints.")] = Path("checkpoints"),
    checkpoint: Annotated[Path | None, typer.Option(help="table2: the DiffWave .pt to fine-tune.")] = None,
    data: Annotated[Path, typer.Option(help="Folder of the archives (table1) or clips (table2).")] = Path("datasets"),
    images: Annotated[int, typer.Option(min=2, help="table1: samples of each network and seed.")] = 50_000,
    steps: Annotated[int | None, typer.Option(min=1, help="table2: of training; default 150000.")] = None,
    seeds: Annotated[
        int | None, typer.Option(min=1, help="Of training and sampling; default 3 (table1) or 5 (table2).")
    ] = None,
    rows: Annotated[str | None, typer.Option(help="table1: recipes, with commas between; default all.")] = None,
    arms: Annotated[
        str | None,
        typer.Option(help="edm, or losses with or without -weighted (table1); losses as haar@1e-4 (table2)."),
    ] = None,
    inception: Annotated[Path | None, typer.Option(help="table1: Inception weights for FID.")] = None,
    folder: Annotated[Path | None, typer.Option("--out", help="Folder of the results; default runs/TABLE.")] = None,
) -> None:
    """Rebuild a table of the paper from what is there. The same command again goes on where it stopped."""
    import torch
    from rich.table import Table

    from specreg import _checks
    from specreg.metrics.features import InceptionFeatures, WeightsMissing, find_inception
    from specreg.reproduce import table1

    _checks.choice("table", what, ["table1", "table2"])
    folder = folder or Path("runs") / what
    if what == "table2":
        named = arms.split(",") if arms else None
        return _table2(checkpoint, data, folder, steps, seeds or 5, named, overrides or [])
    seeds = seeds or 3
    extract = None
    try:
        weights = find_inception(inception)
    except WeightsMissing as missing:
        if inception is not None:
            raise
        err.print(f"No FID, spectral metrics alone. {missing}", soft_wrap=True)
    else:
        extract = InceptionFeatures(weights, device="cuda" if torch.cuda.is_available() else "cpu")
    try:
        content = table1.run(
            checkpoints,
            data,
            folder,
            images=images,
            seeds=seeds,
            rows=rows.split(",") if rows else None,
            arms=arms.split(",") if arms else None,
            overrides=overrides or [],
            extract=extract,
            console=err,
        )
    except KeyboardInterrupt:
        err.print("Stopped. Run the same command again to go on.")
        raise typer.Exit(130) from None
    table = Table(title=f"Table 1, {images} samples a seed", title_justify="left")
    for i, header in enumerate(["", *table1.columns(content)]):
        table.add_column(header, no_wrap=i < 2)
    for line in table1.lines_of(content):
        table.add_row(*line)
    out.print(table)
    out.print(f"table: {folder / 'table1.md'}", soft_wrap=True)
    return None


def _table2(
    checkpoint: Path | None,
    data: Path,
    folder: Path,
    steps: int | None,
    seeds: int,
    arms: list[str] | None,
    overrides: list[str],
) -> None:
    from rich.table import Table

    from specreg.report import build_report
    from specreg.reproduce import table2

    if checkpoint is None:
        raise ValueError("--checkpoint: table2 expects the DiffWave .pt to fine-tune; got nothing")
    config = table2.configure(checkpoint, data, steps=steps, overrides=overrides)
    try:
        content = table2.run(config, folder, seeds=seeds, arms=arms, console=err)
    except KeyboardInterrupt:
        err.print("Stopped. Run the same command again to go on.")
        raise typer.Exit(130) from None
    title = f"Table 2, {config.training.steps} steps, {seeds} seeds"
    table = Table("arm", *table2.COLUMNS.values(), title=title, title_justify="left", show_lines=True)
    for line in table2.beside(content):
        table.add_row(*line)
    out.print(table)
    print_left_out(content)
    out.print(f"table: {folder / 'table2.md'}", soft_wrap=True)
    out.print(f"report: {build_report(folder)}", soft_wrap=True)


def path_overrides(checkpoint: Path | None, data: Path | None) -> list[str]:
    """What --checkpoint and --data mean as overrides."""
    given = {"model.checkpoint": checkpoint, "data.path": data}
    found = [f"{key}={str(path)!r}" for key, path in given.items() if path is not None]
    return [*found, "model.kind=pretrained"] if checkpoint is not None else found


def with_options(config: Config, *, loss: str | None, weighted: bool) -> Config:
    """A run with the spectral term that --loss and --weighted ask for; its name says so, so that runs stay apart."""
    if loss is None and not weighted:
        return config
    from specreg.training.config import ConfigError, parse

    name = loss or (config.spectral.name if config.spectral else None)
    if name is None or (name == "none" and weighted):
        raise ConfigError("--weighted: expected a spectral loss to weight; got none")
    arm = f"{name}-weighted" if weighted else name
    tree = config.model_dump(mode="json")
    if name == "none":
        tree["spectral"] = None
    elif arm in config.arms:
        tree["spectral"] = tree["arms"][arm]
    else:
        section = tree["spectral"] or {}
        options = section.get("options", {}) if section.get("name") == name else {}
        weight = {"noise_weight": "edm", "noise_options": {}} if weighted else {}
        tree["spectral"] = {**section, "name": name, "options": options, **weight}
    return parse({**tree, "name": f"{config.name}-{arm}".replace(":", "_")}, where="options")
