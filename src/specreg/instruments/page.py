"""The spectra of sets of samples as one HTML page without scripts, and as a fragment for notebooks."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from specreg.instruments import figures
from specreg.instruments.result import Result, SetResult
from specreg.instruments.sums import Value
from specreg.instruments.words import sentences
from specreg.report import page
from specreg.report.figures import styled

HERE = "specreg.instruments"


def write_page(result: Result, path: Path) -> None:
    """Write the page; it needs no other file."""
    page.write(path, _render("spectrum.html", result))


def fragment(result: Result) -> str:
    """Return the sentences and the figures as HTML without a page around them."""
    return _render("fragment.html", result)


def _render(template: str, result: Result) -> str:
    with styled():
        return page.render(template, _content(result), package=HERE)


def _content(result: Result) -> dict[str, Any]:
    sets = (result.reference, *result.sets)
    names = ", ".join(found.spectrum.name for found in sets)
    settings = result.reference.spectrum.settings
    plots = [
        page.plot(
            f"spectra-{name}",
            f"{title}: {names}.",
            figure,
            complete=figures.with_legend(make(result), result),
            table=table,
        )
        for name, title, make, table in (
            ("power", "Mean power spectra", figures.power_figure, power_table(result)),
            ("ratio", f"Power relative to {result.reference.spectrum.name}, dB", figures.ratio_figure, None),
            ("coherence", "Coherence of paired samples", figures.coherence_figure, None),
        )
        if (figure := make(result)) is not None
    ]
    columns, numbers = _flat(rows(result))
    return {
        "title": f"Spectra beside {result.reference.spectrum.name}",
        "about": [
            f"window {settings.window}",
            f"{settings.detrend} removed" if settings.detrend != "none" else "nothing removed",
            settings.transform.upper(),
            "95% intervals by bootstrap over independent samples",
        ],
        "said": [
            (found.spectrum.name, figures.color_of(result, found), sentences(found, result))
            for found in (*result.sets, result.reference)
        ],
        "legend": [(found.spectrum.name, figures.color_of(result, found)) for found in sets],
        "plots": plots,
        "columns": columns,
        "numbers": numbers,
        "band_columns": [("cycles per sample", ""), *((found.spectrum.name, "dB") for found in result.sets)],
        "bands": [
            (band, *(f"{value}{'*' if sure else ''} ({bounds})" for value, bounds, sure in cells))
            for band, cells in band_rows(result)
        ],
    }


def _flat(
    table: list[tuple[str, list[tuple[str, str, str]]]],
) -> tuple[list[tuple[str, str]], list[tuple[str, ...]]]:
    """Return columns and rows of text for the macro `table`."""
    columns = [("set", ""), *((column, "") for column, _, _ in table[0][1])]
    lines = [
        (name, *(f"{value} ({bounds})" if bounds else value for _, value, bounds in cells)) for name, cells in table
    ]
    return columns, lines


def rows(result: Result) -> list[tuple[str, list[tuple[str, str, str]]]]:
    """Return the table: for each set its name, and (column, value, interval) of each number."""
    found = []
    for entry in (result.reference, *result.sets):
        values = entry.values()
        cells: list[tuple[str, str, str]] = []
        if entry.difference is None:
            cells.append(("spectral distance, dB", *_floor(result)))
            cells.append(("high band, dB", "", ""))
        else:
            cells.append(("spectral distance, dB", *shown(values["log_spectral_distance_db"], "{:.2f}")))
            cells.append(("high band, dB", *shown(values["high_band_db"], "{:+.1f}")))
        cells.append(("slope", *shown(values.get("slope"), "{:+.2f}")))
        cells.append(("resolves to", *_resolution(entry)))
        peaks = len(entry.artefacts)
        cells.append(("grids", str(peaks) if peaks else "none", f"z = {entry.artefacts[0].z:.1f}" if peaks else ""))
        found.append((entry.spectrum.name, cells))
    return found


def _floor(result: Result) -> tuple[str, str]:
    return ("", "") if result.floor is None else (f"{result.floor.value:.2f}", "between its halves")


def _resolution(found: SetResult) -> tuple[str, str]:
    if found.difference is None:
        return "", ""
    if found.difference.effective_resolution is None:
        return "Nyquist", ""
    return shown(found.difference.effective_resolution, "{:.3f}")


def band_rows(result: Result) -> list[tuple[str, list[tuple[str, str, bool]]]]:
    """Return the energy by band: the band, and (value, interval, significant) of each set."""
    if not result.sets:
        return []
    found = []
    differences = [entry.difference for entry in result.sets if entry.difference]
    for k, band in enumerate(differences[0].bands):
        cells = [(*shown(d.bands[k].ratio_db, "{:+.1f}"), bool(d.bands[k].significant)) for d in differences]
        found.append((f"{band.low:.3g} – {band.high:.3g}", cells))
    return found


def shown(value: Value | None, form: str) -> tuple[str, str]:
    """Return a number and its interval as text."""
    if value is None:
        return "", ""
    number, low, high = (_text(form, part) for part in value)
    return number, f"{low}…{high}" if math.isfinite(value.low) and value.low != value.high else ""


def _text(form: str, number: float) -> str:
    """Return a number as text with a true minus, and without one where it is rounded to zero."""
    text = form.format(number)
    return text.replace("-", "−" if any(digit in "123456789" for digit in text) else "+" if "+" in form else "")


def power_table(result: Result) -> page.Table:
    """Return frequency and mean power of all sets, with the bounds of 95% intervals."""
    records = [entry.record() for entry in (result.reference, *result.sets)]
    header = ["frequency, cycles per sample"]
    columns = [records[0]["frequency"]]
    for record in records:
        header += [f"{record['name']}: {part}" for part in ("power", "low", "high")]
        columns += [record["power"], record["power_low"], record["power_high"]]
    return page.Table(header, list(zip(*columns, strict=True)))
