"""The `specreg` command: its commands by name."""

from __future__ import annotations

from typing import Annotated

import typer

from specreg.cli import checkpoints, compare, dataset, recipes, report, reproduce, sample, spectrum, train
from specreg.cli.console import escape_what_cannot_be_encoded, example, one_sentence, out, stoppable

app = typer.Typer(
    name="specreg",
    help="Spectral regularization for diffusion models: train with it, compare with and without, see the spectrum.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def run() -> None:
    """Run the command; bad input becomes one sentence on stderr and exit code 2 (SPECREG_TRACEBACK=1 shows all)."""
    escape_what_cannot_be_encoded()
    with one_sentence():
        app()


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.", is_eager=True)] = False,
) -> None:
    if version:
        from specreg import __version__

        out.print(f"specreg {__version__}")
        raise typer.Exit


for command, usage in (
    (compare.demo, "specreg demo"),
    (train.train, "specreg train edm-afhqv2-vp --checkpoint FILE --data ZIP --loss amplitude_phase"),
    (compare.compare, "specreg compare checkerboard --arms none,amplitude,amplitude_phase@0.3,haar --seeds 3"),
    (sample.sample, "specreg sample runs/demo/none-seed0 --count 16 --out samples"),
    (spectrum.spectrum, "specreg spectrum real.zip samples/ --json spectra.json --page spectra.html"),
    (report.report, "specreg report runs/demo"),
    (
        dataset.dataset,
        "specreg dataset textures.pk3 crops.zip --resolution 64 --mode tiles --min-std 20 --halve 256",
    ),
    (checkpoints.convert, "specreg convert edm-afhqv2-64x64-uncond-vp.pkl afhqv2-vp.safetensors"),
    (reproduce.reproduce, "specreg reproduce table1 --checkpoints DIR --data DIR --samples 50000 --seeds 3"),
    (recipes.recipes, "specreg recipes"),
):
    app.command(epilog=example(usage))(stoppable(command))
