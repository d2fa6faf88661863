"""The spectra of sets of samples as one HTML page without scripts, and as a fragment for notebooks."""

from __future__ import annotations

import csv
import io
import math
from base64 import b64encode
from importlib import resources
from pathlib import Path
from typing import Any

from specreg._files import write_text
from specreg.instruments import figures
from specreg.instruments.result import Result, SetResult
from specreg.instruments.sums import Value
from specreg.instruments.words import sentences
from specreg.report.figures import styled, svg


def write_page(result: Result, path: Path) -> None:
    """Write the page; it needs no other file."""
    html = _render("spectrum.html", result)
    write_text(path, html.encode("utf-8", errors="replace").decode("utf-8"))


def fragment(result: Result) -> str:
    """Return the sentences, the table and the figures as HTML without a page around them."""
    return _render("fragment.html", result)


def _render(template: str, result: Result) -> str:
    from jinja2 import Environment, FunctionLoader

    folder = resources.files("specreg.instruments")
    environment = Environment(
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=FunctionLoader(lambda name: folder.joinpath(name).read_text(encoding="utf-8")),
    )
    with styled():
        return environment.get_template(template).render(_content(result))


def _content(result: Result) -> dict[str, Any]:
    plots = [
        ("power", "Mean power spectra", figures.power_figure(result)),
        ("ratio", f"Power relative to {result.reference.spectrum.name}", figures.ratio_figure(result)),
        ("coherence", "Coherence of paired samples", figures.coherence_figure(result)),
    ]
    table = csv_of(result).encode()
    return {
        "reference": result.reference.spectrum.name,
        "said": [
            (found.spectrum.name, figures.color_of(result, found), sentences(found, result))
            for found in (*result.sets, result.reference)
        ],
        "legend": [(f.spectrum.name, figures.color_of(result, f)) for f in (result.reference, *result.sets)],
        "rows": rows(result),
        "plots": [(name, title, _uri("image/svg+xml", svg(figure))) for name, title, figure in plots if figure],
        "csv": _uri("text/csv", table),
        "bands": band_rows(result),
        "settings": result.reference.spectrum.settings,
    }


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
    number, low, high = (form.format(part).replace("-", "−") for part in value)
    return number, f"{low}…{high}" if math.isfinite(value.low) and value.low != value.high else ""


def csv_of(result: Result) -> str:
    """Return frequency and mean power of all sets as CSV, with the bounds of 95% intervals."""
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    records = [entry.record() for entry in (result.reference, *result.sets)]
    header = ["frequency_cycles_per_sample"]
    for record in records:
        header += [f"{record['name']} power", f"{record['name']} low", f"{record['name']} high"]
    writer.writerow(header)
    columns = [records[0]["frequency"]]
    for record in records:
        columns += [record["power"], record["power_low"], record["power_high"]]
    writer.writerows(zip(*columns, strict=True))
    return buffer.getvalue()


def _uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{b64encode(content).decode()}"
