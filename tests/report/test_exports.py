"""What a page offers to save: SVG that stands alone, and CSV with the numbers of the figures."""

import csv
import io
import math
from xml.etree import ElementTree

import numpy as np
import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")

from report_folders import ERROR, FREQUENCY, LAMBDA, NASTY, POWER, TRUTH, Page, write_everything
from specreg.report import build_report, page


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Return what the page of a comparison offers to save, by file name."""
    return Page(build_report(write_everything(tmp_path_factory.mktemp("runs") / "all"))).saved()


def rows(content):
    return list(csv.DictReader(io.StringIO(content.decode(), newline="")))


def test_every_figure_has_its_svg_and_its_data(saved):
    figures = {"spectrum", "band-error", "base", "spectral", "lambda", "gradient-ratio", "denoising", "action"}
    tables = {"samples", "one-step-denoising-of-real-data"}
    names = {f"boards-{figure}.{kind}" for figure in figures for kind in ("svg", "csv")}
    assert set(saved) == names | {f"boards-{table}.csv" for table in tables}
    for name in names:
        if name.endswith(".svg"):
            assert ElementTree.fromstring(saved[name]).tag == "{http://www.w3.org/2000/svg}svg"


def test_spectra_hold_mean_ends_and_every_seed(saved):
    found = rows(saved["boards-spectrum.csv"])
    real = [row for row in found if row["name"] == "real boards"]
    assert [float(row["power of a coefficient"]) for row in real] == TRUTH
    assert [float(row["frequency, cycles/sample"]) for row in real] == FREQUENCY
    reg = [row for row in found if row["name"] == NASTY]
    for seed in (0, 1):
        assert [float(row[f"seed {seed}"]) for row in reg] == POWER["reg", seed]
    both = np.array([POWER["reg", 0], POWER["reg", 1]])
    for key, expected in (("power of a coefficient", both.mean(0)), ("low", both.min(0)), ("high", both.max(0))):
        np.testing.assert_allclose([float(row[key]) for row in reg], expected, rtol=1e-12)
    assert {(row["from low to high"], row["seeds"]) for row in reg} == {("lowest to highest seed", "2")}


def test_band_error_is_relative_to_the_truth(saved):
    row = next(r for r in rows(saved["boards-band-error.csv"]) if r["name"] == NASTY)
    assert float(row["seed 0"]) == pytest.approx(10 * math.log10(4.1 / 4.0))


def test_series_hold_what_was_logged(saved):
    found = [row for row in rows(saved["boards-lambda.csv"]) if (row["name"], row["seed"]) == (NASTY, "1")]
    assert [int(row["step"]) for row in found] == [10 * s for s in range(1, 13)]
    assert [float(row["λ in force"]) for row in found] == [LAMBDA["reg"](1, i) for i in range(12)]
    assert not [row for row in rows(saved["boards-lambda.csv"]) if row["name"] == "baseline"]  # it has no λ


def test_maps_hold_each_cell_with_its_spread(saved):
    found = rows(saved["boards-denoising.csv"])
    differences = [row for row in found if row["name"] == NASTY]
    assert len(differences) == 6
    row = next(r for r in differences if r["SNR, dB"] == "-20.0" and r["from frequency, cycles/sample"] == "0.25")
    each = [ERROR["reg", seed][2][1] - ERROR["none", seed][2][1] for seed in (0, 1)]
    numbers = [float(row[key]) for key in ("mean, dB", "lowest", "highest", "to frequency, cycles/sample")]
    assert numbers == [np.mean(each), min(each), max(each), 0.5]
    assert (row["seeds"], row["same sign in all seeds"]) == ("2", "1")


def test_measurements_hold_spread_interval_and_verdict(saved):
    found = rows(saved["boards-samples.csv"])
    reg = next(r for r in found if (r["name"], r["metric"]) == (NASTY, "log-spectral distance"))
    assert list(reg.values())[2:] == ["dB", "2.2", "0.1", "2", "", "", "-0.9", "-1.2", "-0.6", "better"]
    floor = next(r for r in found if r["verdict"] == "real against real")
    assert (floor["name"], floor["value"], floor["seeds"]) == ("real boards", "0.214", "")


def test_a_nan_is_an_empty_cell_and_numbers_keep_their_digits():
    text = page.csv_text(page.Table(["a", "b, c"], [[1 / 3, math.nan], [np.float64(0.1), 'say "no"'], [None, 2]]))
    assert text == 'a,"b, c"\r\n0.3333333333333333,\r\n0.1,"say ""no"""\r\n,2\r\n'


def test_paths_in_svg_are_rounded_and_nothing_else(tmp_path):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3, 2))
    figure.add_subplot().plot([0, 1, 2], [0, 1 / 3, 1])
    text = page.svg(figure).decode()
    assert len(text) < 20_000
    paths = [e.get("d") for e in ElementTree.fromstring(text).iter("{http://www.w3.org/2000/svg}path")]
    assert all(len(number.partition(".")[2]) <= 2 for path in paths for number in path.split() if "." in number)
    assert "scale(0.015625)" in text  # of letters, which would vanish


@pytest.mark.parametrize(
    ("name", "expected"),
    [("Dead leaves spectrum", "dead-leaves-spectrum"), ("../a/b", "a-b"), ("λ = 2", "λ-2"), ("///", "figure")],
)
def test_file_names_say_what_they_hold(name, expected):
    assert page.slug(name) == expected
