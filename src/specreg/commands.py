"""Commands about checkpoints and the paper's tables; `cli.py` gives them their names."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

out = Console(markup=False, emoji=False)
err = Console(stderr=True, markup=False, emoji=False)


def convert(
    source: Annotated[Path, typer.Argument(help="An EDM .pkl, a .safetensors or a .pt file.", metavar="SRC")],
    target: Annotated[Path, typer.Argument(help="A .safetensors or a .pt file to write.", metavar="OUT")],
    like: Annotated[
        Path | None, typer.Option(help="A checkpoint of the same network, for files that do not say what they hold.")
    ] = None,
) -> None:
    """Convert a pretrained network without running code that its file may hold."""
    from specreg.models import pretrained

    config = pretrained.read(like).config if like else None
    found = pretrained.read(source, config=config)
    pretrained.save(target, found)
    network = found.config
    parameters = sum(p.numel() for p in network.skeleton().parameters())
    out.print(
        f"{network.architecture} under {network.preconditioning} preconditioning, {parameters:,} parameters: {target}",
        soft_wrap=True,
    )
