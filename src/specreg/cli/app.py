"""The `specreg` command: its commands by name."""

from __future__ import annotations

import logging
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from specreg.cli import (
    checkpoints,
    compare,
    dataset,
    diagnose,
    evaluate,
    recipes,
    report,
    reproduce,
    sample,
    spectrum,
    train,
    turbulence,
)
from specreg.cli.console import escape_what_cannot_be_encoded, example, one_sentence, out, shortened, stoppable

_Misused: Any = typer.BadParameter.__base__
"""What the parser raises for any misuse, click's UsageError; some versions of typer bring a click of their own."""


class _Commands(TyperGroup):
    """The commands; a fault of an option, which typer prints, is shortened as other errors are."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was asked for."""
        try:
            return super().invoke(ctx)
        except _Misused as error:
            error.message = shortened(error.message)
            raise


app = typer.Typer(
    name="specreg",
    cls=_Commands,
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
    logging.getLogger("PIL").addHandler(logging.NullHandler())  # it would print its own words beside our sentence
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
    (diagnose.diagnose, "specreg diagnose runs/demo/none-seed0 --json diagnosis.json --out diagnosis.html"),
    (evaluate.evaluate, "specreg evaluate samples --reference crops-test.zip --json scores.json"),
    (report.report, "specreg report runs/demo"),
    (
        dataset.dataset,
        "specreg dataset textures.pk3 crops.zip --resolution 64 --mode tiles --min-std 20 --halve 256",
    ),
    (turbulence.turbulence, "specreg turbulence turbulence --seed 0"),
    (checkpoints.convert, "specreg convert edm-afhqv2-64x64-uncond-vp.pkl afhqv2-vp.safetensors"),
    (reproduce.reproduce, "specreg reproduce table1 --checkpoints DIR --data DIR --samples 50000 --seeds 3"),
    (recipes.recipes, "specreg recipes"),
):
    app.command(epilog=example(usage))(stoppable(command))
