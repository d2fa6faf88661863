"""What all pages of this package share: style, templates, figures with what can be saved of them, tables as CSV.

A page is one file without scripts: `base.html` is its frame, `style.css` its look, `parts.html` its macros. Other
packages extend the frame and import the macros:

    {% extends "base.html" %}
    {% from "parts.html" import plot, table %}
"""

from __future__ import annotations

import csv
import io
import math
import re
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from specreg._files import write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HERE = "specreg.report"
LONG = re.compile(r"-?\d+\.\d{3,}")
STYLES = ("style.css", "stacked.css")
# Most columns of values, and the room in pixels below which the rows of such a table become blocks; PRINTED of the room
# will do in print, where letters are smaller.
BREADTHS = {2: 480, 3: 600, 4: 700, 5: 820, 7: 1040}
PRINTED = 0.8


class Table(NamedTuple):
    """Data of a figure: names of the columns, and rows of numbers and words; None and NaN become empty cells."""

    header: Sequence[str]
    rows: Iterable[Sequence[object]]


class Download(NamedTuple):
    """One link to save something: its text, the name of the file, and the content as a data URI."""

    text: str
    name: str
    uri: str


class Plot(NamedTuple):
    """A figure of a page, for the macro `plot`."""

    alt: str  # for those who do not see it
    src: str  # data URI
    narrow: str | None  # data URI of the figure that phones show instead
    downloads: list[Download]


def plot(
    name: str,
    alt: str,
    figure: Figure,
    *,
    narrow: Figure | None = None,
    complete: Figure | None = None,
    table: Table | None = None,
) -> Plot:
    """Return a figure with links that save it as SVG, and its data as CSV where there is a `table`.

    Args:
        name: of the saved files, without an ending; it should say what they hold.
        alt: what the figure shows, in words.
        figure: what the page shows.
        narrow: what phones show: the same in small, so that its text can be read.
        complete: what is saved where that differs from what is shown, as where the page has the legend.
        table: the data in the figure.
    """
    src = svg_uri(figure)
    saved = downloads(name, src if complete is None else svg_uri(complete), table)
    return Plot(alt, src, None if narrow is None else svg_uri(narrow), saved)


def downloads(name: str, svg: str | None, table: Table | None) -> list[Download]:
    """Return links that save a figure, a data URI of SVG, and its data; `name` is that of the files."""
    found = [] if svg is None else [Download("SVG", f"{slug(name)}.svg", svg)]
    if table is not None:
        content = csv_text(table).encode("utf-8", errors="replace")
        found.append(Download("CSV", f"{slug(name)}.csv", data_uri("text/csv;charset=utf-8", content)))
    return found


def svg(figure: Figure) -> bytes:
    """Return the figure as SVG: text as outlines, no date, paths to a hundredth of a point."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    rounded = re.sub(r'(?<= d=")[^"]+', lambda path: LONG.sub(_hundredths, path[0]), buffer.getvalue())
    return rounded.encode("utf-8")


def svg_uri(figure: Figure) -> str:
    """Return the figure as a data URI of SVG."""
    return data_uri("image/svg+xml", svg(figure))


def csv_text(table: Table) -> str:
    """Return a table as CSV (RFC 4180, UTF-8 when written): numbers to full precision, lines ended by CR LF."""
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(table.header)
    for row in table.rows:
        writer.writerow([_cell(value) for value in row])
    return buffer.getvalue()


def data_uri(mime: str, content: bytes) -> str:
    """Return `content` as a data URI."""
    return f"data:{mime};base64,{b64encode(content).decode('ascii')}"


def slug(name: str) -> str:
    """Return `name` as a file name of letters, digits, dots and hyphens: "Dead leaves" is "dead-leaves"."""
    return re.sub(r"[^\w.]+", "-", name.lower()).strip("-.") or "figure"


def breadth(columns: int) -> str:
    """Return the class of a table with so many columns of values; it says in how much room each row becomes a block."""
    return next((f"fits-{most}" for most in BREADTHS if columns <= most), "fits-none")


def style() -> str:
    """Return the style sheet of a page, the stacked form of tables for each breadth included."""
    found = {name: resources.files(HERE).joinpath(name).read_text(encoding="utf-8") for name in STYLES}
    sheets = [found[STYLES[0]], f".fits-none {{\n{found[STYLES[1]]}}}"]
    for medium, share in (("screen", 1), ("print", PRINTED)):
        for most, room in BREADTHS.items():
            blocks = f".fits-{most} {{\n{found[STYLES[1]]}}}"
            sheets.append(f"@media {medium} {{ @container (max-width: {share * room:g}px) {{ {blocks} }} }}")
    return "\n".join([*sheets, ""])


def render(template: str, context: Mapping[str, Any], *, package: str = HERE) -> str:
    """Return the page that `template`, a file of `package`, makes of `context`; text in it is escaped.

    Templates see `base.html` and `parts.html` of this package, and the function `breadth`.
    """
    from jinja2 import ChoiceLoader, Environment, PackageLoader
    from markupsafe import Markup

    loaders = [PackageLoader(name, ".") for name in dict.fromkeys([package, HERE])]
    environment = Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, loader=ChoiceLoader(loaders), auto_reload=False
    )
    environment.globals |= {"style": Markup(style()), "breadth": breadth}
    return environment.get_template(template).render(context)


def write(path: Path, html: str) -> None:
    """Write a page, whole or not at all; file names that are no text become "?"."""
    write_text(path, html.encode("utf-8", errors="replace").decode("utf-8"))


def _hundredths(number: re.Match[str]) -> str:
    return f"{float(number[0]):.2f}".rstrip("0").rstrip(".")


def _cell(value: object) -> object:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return repr(float(value)) if isinstance(value, float) else value
