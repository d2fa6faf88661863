"""`specreg turbulence`: fields of two-dimensional turbulence to train on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from specreg.cli.console import err, out


def turbulence(
    folder: Annotated[Path, typer.Argument(help="Folder for train.npy and test.npy.", metavar="OUT")],
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Of the initial noise.")] = 0,
    resolution: Annotated[int, typer.Option(min=16, max=512, help="Samples a side; a multiple of 4.")] = 64,
    viscosity: Annotated[float, typer.Option(help="Larger values give a steeper spectrum.")] = 4e-3,
    trajectories: Annotated[int, typer.Option(min=1, max=4096, help="Independent flows to train on.")] = 32,
    test_trajectories: Annotated[int, typer.Option(min=1, max=4096, help="Flows of their own to test on.")] = 8,
    snapshots: Annotated[int, typer.Option(min=1, max=4096, help="Fields of each flow.")] = 48,
) -> None:
    """Simulate vorticity of forced two-dimensional turbulence: about 10 minutes on one core by default."""
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TimeRemainingColumn

    from specreg.data.turbulence import Flow, write

    flow = Flow(
        resolution=resolution,
        viscosity=viscosity,
        trajectories=trajectories,
        test_trajectories=test_trajectories,
        snapshots=snapshots,
    )
    if (folder / "train.npy").exists():
        raise FileExistsError(f"{folder}: there are fields already; expected the name of a new folder")
    columns = (BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bar:
        task = bar.add_task("", total=1.0)
        write(folder, flow, seed=seed, done=lambda share: bar.update(task, completed=share))
    counts = [n * snapshots for n in (trajectories, test_trajectories)]
    out.print(
        f"{counts[0]} training fields in {folder / 'train.npy'}, {counts[1]} test fields in {folder / 'test.npy'}",
        soft_wrap=True,
    )
