"""The `specreg` command. Heavy imports live inside the commands, so that help and typing errors are instant."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from specreg import commands

if TYPE_CHECKING:
    from specreg.training.config import Config

app = typer.Typer(
    name="specreg",
    help="Spectral regularization for diffusion models: train with it, compare with and without, see the spectrum.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
# Names and titles are users' text: brackets in them are not markup.
out = Console(markup=False, emoji=False)
err = Console(stderr=True, markup=False, emoji=False)

Source = Annotated[str, typer.Argument(help="A recipe (see `specreg recipes`) or a YAML file.", metavar="RECIPE|FILE")]
Overrides = Annotated[
    list[str] | None, typer.Argument(help="Changes to it, such as training.steps=500.", metavar="KEY=VALUE")
]
Out = Annotated[Path, typer.Option("--out", help="Folder that holds the runs.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the resolved config and stop.")]


def example(text: str) -> str:
    """Epilog of a command: how it is used."""
    return f"[bold]Example[/]  {text}"


def run() -> None:
    """Run the command; bad input becomes one sentence on stderr and exit code 2 (SPECREG_TRACEBACK=1 shows all)."""
    try:
        app()
    except (ValueError, TypeError, OSError, ImportError) as error:
        _stop(error, 2)
    except RuntimeError as error:
        _stop(error, 1)


@contextmanager
def _resumable() -> Iterator[None]:
    """Say how to go on when the user stops a run."""
    try:
        yield
    except KeyboardInterrupt:
        err.print("Stopped. Run the same command again to go on from the last checkpoint.")
        raise typer.Exit(130) from None


def _stop(error: Exception, code: int) -> None:
    if os.environ.get("SPECREG_TRACEBACK"):
        raise error
    err.print(Text.assemble(("error: ", "bold red"), str(error) or type(error).__name__), soft_wrap=True)
    sys.exit(code)


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.", is_eager=True)] = False,
) -> None:
    if version:
        from specreg import __version__

        out.print(f"specreg {__version__}")
        raise typer.Exit


@app.command(epilog=example("specreg demo"))
def demo(
    overrides: Overrides = None,
    folder: Out = Path("runs"),
    seeds: Annotated[int, typer.Option(min=1, help="Paired seeds.")] = 1,
    dry_run: DryRun = False,
) -> None:
    """Train the checkerboard comparison, with and without the spectral term, and show what it did."""
    _compare("demo", overrides, folder, None, seeds, 1, dry_run)


@app.command(epilog=example("specreg train edm-afhqv2-vp --checkpoint FILE --data ZIP --loss amplitude_phase"))
def train(
    source: Source,
    overrides: Overrides = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(help="Network to start from: EDM .pkl, .safetensors, .pt, a diffusers folder, DiffWave .pt."),
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Folder, zip or array of images; folder of sound files.")] = None,
    loss: Annotated[
        str | None, typer.Option(help="Spectral loss or one of the recipe's arms; none trains without.")
    ] = None,
    weighted: Annotated[bool, typer.Option("--weighted", help="λ = λ_EDM(σ) instead of a constant.")] = False,
    folder: Out = Path("runs"),
    dry_run: DryRun = False,
) -> None:
    """Train one run, sample it, and write its report. The same command again goes on where it stopped."""
    config = commands.with_options(
        _config(source, [*(overrides or []), *commands.path_overrides(checkpoint, data)]), loss=loss, weighted=weighted
    )
    if dry_run:
        return _print_yaml(config)
    from specreg import compare as comparing
    from specreg import evaluation
    from specreg.report import build_report
    from specreg.training.trainer import Trainer

    run_folder = _folder(folder, config, unlike="comparison.json", kind="a comparison")
    # Before training: what is wrong with it should show now.
    truth = evaluation.load_truth(config, device=comparing.processes().device)
    trainer = Trainer(config, run_folder, console=err)
    with _resumable():
        trainer.run()
    if not trainer.accelerator.is_main_process:
        return None
    truth.save(run_folder / "truth")
    results = evaluation.evaluate(run_folder, truth, command=comparing.command_line(), device=trainer.device)
    table = Table("metric", "value", title=f"{config.title}, step {results['step']}", title_justify="left")
    for name, value in results["metrics"].items():
        metric = evaluation.METRICS[name]
        table.add_row(metric.label, f"{value:.{metric.digits}f} {metric.unit}")
    out.print(table)
    commands.print_left_out(results)
    _print_path("report", build_report(run_folder))
    return None


@app.command(epilog=example("specreg compare checkerboard --arms none,amplitude,amplitude_phase@0.3,haar --seeds 3"))
def compare(
    source: Source,
    overrides: Overrides = None,
    folder: Out = Path("runs"),
    arms: Annotated[
        str | None,
        typer.Option(
            help="Arms: none, a loss or a recipe's arm, with @λ, @auto or @auto:RATIO. Default: the recipe's own."
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Paired seeds, counted from the config's seed.")] = 1,
    jobs: Annotated[int, typer.Option(min=1, help="Runs at a time, each on a GPU of its own if there are.")] = 1,
    dry_run: DryRun = False,
) -> None:
    """Train several arms from the same seeds and report what the spectral term changed. Finished cells are kept."""
    _compare(source, overrides, folder, arms, seeds, jobs, dry_run)


def _compare(
    source: str, overrides: list[str] | None, folder: Path, arms: str | None, seeds: int, jobs: int, dry_run: bool
) -> None:
    config = _config(source, overrides)
    from accelerate import PartialState

    from specreg import compare as comparing

    names = (
        arms.split(",")
        if arms
        else list(config.arms) or [config.spectral.name if config.spectral else "amplitude_phase"]
    )
    resolved = comparing.resolve_arms(config, names)
    if dry_run:
        return _print_yaml(config.model_copy(update={"arms": resolved}))
    from specreg.report import build_report, summary_rows, verdicts

    run_folder = _folder(folder, config, unlike="config.yaml", kind="a single run")
    with _resumable():
        wanted = range(config.seed, config.seed + seeds)
        result = comparing.compare(config, run_folder, resolved, wanted, jobs=jobs, console=err)
    if not PartialState().is_main_process:
        return None
    header, *rows = summary_rows(result)
    table = Table(*header, title=config.title, title_justify="left", show_lines=seeds > 1)
    for row in rows:
        table.add_row(*row)
    out.print(table)
    for sentence in verdicts(result):
        out.print(sentence)
    commands.print_left_out(result)
    _print_path("report", build_report(run_folder))
    return None


@app.command(epilog=example("specreg sample runs/demo/none-seed0 --count 16 --out samples"))
def sample(
    run_folder: Annotated[Path, typer.Argument(help="A run folder with checkpoints.", metavar="RUN")],
    out_folder: Annotated[Path, typer.Option("--out", help="Folder for the files.")] = Path("samples"),
    count: Annotated[int, typer.Option(min=1, help="How many.")] = 16,
    seed: Annotated[int, typer.Option(min=0, help="Of the first; image i has seed + i.")] = 0,
    sampler: Annotated[str | None, typer.Option(help="ddim, ancestral or heun; fast or full for sound.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Of DDIM or Heun.")] = None,
    eta: Annotated[float | None, typer.Option(min=0, max=1, help="Of DDIM.")] = None,
) -> None:
    """Draw from a trained run, one seed a sample: PNG images, or held-out clips of sound vocoded as wav files.

    What is not given is as in the run.
    """
    import torch
    from PIL import Image

    from specreg import evaluation
    from specreg.training.config import dump, parse

    device = "cuda" if torch.cuda.is_available() else "cpu"
    trained = evaluation.load_model(run_folder, device)
    if trained.config.data.kind == "audio":
        return commands.sample_clips(trained, out_folder, count, seed, sampler, device=device)
    settings = {"count": count, "seed": seed, "sampler": sampler, "steps": steps, "eta": eta}
    given = {name: value for name, value in settings.items() if value is not None}
    tree = trained.config.model_dump(mode="json")
    config = parse({**tree, "sampling": {**tree["sampling"], **given}}, where="options")
    with err.status(f"sampling {count} images at step {trained.step}"):
        images = evaluation.draw_samples(config, trained.model, trained.shape, device=device)
    out_folder.mkdir(parents=True, exist_ok=True)
    for i, image in enumerate(images):
        Image.fromarray(image.permute(1, 2, 0).squeeze(-1).numpy()).save(out_folder / f"{seed + i:06d}.png")
    (out_folder / "config.yaml").write_text(dump(config), encoding="utf-8")
    _print_path(f"{count} images", out_folder)
    return None


@app.command(epilog=example("specreg report runs/demo"))
def report(
    run_folder: Annotated[Path, typer.Argument(help="A comparison or a run folder.", metavar="RUN")],
    to: Annotated[Path | None, typer.Option("--to", help="Where to write it; default RUN/report.html.")] = None,
) -> None:
    """Write the report of a run or a comparison again, from its files alone."""
    from specreg.report import build_report

    _print_path("report", build_report(run_folder, out=to))


@app.command(
    epilog=example("specreg dataset textures.pk3 crops.zip --resolution 64 --mode tiles --min-std 20 --halve 256")
)
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
    test_fraction: Annotated[float, typer.Option(min=0, max=0.9, help="Share of source files held out.")] = 0.1,
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
    out.print(
        f"left out: {built.low_contrast} flat images, {built.surplus} tiles beyond {max_tiles} a source",
    )
    for reason, names in built.skipped.items():
        if names:
            out.print(f"skipped, {reason}: {len(names)} sources ({_few(names)})", soft_wrap=True)


def _few(names: list[str], most: int = 5) -> str:
    """The first names of a list."""
    return ", ".join(names[:most]) + (f", … {len(names) - most} more" if len(names) > most else "")


app.command(epilog=example("specreg convert edm-afhqv2-64x64-uncond-vp.pkl afhqv2-vp.safetensors"))(commands.convert)
app.command(epilog=example("specreg reproduce table1 --checkpoints DIR --data DIR --images 50000 --seeds 3"))(
    commands.reproduce
)


@app.command(epilog=example("specreg recipes"))
def recipes() -> None:
    """List the recipes that train, compare and demo know."""
    from specreg.recipes import RECIPES

    table = Table("recipe", "what it runs", box=None, padding=(0, 2, 0, 0))
    for name, recipe in RECIPES.items():
        table.add_row(Text(name, "bold"), (recipe.__doc__ or "").strip())
    out.print(table)
    out.print("\nShow one in full: specreg train RECIPE --dry-run")


def _config(source: str, overrides: list[str] | None) -> Config:
    from specreg import _checks
    from specreg.recipes import RECIPES
    from specreg.training.config import ConfigError, load, parse

    if source in RECIPES:
        return parse(RECIPES[source](), overrides or [], where=f"recipe {source}")
    if Path(source).suffix in (".yaml", ".yml"):
        return load(Path(source), overrides or [])
    raise ConfigError(
        f"expected a recipe (`specreg recipes` lists them) or a .yaml file; "
        f"got {source!r}{_checks.nearest(source, RECIPES)}"
    )


def _folder(parent: Path, config: Config, *, unlike: str, kind: str) -> Path:
    """The run's folder, refused when it holds the other kind of run."""
    folder = parent / config.name
    if (folder / unlike).exists():
        raise ValueError(f"{folder}: holds {kind}; choose another name, such as name={config.name}-2")
    return folder


def _print_yaml(config: Config) -> None:
    from specreg.training.config import dump

    text = dump(config)
    out.print(Syntax(text, "yaml", background_color="default") if out.is_terminal else text, soft_wrap=True)


def _print_path(what: str, path: Any) -> None:
    out.print(Text.assemble(f"{what}: ", (str(path), "bold")), soft_wrap=True)
