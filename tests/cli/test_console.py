"""Tables in few columns: rows stay distinct and values whole."""

import io

import pytest
from rich.console import Console

from specreg.cli import console
from specreg.reproduce import table2

ROWS = [[arm, *("1.234 ± 0.012\npaper 1.2" for _ in range(5)), "last"] for arm in table2.ARMS]
HEADER = ["arm", *table2.COLUMNS.values(), "end"]


def printed(monkeypatch, width, *args, **options):
    file = io.StringIO()
    monkeypatch.setattr(console, "out", Console(file=file, width=width, markup=False))
    console.print_table(*args, **options)
    lines = file.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    assert "…" not in file.getvalue()
    return lines


def cells(lines, column):
    return [line.split("│")[column + 1].strip() for line in lines if line.startswith("│")]


@pytest.mark.parametrize(("width", "tables"), [(200, 1), (80, 1), (50, 2)])
def test_columns_that_do_not_fit_follow_below_with_the_names(monkeypatch, width, tables):
    lines = printed(monkeypatch, width, "Table 2", HEADER, ROWS, lines=True)
    assert sum(line.startswith("┏") for line in lines) == tables
    names = "".join(cells(lines, 0))
    assert names == "".join(table2.ARMS) * tables
    text = " ".join(lines)
    assert all(label.split()[0] in text for label in HEADER)
    assert text.count("Table 2") == 1
    assert text.count("last") == len(ROWS)


@pytest.mark.parametrize("width", [24, 30])
def test_names_are_folded_and_never_cut_however_narrow(monkeypatch, width):
    lines = printed(monkeypatch, width, "T", ["arm", "FAD ↓"], [[arm, "1.234 ± 0.012"] for arm in table2.ARMS])
    assert "".join(cells(lines, 0)) == "".join(table2.ARMS)


def test_two_columns_of_names_are_both_repeated(monkeypatch):
    rows = [["edm-afhqv2-vp", arm, *["0.123 ± 0.001"] * 6] for arm in ("haar", "haar-weighted")]
    lines = printed(monkeypatch, 70, "Table 1", ["", "arm", *"abcdef"], rows, names=2)
    found = list(zip(cells(lines, 0), cells(lines, 1), strict=True))
    assert found.count(("edm-afhqv2-vp", "haar")) == found.count(("edm-afhqv2-vp", "haar-weighted")) > 1


def test_a_table_of_names_alone_is_printed(monkeypatch):
    assert cells(printed(monkeypatch, 40, "T", ["arm"], [["haar"]]), 0) == ["haar"]
