"""`specreg spectrum`: the spectra of sets of samples beside a reference."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from rich.padding import Padding
from rich.text import Text

from specreg.cli.console import err, file_to_write, folder_to_write, out, print_path, print_table, whole_number

if TYPE_CHECKING:
    from specreg.instruments.result import Result

Sources = Annotated[
    list[str],
    typer.Argument(
        help="The reference, then the sets in question: folders, zips or tars of images or sound, .npy, .npz, "
        ".safetensors, videos, FILE.nc:VARIABLE, run folders.",
        metavar="REFERENCE [OTHER]...",
        show_default=False,
    ),
]


def spectrum(
    sources: Sources,
    window: Annotated[
        str, typer.Option(help="hann or tukey for pictures and sound; none for data that are periodic.")
    ] = "",
    detrend: Annotated[str, typer.Option(help="What to remove of each sample first: mean, plane or none.")] = "mean",
    transform: Annotated[str, typer.Option(help="dft, or dct: mirrored at the ends, without a window.")] = "dft",
    tile: Annotated[int | None, typer.Option(help="Take tiles of this side, for pictures of several sizes.")] = None,
    segment: Annotated[int | None, typer.Option(help="Samples of a segment of sound (4096).")] = None,
    channels: Annotated[str, typer.Option(help="all, luma or luma-chroma.")] = "all",
    limit: Annotated[int | None, typer.Option(help="Read no more than this many samples of a set.")] = None,
    paired: Annotated[bool, typer.Option(help="Samples correspond by name: adds coherence.")] = False,
    fit: Annotated[str | None, typer.Option(help="Range of slopes in cycles per sample, such as 0.05:0.4.")] = None,
    share: Annotated[float, typer.Option(help="Share of the reference's power for effective resolution.")] = 0.5,
    fail_if: Annotated[
        list[str] | None,
        typer.Option(
            help="Exit with 1 where a set meets a condition, such as 'high_band_db < -3'.", metavar="CONDITION"
        ),
    ] = None,
    numbers: Annotated[
        Path | None, typer.Option("--json", help="Write all numbers to this file.", callback=file_to_write)
    ] = None,
    page: Annotated[Path | None, typer.Option(help="Write an HTML page to this file.", callback=file_to_write)] = None,
    figures: Annotated[
        Path | None, typer.Option(help="Write figures to this folder, as SVG and PNG.", callback=folder_to_write)
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Threads; by default one for each processor.", parser=whole_number(1))
    ] = None,
) -> None:
    """Measure the spectra of sets of samples beside that of a reference, with intervals and in words."""
    from specreg._files import write_json
    from specreg.instruments import Settings, conditions, spectra
    from specreg.instruments.sources import open_source
    from specreg.instruments.sources.values import Channels

    wanted = [conditions.parse(text) for text in fail_if or []]
    settings = Settings.of(window or ("none" if transform == "dct" else "hann"), detrend, transform)
    opened = [
        open_source(path, tile=tile, segment=segment, channels=cast(Channels, channels), limit=limit)
        for path in sources
    ]
    for note in (note for source in opened for note in source.notes):
        err.print(f"note: {note}", soft_wrap=True)
    with _progress() as told:
        result = spectra(
            *opened,
            settings=settings,
            paired=paired,
            fitted=_range(fit),
            share=share,
            workers=workers,
            progress=told,
        )
    _print(result)
    if numbers:
        write_json(numbers, result.record())
        print_path("numbers", numbers)
    if page:
        from specreg.instruments.page import write_page

        write_page(result, page)
        print_path("page", page)
    if figures:
        _save_figures(result, figures)
        print_path("figures", figures)
    failed = [(c, found.spectrum.name) for c in wanted for found in result.sets if c.met(found)]
    for condition, name in failed:
        err.print(f"failed: {name}: {condition.text}", soft_wrap=True)
    if failed:
        raise typer.Exit(1)


def _range(text: str | None) -> tuple[float, float] | None:
    """Return the two frequencies of --fit LOW:HIGH."""
    if text is None:
        return None
    try:
        low, high = (float(part) for part in text.split(":"))
    except ValueError:
        low = high = math.nan
    if not 0 < low < high <= 0.5:
        raise ValueError(f"--fit takes LOW:HIGH in cycles per sample, 0 < LOW < HIGH <= 0.5; got {text!r}")
    return low, high


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """Show how far each set is and how long it will take, on a terminal."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bar:
        tasks: dict[str, Any] = {}

        def told(name: str, done: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = bar.add_task(_short(name), total=total)
            bar.update(tasks[name], completed=done)

        yield told


def _print(result: Result) -> None:
    """Print what the numbers say, then the numbers."""
    from specreg.instruments import page, words

    for found in (*result.sets, result.reference):
        out.print(Text(found.spectrum.name, style="bold"), soft_wrap=True)
        for sentence in words.sentences(found, result):
            out.print(Padding(Text(sentence), (0, 0, 0, 2)))
    out.print()
    table = page.rows(result)
    header = ["set", *(column for column, _, _ in table[0][1])]
    print_table(
        "95% intervals; the high band lies above half Nyquist; resolution in cycles per sample",
        header,
        [[_short(name), *("\n".join(filter(None, cell[1:])) or "–" for cell in cells)] for name, cells in table],
    )
    bands = page.band_rows(result)
    if bands:
        out.print()
        names = [_short(found.spectrum.name) for found in result.sets]
        print_table(
            f"Energy by band relative to {_short(result.reference.spectrum.name)}, dB (* significant)",
            ["cycles per sample", *names],
            [
                [band, *(f"{value}{'*' if sure else ' '} {bounds}" for value, bounds, sure in cells)]
                for band, cells in bands
            ],
        )


def _save_figures(result: Result, folder: Path) -> None:
    from specreg._files import whole_file
    from specreg.instruments import figures
    from specreg.report.figures import styled
    from specreg.report.page import svg

    folder.mkdir(parents=True, exist_ok=True)
    with styled():
        for name, make in (
            ("power", figures.power_figure),
            ("ratio", figures.ratio_figure),
            ("coherence", figures.coherence_figure),
        ):
            figure = figures.with_legend(make(result), result)
            if figure is None:
                continue
            with whole_file(folder / f"{name}.svg") as file:
                file.write(svg(figure))
            with whole_file(folder / f"{name}.png") as file:
                figure.savefig(file, format="png", dpi=200)


def _short(name: str, most: int = 28) -> str:
    """Return a name that fits a table."""
    return name if len(name) <= most else f"{name[: most // 2 - 1]}…{name[-(most // 2) :]}"
