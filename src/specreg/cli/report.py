"""`specreg report`: the page of a run, of a comparison, or of several of them and of sets of samples."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from specreg.cli.console import file_to_write, home, print_path

if TYPE_CHECKING:
    from specreg.instruments.sources import Source
    from specreg.report.contents import RunFiles, Samples

SHOWN = 25  # samples of a set


def report(
    folders: Annotated[
        list[Path],
        typer.Argument(help="Comparison folders, run folders, and samples of the same size.", metavar="FOLDER..."),
    ],
    to: Annotated[
        Path | None,
        typer.Option(
            "--to",
            callback=file_to_write,
            help="Where to write it; default FOLDER/report.html, of several folders report.html.",
        ),
    ] = None,
    reference: Annotated[
        Path | None,
        typer.Option(callback=home, help="Real data that folders of samples are measured against; default the first."),
    ] = None,
) -> None:
    """Write the report of a run or a comparison again, or one page of several folders, from their files alone.

    Runs that differ in their seed alone are one arm. Anything else that `specreg spectrum` reads, such as a folder of
    images, is a set of samples, measured beside a reference.
    """
    from specreg.report import build_report
    from specreg.report.reading import is_comparison, is_run

    found = [folder for folder in folders if is_comparison(folder) or is_run(folder)]
    others = [folder for folder in folders if folder not in found]
    if not others:
        if reference is not None:
            raise ValueError(f"--reference is for folders of samples; {', '.join(map(str, folders))} are runs")
        print_path("report", build_report(folders, out=to))
        return
    for path in others:
        if not path.exists():
            raise ValueError(f"{path}: expected a comparison folder, a run folder or samples; there is no such path")
    if reference is None and len(others) == 1:
        raise ValueError(
            f"{others[0]}: expected a comparison folder (with comparison.json) or a run folder (with config.yaml and "
            "metrics.jsonl); found neither, and samples need something to be measured against: --reference PATH"
        )
    sets = _measured([reference, *others] if reference else others)
    print_path("report", build_report(found, out=to or Path("report.html"), measured=[sets]))


def _measured(paths: list[Path]) -> RunFiles:
    """Measure sets of samples beside the first."""
    from specreg.instruments import open_source, sentences, spectra
    from specreg.report.measured import measured

    sources = [open_source(str(path)) for path in paths]
    result = spectra(*sources)
    every = [result.reference, *result.sets]
    said = {found.spectrum.name: sentences(found, result) for found in result.sets}
    span = _range(sources[0])
    pictures = {
        found.spectrum.name: shown
        for found, source in zip(every, sources, strict=True)
        if (shown := _samples(source, span)) is not None
    }
    return measured(result.record(), said=said, samples=pictures)


def _range(source: Source) -> tuple[float, float]:
    """Return the values that are shown black and white: those of images, or the range of the samples shown."""
    if source.rounding:
        return -1.0, 1.0
    values = source.read(0, min(SHOWN, len(source)))
    return float(values.min()), float(values.max())


def _samples(source: Source, span: tuple[float, float]) -> Samples | None:
    """Return the first samples in a form that the report shows, pictures or lines; None for volumes."""
    from specreg.metrics.spectra import to_uint8

    values = source.read(0, min(SHOWN, len(source)))
    if values.ndim == 3:
        return values.numpy()
    if values.ndim != 4:
        return None
    low, high = span
    return to_uint8(2 * (values - low) / ((high - low) or 1.0) - 1).permute(0, 2, 3, 1).numpy()
