"""`specreg convert`: trained networks from one file format to another."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from specreg.cli.console import home, print_path, print_warning


def convert(
    source: Annotated[
        Path, typer.Argument(help="An EDM .pkl, a .safetensors or a .pt file, or a run folder.", metavar="SRC")
    ],
    target: Annotated[
        Path,
        typer.Argument(
            help="A .safetensors or a .pt file to write; for diffusers' networks a pipeline folder.", metavar="OUT"
        ),
    ],
    like: Annotated[
        Path | None,
        typer.Option(callback=home, help="A checkpoint of the same network, for files that do not say what they hold."),
    ] = None,
) -> None:
    """Convert a trained network without running code that its file may hold."""
    if source.is_dir():
        from specreg import evaluation, modalities
        from specreg.config import ConfigError

        trained = evaluation.load_trained(source, warn=print_warning)
        modality = modalities.of(trained.config)
        try:
            what = modality.export_network(target, trained.config, trained.network, trained.description, trained.step)
        except ConfigError as error:
            raise ConfigError(f"{source}: {error}") from None
    else:
        from specreg.models import pretrained

        found = pretrained.read(source, config=pretrained.read(like).config if like else None)
        pretrained.save(target, found)
        what = pretrained.describe(found)
    print_path(what, target)
