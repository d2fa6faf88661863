"""`specreg diagnose` as a user types it: on a run, on checkpoints and on a pipeline."""

import json
import re

import diffusers
import numpy as np
import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner

from specreg import evaluation
from specreg.cli.app import app
from specreg.config import ConfigError
from specreg.denoising import denoising_map
from specreg.diagnosis.subjects import open_subject
from specreg.models import pretrained
from specreg.models.network_config import NetworkConfig
from specreg.training.term import build_objective
from specreg.training.trainer import Trainer


def diagnose(*arguments):
    return CliRunner().invoke(app, ["diagnose", *map(str, arguments)], env={"COLUMNS": "80"})


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny):
    folder = tmp_path_factory.mktemp("runs") / "run"
    Trainer(tiny("spectral.name=haar", "spectral.weight=0.3"), folder, console=Console(quiet=True)).run()
    return folder


def pixels(path, *shape):
    np.save(path, np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))
    return path


def test_a_run_is_described_in_words_a_table_a_file_and_a_page(run, tmp_path):
    files = tmp_path / "found.json", tmp_path / "found.html"
    shown = diagnose(run, "--count", 16, "--levels", 3, "--json", files[0], "--out", files[1])
    assert shown.exit_code == 0, shown.output
    found = json.loads(files[0].read_text())
    assert found["samples"] == 16
    words, table = shown.output.split("\n\n")
    assert " ".join(found["words"][0].split()) in " ".join(words.split())
    lines = [line for line in table.splitlines() if not line.startswith(("numbers:", "page:"))]
    assert max(map(len, lines)) <= 80
    assert [line.split()[0] for line in lines[-3:]] == [f"{snr:+.1f}" for snr in found["snr_db"]]
    assert found["pull"]["loss"] == "haar"
    assert np.sum(found["pull"]["share"], 1) == pytest.approx(1)
    page = files[1].read_text()
    assert found["words"][0].replace("'", "&#39;") in page
    assert "<script" not in page
    assert not re.findall(r'(?:src|href)="(?!#|data:)', page)


def test_the_numbers_are_those_of_the_denoising_map(run):
    subject = open_subject(run, None, count=16)
    trained = evaluation.load_trained(run)
    expected = denoising_map(build_objective(trained.config), trained.network, subject.real.x0, levels=3, bands=4)
    found = subject.powers(levels=3, bands=4, seed=0, batch_size=5).mean()
    torch.testing.assert_close(found.gain, expected.gain, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found.pull, expected.pull, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize(("suffix", "preconditioning"), [(".safetensors", "edm"), (".pt", "vp")])
def test_an_edm_checkpoint_is_a_subject(tmp_path, suffix, preconditioning):
    options = {"img_resolution": 8, "img_channels": 3, "model_channels": 8, "channel_mult": [1], "label_dim": 0}
    config = NetworkConfig("songunet", preconditioning, options)
    pretrained.save(tmp_path / f"net{suffix}", config.build(), config=config)
    data = pixels(tmp_path / "data.npy", 10, 8, 8, 3)
    shown = diagnose(tmp_path / f"net{suffix}", "--data", data, "--levels", 2, "--loss", "haar")
    assert shown.exit_code == 0, shown.output
    assert "The term (haar)" in shown.output
    subject = open_subject(tmp_path / f"net{suffix}", data, count=10)
    x_t, sigma = torch.randn(2, 3, 8, 8), torch.full((2,), 0.7)
    expected = config.build().eval()(x_t, sigma)
    torch.testing.assert_close(subject.objective.predict_x0(subject.network, x_t, sigma), expected)


def test_a_vocoder_has_its_frequencies_in_khz_and_one_crop_of_each_clip(tmp_path, save_tiny_sound):
    import soundfile

    net, clips = save_tiny_sound(tmp_path)
    for k in range(4, 9):
        soundfile.write(clips / f"{k}.wav", 0.1 * np.random.default_rng(k).standard_normal(6000), 8000)
    shown = diagnose(net, "--data", clips, "--levels", 2, "--bands", 4, "--json", tmp_path / "found.json")
    assert shown.exit_code == 0, shown.output
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["samples"] == 9
    assert (found["frequency_unit"], found["edges"]) == ("kHz", [0, 1, 2, 3, 4])


def test_a_pipeline_is_a_subject(tmp_path):
    unet = diffusers.UNet2DModel(
        sample_size=8, in_channels=3, out_channels=3, block_out_channels=(8,), layers_per_block=1, norm_num_groups=4,
        down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",),
    )  # fmt: skip
    diffusers.DDPMPipeline(unet=unet, scheduler=diffusers.DDPMScheduler()).save_pretrained(tmp_path / "pipeline")
    data = pixels(tmp_path / "data.npy", 10, 8, 8, 3)
    shown = diagnose(tmp_path / "pipeline", "--data", data, "--levels", 2, "--out", tmp_path / "map.svg")
    assert shown.exit_code == 0, shown.output
    assert (tmp_path / "map.svg").read_text().startswith("<svg")


def test_what_cannot_be_opened_is_said_in_a_sentence(tmp_path, run):
    data = pixels(tmp_path / "data.npy", 10, 8, 8, 3)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="nothing: expected a run folder, a checkpoint or a pipeline folder"):
        open_subject(tmp_path / "nothing", data, count=8)
    with pytest.raises(FileNotFoundError, match=r"config.yaml or a pipeline with model_index.json; it has neither"):
        open_subject(tmp_path / "empty", data, count=8)
    (tmp_path / "net.pt").touch()
    with pytest.raises(ConfigError, match=r"--data: expected real data to denoise, since .*net.pt is no run folder"):
        open_subject(tmp_path / "net.pt", None, count=8)
    with pytest.raises(ValueError, match="expected 16×16 pixels"):
        open_subject(run, data, count=8)
    shown = diagnose(run, "--out", "page.pdf")
    assert isinstance(shown.exception, ValueError)
    assert "--out: expected a .html, .svg or .png file; got page.pdf" in str(shown.exception)
