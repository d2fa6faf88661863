"""`specreg spectrum` as a user types it."""

import json

import numpy as np
import pytest
from PIL import Image, ImageFilter
from rich.cells import cell_len
from typer.testing import CliRunner

from specreg.cli.app import app


def spectrum(*arguments):
    return CliRunner().invoke(app, ["spectrum", *map(str, arguments)], env={"COLUMNS": "80"})


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Pictures, blurred pictures of the same names, and other pictures."""
    home = tmp_path_factory.mktemp("sets")
    generator = np.random.default_rng(0)
    for folder in ("real", "blurred", "other"):
        (home / folder).mkdir()
    for i in range(40):
        picture = Image.fromarray(generator.integers(0, 256, (16, 24, 3), dtype=np.uint8))
        picture.save(home / "real" / f"{i:02}.png")
        picture.filter(ImageFilter.GaussianBlur(0.5)).save(home / "blurred" / f"{i:02}.png")
        Image.fromarray(generator.integers(0, 256, (16, 24, 3), dtype=np.uint8)).save(home / "other" / f"{i:02}.png")
    return home


def test_sets_in_words_tables_and_files(folders, tmp_path):
    found = spectrum(
        folders / "real", folders / "blurred", folders / "other",
        "--json", tmp_path / "s.json", "--page", tmp_path / "s.html", "--figures", tmp_path / "figures",
    )  # fmt: skip
    assert found.exit_code == 0, found.output
    assert "blurred lacks" in found.output
    assert "other has as much energy above half Nyquist as the reference" in found.output
    assert max(cell_len(line) for line in found.output.splitlines() if "/" not in line) <= 80
    record = json.loads((tmp_path / "s.json").read_text())
    assert [record["reference"]["name"], *(s["name"] for s in record["sets"])] == ["real", "blurred", "other"]
    assert record["reference"]["shape"] == [3, 16, 24]
    page = (tmp_path / "s.html").read_text()
    assert "blurred lacks" in page
    assert "<script" not in page
    assert sorted(file.name for file in (tmp_path / "figures").iterdir()) == [
        "power.png", "power.svg", "ratio.png", "ratio.svg",
    ]  # fmt: skip


def test_conditions_decide_the_exit_code(folders):
    failed = spectrum(folders / "real", folders / "blurred", folders / "other", "--fail-if", "high_band_db < -3")
    assert failed.exit_code == 1
    assert "failed: blurred: high_band_db < -3" in failed.output
    assert spectrum(folders / "real", folders / "other", "--fail-if", "high_band_db < -3").exit_code == 0


def test_paired_sets_have_coherence(folders, tmp_path):
    found = spectrum(folders / "real", folders / "blurred", "--paired", "--json", tmp_path / "s.json")
    assert found.exit_code == 0
    assert "Coherence with the paired samples" in found.output
    agreement = json.loads((tmp_path / "s.json").read_text())["sets"][0]["agreement"]
    assert agreement[0]["coherence"]["value"] > 0.9


def test_the_mirror_transform_takes_no_window(folders, tmp_path):
    found = spectrum(folders / "real", "--transform", "dct", "--json", tmp_path / "s.json")
    assert found.exit_code == 0
    assert json.loads((tmp_path / "s.json").read_text())["settings"]["window"] == "none"


def test_a_name_with_markup_is_shown_as_it_stands(folders, tmp_path):
    odd = tmp_path / "[bold]$x_1<b>"
    odd.symlink_to(folders / "other")
    found = spectrum(folders / "real", odd, "--page", tmp_path / "s.html")
    assert found.exit_code == 0
    assert "[bold]$x_1<b>" in found.output
    assert "<b>" not in (tmp_path / "s.html").read_text().split("</style>")[1].replace("<br>", "")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--window", "hamming"], "window must be one of hann, tukey, none"),
        (["--transform", "dct", "--window", "hann"], "mirrors the data"),
        (["--fit", "0.4:0.1"], "--fit takes LOW:HIGH"),
        (["--fail-if", "nonsense"], "--fail-if takes NAME"),
        (["--channels", "red"], "channels must be one of"),
        (["--share", "2"], "share must be between 0 and 1"),
    ],
)
def test_bad_options_are_one_sentence(folders, options, said):
    found = CliRunner().invoke(app, ["spectrum", str(folders / "real"), str(folders / "other"), *options])
    assert isinstance(found.exception, ValueError)
    assert said in str(found.exception)


def test_values_whose_powers_overflow_are_refused_in_a_sentence(tmp_path, recwarn):
    values = np.random.default_rng(0).standard_normal((8, 1, 16, 16))
    for scale in (1e300, 1e61, 1e59, 1e38):
        np.save(tmp_path / "values.npy", scale * values)
        found = spectrum(tmp_path / "values.npy", tmp_path / "values.npy", "--paired", "--json", tmp_path / "s.json")
        if scale > 1e60:
            assert isinstance(found.exception, ValueError), found.output
            assert str(found.exception).startswith("values.npy: expected magnitudes up to 1e+60, whose powers can be ")
            assert not (tmp_path / "s.json").exists()
        else:
            assert found.exit_code == 0, found.output
            agreement = json.loads((tmp_path / "s.json").read_text())["sets"][0]["agreement"]
            assert agreement[0]["coherence"]["value"] == pytest.approx(1)
    assert not [warning for warning in recwarn if issubclass(warning.category, RuntimeWarning)]
