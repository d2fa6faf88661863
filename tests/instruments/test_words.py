import math

import pytest
import torch

from random_fields import filtered, gaussian_fields, power_law
from specreg.instruments import Settings, conditions, sentences, spectra
from specreg.instruments.artefacts import Artefact
from specreg.instruments.page import shown
from specreg.instruments.sums import Value
from specreg.instruments.words import artefact, energy

FEW = Settings("none", replicates=200)


def db(share):
    return 10 * math.log10(share)


@pytest.mark.parametrize(
    ("ratio", "said"),
    [
        (Value(db(0.69), db(0.65), db(0.73)), "B lacks 31% (27 … 35%) of the energy here."),
        (Value(db(1.2), db(1.1), db(1.3)), "B has 20% (10 … 30%) more energy here than the reference."),
        (Value(db(8.0), db(7.0), db(9.0)), "B has 8.0 (7.0 … 9.0) times the reference's energy here."),
        (Value(db(1.01), db(0.999), db(1.03)), "B has as much energy here as the reference, within +0% … +3%."),
        (
            Value(db(0.5), math.nan, math.nan),
            "B has 50% less energy here than the reference; too few samples for an interval.",
        ),
    ],
)  # fmt: skip
def test_energy_in_words(ratio, said):
    assert energy("B", ratio, "here") == said


def test_a_peak_in_words():
    said = artefact("B", Artefact((-0.25, 0.5), 4, 12.34, 5.0))
    assert said == (
        "B has a grid of period 4: a peak at (−0.25, +0.5) cycles per sample, 5.0 dB above its neighbourhood, z = 12.3."
    )


def test_numbers_as_text():
    assert shown(Value(-0.04, -0.5, 0.44), "{:+.1f}") == ("+0.0", "−0.5…+0.4")
    assert shown(Value(2.0, math.nan, math.nan), "{:.1f}") == ("2.0", "")
    assert shown(None, "{:.1f}") == ("", "")


def test_a_set_in_words_and_as_json():
    x, y = (gaussian_fields(300, (32, 32), power_law(-2.0), seed=s) for s in (0, 1))
    blurred = filtered(y, lambda f: (f < 0.2) * 1.0 + (f >= 0.2) * 0.5)
    result = spectra(x, blurred, x, settings=FEW, names=["real", "blurred", "same"])
    said = sentences(result.sets[0], result)
    assert said[0].startswith("blurred lacks 75%")
    assert any("resolves waves of" in sentence for sentence in said)
    same = sentences(result.sets[1], result)
    assert "as much energy" in same[0]
    assert same[1] == "No single one of 8 bands differs significantly."
    record = result.record()
    assert record["schema"] == 1
    assert {"name", "samples", "frequency", "power", "slope"} <= set(record["reference"])
    found = record["sets"][0]
    assert set(found["log_spectral_distance_db"]) == {"value", "low", "high", "uncorrected"}
    assert set(found["bands"][0]) == {"low", "high", "ratio_db", "significant"}
    assert found["effective_resolution"]["share"] == 0.5
    assert record["sets"][1]["effective_resolution"] is None
    assert len(found["frequency"]) == len(found["power"]) == len(found["power_low"])
    assert "blurred lacks 75%" in result._repr_html_()


def test_names_of_one_file_differ():
    x = torch.randn(8, 1, 16, 16)
    assert [found.spectrum.name for found in spectra(x, x, x, settings=FEW).sets] == ["samples (2)", "samples (3)"]


def test_sets_of_other_samples_are_refused_before_they_are_read(monkeypatch):
    monkeypatch.setattr("specreg.instruments.sets.measure", lambda *_, **__: pytest.fail("measured"))
    with pytest.raises(ValueError, match=r"'b' and 'a' have \[8, 8\] and \[16, 16\]; --tile"):
        spectra(torch.randn(8, 1, 16, 16), torch.randn(8, 1, 8, 8), settings=FEW, names=["a", "b"])


@pytest.mark.parametrize(
    ("text", "met"),
    [("high_band_db < -3", True), ("high_band_db.high < -3", True), ("high_band_db > −3", False),
     ("effective_resolution >= 0.1", True), ("effective_resolution >= 0.4", False), ("artefact_z > 5", False),
     ("log_spectral_distance_db.low > 2", True), ("slope_difference < 0", True)],
)  # fmt: skip
def test_conditions(text, met):
    x, y = (gaussian_fields(100, (32, 32), power_law(-2.0), seed=s) for s in (0, 1))
    result = spectra(x, filtered(y, lambda f: 1.0 * (f < 0.2) + 0.3 * (f >= 0.2)), settings=FEW)
    assert conditions.parse(text).met(result.sets[0]) is met


@pytest.mark.parametrize(
    ("text", "said"),
    [("high_band_db", "NAME < NUMBER"), ("high_band_db < few", "NAME < NUMBER"),
     ("high_bnd_db < 1", "did you mean 'high_band_db'"), ("high_band_db == 1", "NAME < NUMBER"),
     ("slope < nan", "NAME < NUMBER")],
)  # fmt: skip
def test_bad_conditions_are_refused(text, said):
    with pytest.raises(ValueError, match=said):
        conditions.parse(text)


def test_conditions_on_what_was_not_measured():
    result = spectra(torch.randn(3, 1, 16, 16), torch.randn(3, 1, 16, 16), settings=FEW)
    with pytest.raises(ValueError, match="not measured"):
        conditions.parse("least_coherence < 1").met(result.sets[0])
    with pytest.raises(ValueError, match="too few samples"):
        conditions.parse("high_band_db.low < 1").met(result.sets[0])
    record = result.record()["sets"][0]
    assert set(record["power_low"]) == set(record["power_high"]) == {record["high_band_db"]["low"]} == {None}
