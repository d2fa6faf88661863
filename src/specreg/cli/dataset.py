"""`specreg dataset`: archives of training images from a folder, zip or pk3."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from specreg.cli.console import out


def dataset(
    source: Annotated[Path, typer.Argument(help="Folder, zip or pk3 of images.", metavar="SRC")],
    archive: Annotated[
        Path, typer.Argument(help="Training archive; OUT-test.zip is written beside it.", metavar="OUT.zip")
    ],
    resolution: Annotated[int, typer.Option(min=4, help="Side of the images, pixels.")] = 64,
    mode: Annotated[
        str, typer.Option(help="crop: the largest centred square of each image; tiles: many an image.")
    ] = "tiles",
    channels: Annotated[int, typer.Option(help="1 grey, 3 colour.")] = 3,
    min_std: Annotated[float, typer.Option(min=0, help="Leave out flatter images (standard deviation, of 255).")] = 0.0,
    halve: Annotated[
        int, typer.Option(min=0, help="Halve images of at least this many pixels a side first; 0 never.")
    ] = 0,
    max_tiles: Annotated[int, typer.Option(min=1, help="Tiles of one source image at most.")] = 16,
    test_fraction: Annotated[
        float,
        typer.Option(
            min=0, max=0.9, help="Share of source files held out; without any, an earlier OUT-test.zip is removed."
        ),
    ] = 0.1,
    exclude: Annotated[
        list[str] | None, typer.Option(help="Leave out sources whose name matches, e.g. '*_mask'; may be repeated.")
    ] = None,
    keep_maps: Annotated[
        bool, typer.Option("--keep-maps", help="Keep names such as *_normal and *_gloss, left out otherwise.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of the split and the choice of tiles.")] = 0,
) -> None:
    """Make train and test archives (EDM's zip form) of a folder, zip or pk3, split by source file."""
    from specreg.data import build_dataset

    built = build_dataset(
        source,
        archive,
        resolution=resolution,
        mode=mode,  # type: ignore[arg-type]  # checked by build_dataset
        channels=channels,
        min_std=min_std,
        halve=halve,
        max_tiles=max_tiles,
        test_fraction=test_fraction,
        exclude=exclude or (),
        keep_maps=keep_maps,
        seed=seed,
    )
    made = [f"{built.images_train} training images in {built.train}"]
    made += [f"{built.images_test} test images in {built.test}"] if built.test else ["no test images"]
    out.print(f"{built.used} of {built.sources} sources used: {', '.join(made)}", soft_wrap=True)
    if built.removed:
        out.print(
            f"removed {built.removed}: an earlier test archive, whose sources may be in the training archive now",
            soft_wrap=True,
        )
    if built.test is None:
        out.print(
            "Train on it without data.test_path, and results are measured against the training images; "
            "a larger --test-fraction or another --seed may hold images out.",
            soft_wrap=True,
        )
    out.print(
        f"left out: {built.low_contrast} flat images, {built.surplus} tiles beyond {max_tiles} a source",
    )
    for reason, names in built.skipped.items():
        if names:
            shown = [f"{name} ({built.unreadable[name]})" if name in built.unreadable else name for name in names]
            out.print(f"skipped, {reason}: {len(names)} sources ({_few(shown)})", soft_wrap=True)


def _few(names: list[str], most: int = 5) -> str:
    """Return the first names of a list."""
    return ", ".join(names[:most]) + (f", … {len(names) - most} more" if len(names) > most else "")
