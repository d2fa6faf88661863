"""`specreg sample`: its folder is scored and measured as any set, and is never mixed with anything else."""

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from specreg.cli.app import app
from specreg.config import yaml_text
from specreg.modalities import parse
from specreg.recipes import RECIPES
from specreg.training.trainer import Trainer


def specreg(*arguments):
    return CliRunner().invoke(app, [*map(str, arguments)], env={"COLUMNS": "400"})


def sampled(run, out, *options):
    shown = specreg("sample", run, "--out", out, *options)
    assert shown.exit_code == 0, shown.output
    return out


def content(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny):
    folder = tmp_path_factory.mktemp("runs") / "run"
    Trainer(tiny("training.steps=1", "sampling.count=8"), folder, console=Console(quiet=True)).run()
    return folder


@pytest.fixture(scope="module")
def vocoder(tmp_path_factory, save_tiny_sound):
    root = tmp_path_factory.mktemp("sound")
    net, clips = save_tiny_sound(root)
    options = [
        f"model.checkpoint={net}", f"data.path={clips}", "data.held_out=['0', '1', '2']", "training.steps=1",
        "training.batch_size=1",
    ]  # fmt: skip
    Trainer(parse(RECIPES["diffwave"](), options), root / "run", console=Console(quiet=True)).run()
    return root


@pytest.mark.parametrize("note", ["sampled-from.yaml", "config.yaml"])  # config.yaml: of earlier versions
def test_images_are_drawn_then_scored_then_measured(run, tmp_path, note):
    samples = sampled(run, tmp_path / "samples", "--count", 8)
    (samples / "sampled-from.yaml").rename(samples / note)
    (tmp_path / "real").mkdir()
    for i, pixels in enumerate(np.random.default_rng(0).integers(0, 256, (8, 16, 16), dtype=np.uint8)):
        Image.fromarray(pixels).save(tmp_path / "real" / f"{i}.png")
    options = ["--metrics", "contrast_db", "--draws", 20, "--cache", tmp_path / "cache"]
    shown = specreg("evaluate", samples, "--reference", tmp_path / "real", *options)
    assert shown.exit_code == 0, shown.output
    assert "8 images against 8" in shown.output
    shown = specreg("spectrum", tmp_path / "real", samples)
    assert shown.exit_code == 0, shown.output
    assert "samples" in shown.output


def test_clips_are_drawn_then_scored_then_measured(vocoder, tmp_path):
    samples = sampled(vocoder / "run", tmp_path / "wavs", "--count", 3)
    assert sorted(path.name for path in samples.iterdir()) == ["0.wav", "1.wav", "2.wav", "sampled-from.yaml"]
    shown = specreg("evaluate", samples, "--reference", vocoder / "clips", "--metrics", "ndb", "--draws", 20)
    assert shown.exit_code == 0, shown.output
    assert "3 clips against 4" in shown.output
    shown = specreg("spectrum", vocoder / "clips", samples)
    assert shown.exit_code == 0, shown.output
    assert "wavs" in shown.output


def test_the_note_says_what_samples_were_drawn_from(run, tmp_path):
    samples = sampled(run, tmp_path / "samples", "--count", 2, "--seed", 5)
    note = yaml_text.load((samples / "sampled-from.yaml").read_text())
    assert (note["run"], note["step"]) == (str(run), 1)
    assert note["config"]["sampling"]["seed"] == 5
    assert parse(note["config"]).sampling.count == 2


def test_the_same_command_again_draws_the_same_and_others_are_refused(run, tmp_path, tiny):
    samples = sampled(run, tmp_path / "samples", "--count", 2)
    before = content(samples)
    (samples / "000001.png").unlink()  # as if interrupted
    sampled(run, samples, "--count", 2)
    assert content(samples) == before
    sampled(run, samples, "--count", 3)
    assert (samples / "000002.png").exists()
    sampled(run, samples, "--count", 3)
    before = content(samples)

    Trainer(tiny("training.steps=1", "seed=1"), tmp_path / "other", console=Console(quiet=True)).run()
    for arguments, words in (
        ([run, "--count", 1], f"{samples} holds samples with sampling.count = 3, not 1"),
        ([run, "--count", 3, "--seed", 1], f"{samples} holds samples with sampling.seed = 0, not 1"),
        ([run, "--count", 3, "--eta", 0.5], f"{samples} holds samples with sampling.eta = 0.0, not 0.5"),
        ([tmp_path / "other", "--count", 3], f"{samples} holds samples of {run} at step 1"),
    ):
        shown = specreg("sample", *arguments, "--out", samples)
        assert isinstance(shown.exception, ValueError), shown.output
        assert str(shown.exception).startswith("--out: expected an empty folder, or no more samples of the same")
        assert words in str(shown.exception)
        assert content(samples) == before


def test_folders_of_anything_else_are_left_as_they_are(run, tmp_path):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "000000.png").write_bytes(b"mine")
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "sampled-from.yaml").write_text("config: [")
    before = content(tmp_path), content(run)
    for out, words in (
        (run, f"--out: expected a folder for samples alone; {run} is a run's folder"),
        (run / "checkpoints", "holds files without a sampled-from.yaml, such as step-00000001"),
        (tmp_path / "pictures", "holds files without a sampled-from.yaml, such as 000000.png"),
        (tmp_path / "damaged", "holds files without a sampled-from.yaml"),
    ):
        shown = specreg("sample", run, "--count", 1, "--out", out)
        assert isinstance(shown.exception, ValueError), shown.output
        assert words in str(shown.exception)
        assert (content(tmp_path), content(run)) == before
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / ".DS_Store").touch()
    sampled(run, tmp_path / "empty", "--count", 1)
