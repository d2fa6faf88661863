"""What notebooks show of the package's objects: the numbers, with their spread, escaped."""

from html.parser import HTMLParser

import pytest
import torch

from specreg import NoiseLevel, SpectralRegularizer, _html
from specreg.compare.comparison import Summary
from specreg.evaluation import Results
from specreg.metrics.spectra import MeanSpectrum, mean_spectrum
from specreg.spectral_term import SpectralTerm

NASTY = '<img src=x onerror=alert(1)> & "λ"'


class Rows(HTMLParser):
    """The rows of a table, and all tags."""

    def __init__(self, text):
        super().__init__()
        self.rows, self.tags, self.inside = [], [], False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self.inside = True

    def handle_endtag(self, tag):
        self.inside = self.inside and tag not in ("td", "th")

    def handle_data(self, data):
        if self.inside:
            self.rows[-1][-1] += data


def test_term_shows_means_and_their_spread_and_leaves_the_graph_alone():
    per_sample, weight = torch.tensor([1.0, 3.0], requires_grad=True), torch.tensor([0.5, 0.5])
    term = SpectralTerm(
        (per_sample * weight).mean(), per_sample, weight, {NASTY: torch.tensor([2.0, 2.0])}, torch.tensor(0.25), None
    )
    found = Rows(term._repr_html_())
    by_name = {row[0]: row[1:] for row in found.rows}
    assert by_name["loss to add"] == ["1", ""]
    assert by_name["λ"] == ["0.25", ""]
    assert by_name["spectral loss"] == ["2", f"{2**0.5:.4g}"]
    assert by_name[f"error in band {NASTY}"] == ["2", "0"]
    assert "img" not in found.tags
    term.loss.backward()
    assert per_sample.grad is not None


def test_a_regularizers_term_is_shown_and_measured_ratios_too():
    x = torch.randn(3, 1, 8, 8, requires_grad=True)
    term = SpectralRegularizer("amplitude", weight=0.1, by_band=True)(
        x, torch.zeros_like(x), NoiseLevel.edm(torch.ones(3))
    )
    names = [row[0] for row in Rows(term._repr_html_()).rows]
    assert len(names) == 1 + 4 + len(term.by_band)
    shown = Rows(term._replace(gradient_ratio=torch.tensor(float("nan")))._repr_html_()).rows
    assert ["gradient relative to the base loss's", "not finite", ""] in shown


def test_mean_spectrum_shows_octaves():
    spectrum = mean_spectrum(torch.randn(64, 1, 16, 16, generator=torch.Generator().manual_seed(0)))
    rows = Rows(spectrum._repr_html_()).rows[1:]
    assert [row[0] for row in rows] == [
        "0.03125 … 0.0625",
        "0.0625 … 0.125",
        "0.125 … 0.25",
        "0.25 … 0.5",
        "0.5 … 0.6875",
    ]
    assert all(abs(float(row[1])) < 0.6 for row in rows)  # white noise of variance 1: 0 dB
    assert sum(int(row[2]) for row in rows) == 16 * 16 - 1  # all but the zero frequency
    empty = MeanSpectrum(spectrum.frequency, torch.zeros_like(spectrum.power), spectrum.size)
    assert {row[1] for row in Rows(empty._repr_html_()).rows[1:]} == {"−∞"}


def test_results_show_their_metrics_and_that_they_are_one_run():
    info = {"label": NASTY, "unit": "dB", "digits": 1}
    results = Results(
        arm="none", seed=3, step=10, samples=4, metrics={"a": 1.25, "b": None}, described={"a": info, "b": info}
    )
    text = results._repr_html_()
    assert Rows(text).rows[1:] == [[NASTY, "1.2 dB"], [NASTY, "– dB"]]
    assert "none, seed 3, step 10: 4 samples" in text
    assert "no spread over seeds is known" in text
    assert "img" not in Rows(text).tags


def test_summary_shows_spread_difference_and_verdict():
    change = {"mean": -0.9, "low": -1.2, "high": -0.6}
    summary = Summary(
        title=NASTY,
        arms=[{"name": "none", "label": "baseline"}, {"name": "reg", "label": NASTY}],
        metrics={"db": {"label": "distance", "unit": "dB", "digits": 1}},
        table=[
            {"arm": "none", "metric": "db", "mean": 3.14, "std": None, "n": 1, "difference": None},
            {"arm": "reg", "metric": "db", "mean": 2.2, "std": 0.1, "n": 2, "difference": change, "verdict": "better"},
        ],
    )
    found = Rows(summary._repr_html_())
    assert found.rows[1:] == [
        ["distance", "baseline", "3.1 dB (one seed)", "", ""],
        ["distance", NASTY, "2.2 ± 0.1 dB", "-0.9 [-1.2 … -0.6]", "better"],
    ]
    assert "img" not in found.tags


@pytest.mark.parametrize(
    ("value", "digits", "text"), [(None, 2, "–"), (float("inf"), None, "not finite"), (1 / 3, None, "0.3333")]
)
def test_numbers(value, digits, text):
    assert _html.number(value, digits) == text
