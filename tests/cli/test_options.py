"""What options mean: --loss as --arms, drawing few samples of runs that are scored, sets without held-out images."""

from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from specreg.cli.app import app
from specreg.cli.console import home, whole_number
from specreg.cli.train import with_options
from specreg.compare import resolve_arms
from specreg.config import ConfigError
from specreg.modalities import parse
from specreg.training.trainer import Trainer


@pytest.mark.parametrize("loss", ["amplitude@auto", "haar@auto:0.5", "amplitude_phase@1e-2", "amplitude+haar@0.3"])
def test_a_loss_is_named_as_an_arm(tiny, loss):
    config = tiny("spectral.noise_weight=constant")
    found = with_options(config, loss=loss, weighted=False)
    assert found.spectral == resolve_arms(config, [loss])[loss]
    assert found.name == f"tiny-{loss}".replace(":", "_")
    weighted = with_options(config, loss=loss, weighted=True).spectral
    assert weighted == found.spectral.model_copy(update={"noise_weight": "edm"})


@pytest.mark.parametrize(("loss", "words"), [
    ("haar@much", r"expected a number after @ \(or auto, or auto:RATIO\); got 'much'"),
    ("amplitud@auto", "did you mean 'amplitude'"),
    ("none@0.1", "the baseline has no λ to set"),
])  # fmt: skip
def test_other_names_of_losses_are_refused(tiny, loss, words):
    with pytest.raises(ConfigError, match=words):
        with_options(tiny(), loss=loss, weighted=False)


def test_one_image_is_drawn_of_a_run_that_is_scored_on_many(tiny, tmp_path):
    Trainer(tiny("metrics.kernel_distance=true", "training.steps=1"), tmp_path / "run").run()
    shown = CliRunner().invoke(app, ["sample", str(tmp_path / "run"), "--count", "1", "--out", str(tmp_path / "png")])
    assert shown.exit_code == 0, shown.output
    assert [path.name for path in (tmp_path / "png").glob("*.png")] == ["000000.png"]


@pytest.mark.parametrize("arguments", [
    ["evaluate", "RUN", "--json", "FOLDER"], ["evaluate", "RUN", "--json", "FILE/x.json"],
    ["evaluate", "RUN", "--work", "FILE"], ["evaluate", "RUN", "--cache", "FILE"],
    ["diagnose", "RUN", "--json", "FOLDER"], ["diagnose", "RUN", "--out", "FOLDER.html"],
    ["spectrum", "RUN", "--json", "FOLDER"], ["spectrum", "RUN", "--page", "FILE/x.html"],
    ["spectrum", "RUN", "--figures", "FILE"], ["sample", "RUN", "--out", "FILE"],
    ["train", "checkerboard", "--out", "FILE"], ["compare", "checkerboard", "--out", "FILE/runs"],
    ["demo", "--out", "FILE"], ["reproduce", "table1", "--out", "FILE"], ["report", "RUN", "--to", "FOLDER"],
], ids=" ".join)  # fmt: skip
def test_outputs_are_refused_before_any_work(arguments, tmp_path, monkeypatch):
    """RUN is not there, which would be the error of a command that looks at its outputs last."""
    monkeypatch.chdir(tmp_path)
    for name in ("FOLDER", "FOLDER.html"):
        (tmp_path / name).mkdir()
    (tmp_path / "FILE").write_text("mine")
    shown = CliRunner().invoke(app, arguments)
    *_, option, path = arguments
    if path.startswith("FOLDER"):
        expected = f"{option}: expected a file to write to; {path} is a folder"
    else:
        expected = f"{option}: expected a folder to write to; FILE is a file"
    assert isinstance(shown.exception, ValueError), shown.output
    assert str(shown.exception) == expected
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["FILE", "FOLDER", "FOLDER.html"]


def test_a_set_without_held_out_images_says_how_to_train_on_it(tmp_path):
    (tmp_path / "photos").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (48, 48, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photos" / "1.png")
    out = tmp_path / "crops.zip"
    shown = CliRunner().invoke(app, ["dataset", str(tmp_path / "photos"), str(out), "--resolution", "16"])
    assert shown.exit_code == 0, shown.output
    assert "no test images" in shown.output
    assert "Train on it without data.test_path" in shown.output
    assert "removed" not in shown.output

    missing = tmp_path / "crops-test.zip"
    config = parse({"data": {"kind": "images", "path": out, "test_path": missing, "resolution": 16}})
    from specreg.evaluation import load_truth

    with pytest.raises(
        FileNotFoundError, match=r"data\.test_path: no such file .*crops-test\.zip; without data\.test_path"
    ):
        load_truth(config)


def test_a_test_archive_that_is_removed_is_named(tmp_path):
    (tmp_path / "photos").mkdir()
    for i in range(12):
        pixels = np.random.default_rng(i).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{i}.png")
    build = ["dataset", str(tmp_path / "photos"), str(tmp_path / "crops.zip"), "--resolution", "16", "--test-fraction"]
    first = CliRunner().invoke(app, [*build, "0.5"])
    assert (tmp_path / "crops-test.zip").exists(), first.output
    shown = CliRunner().invoke(app, [*build, "0"])
    assert shown.exit_code == 0, shown.output
    assert f"removed {tmp_path / 'crops-test.zip'}: an earlier test archive" in shown.output
    assert not (tmp_path / "crops-test.zip").exists()


def test_options_expand_home_and_take_numbers_as_people_write_them(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert home(Path("~/runs")) == tmp_path / "runs"
    assert home(None) is None
    assert [whole_number(2)(text) for text in ("50000", "5e4", "50_000", "2")] == [50_000, 50_000, 50_000, 2]
    for text in ("1", "2.5", "many", "nan", "inf"):
        with pytest.raises(typer.BadParameter, match=f"expected a whole number of at least 2; got {text}"):
            whole_number(2)(text)
    shown = CliRunner().invoke(app, ["report", "nowhere", "--to=~/x.html"])
    assert isinstance(shown.exception, (ValueError, OSError))
    shown = CliRunner().invoke(app, ["sample", str(tmp_path), "--count", "0"])
    assert shown.exit_code == 2
    assert "expected a whole number of at least 1; got 0" in " ".join(shown.output.replace("│", " ").split())
