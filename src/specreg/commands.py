"""Commands about checkpoints and the paper's tables; `cli.py` gives them their names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

if TYPE_CHECKING:
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
        from specreg.evaluation import averaged_network

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
