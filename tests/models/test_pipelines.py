"""Pipelines of diffusers that a run starts from and is saved as, by the command."""

import json
import shutil

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from specreg import diffusion, modalities
from specreg.cli.app import app
from specreg.models import pipelines

diffusers = pytest.importorskip("diffusers")


def unet(**changes):
    options = {
        "sample_size": 8, "in_channels": 1, "out_channels": 1, "block_out_channels": (8, 8), "layers_per_block": 1,
        "norm_num_groups": 4, "down_block_types": ("DownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "UpBlock2D"),
    }  # fmt: skip
    return diffusers.UNet2DModel(**options | changes)


def pipeline(folder, scheduler, **changes):
    torch.manual_seed(0)
    diffusers.DDPMPipeline(unet=unet(**changes), scheduler=scheduler).save_pretrained(folder)
    return folder


def command(*words):
    """Run `specreg` with these words."""
    shown = CliRunner().invoke(app, [str(word) for word in words])
    assert shown.exit_code == 0, (shown.output, shown.exception)


def refused(*words):
    """Return what `specreg` says against these words; the exceptions are those that are exit code 2."""
    shown = CliRunner().invoke(app, [str(word) for word in words])
    assert isinstance(shown.exception, ValueError | OSError), shown.exception
    return str(shown.exception)


SHORT = ("training.steps=2", "training.batch_size=2", "sampling.count=2", "sampling.steps=2", "training.log_every=1")


@pytest.fixture
def images(tmp_path):
    np.save(tmp_path / "images.npy", np.random.default_rng(0).integers(0, 256, (8, 8, 8, 1), dtype=np.uint8))
    return tmp_path / "images.npy"


def test_a_pipeline_is_fine_tuned_and_the_run_is_a_pipeline_again(tmp_path, images):
    own = {"beta_schedule": "scaled_linear", "beta_start": 0.002, "beta_end": 0.03, "num_train_timesteps": 200,
           "prediction_type": "v_prediction", "clip_sample_range": 1.5}  # fmt: skip
    folder = pipeline(tmp_path / "pipeline", diffusers.DDPMScheduler(**own))
    command("train", *SHORT, "--model", folder, "--data", images, "--out", tmp_path / "runs")
    run = tmp_path / "runs" / "finetuned"
    config = modalities.load(run / "config.yaml")
    assert (config.prediction, config.diffusion.timesteps, config.data.resolution) == ("v", 200, 8)

    shutil.rmtree(folder)  # the run holds all that the new pipeline needs
    command("convert", run, tmp_path / "new")
    loaded = diffusers.DDPMPipeline.from_pretrained(tmp_path / "new")
    assert own.items() <= dict(loaded.scheduler.config).items()
    assert not list(tmp_path.glob(".*"))
    from specreg import evaluation

    trained = evaluation.load_trained(run)
    x, t = torch.randn(2, 1, 8, 8), torch.tensor([3, 150])
    with torch.no_grad():
        torch.testing.assert_close(loaded.unet(x, t).sample, trained.network(x, t))
    images = loaded(batch_size=1, num_inference_steps=2, output_type="np").images
    assert images.shape == (1, 8, 8, 1)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"diffusion.prediction": "epsilon"}, "its network predicts v under ddpm"),
        ({"diffusion.betas": "[0.002, 0.02]"}, "its scheduler's ᾱ falls over 200 timesteps"),
        ({"diffusion.timesteps": "100"}, "got 100 to"),
        ({"diffusion.schedule": "cosine", "diffusion.betas": "null"}, "diffusion.betas=[0.002, 0.03]"),
    ],
)
def test_runs_that_contradict_the_pipeline_are_refused(changes, said, tmp_path, images):
    own = {"beta_schedule": "linear", "beta_start": 0.002, "beta_end": 0.03, "num_train_timesteps": 200}
    folder = pipeline(tmp_path / "p", diffusers.DDPMScheduler(**own, prediction_type="v_prediction"))
    words = [f"{key}={value}" for key, value in changes.items()]
    assert said in refused("train", *SHORT, *words, "--model", folder, "--data", images, "--out", tmp_path / "runs")


def test_schedulers_and_networks_that_cannot_be_trained_are_refused(tmp_path, images):
    cases = [
        (diffusers.EulerDiscreteScheduler(), {}, "got EulerDiscreteScheduler, ve"),
        (diffusers.DDPMScheduler(beta_schedule="sigmoid"), {}, "beta_schedule: expected linear"),
        (diffusers.DDPMScheduler(rescale_betas_zero_snr=True), {}, "ᾱ falls over 1000"),
        (diffusers.DDPMScheduler(), {"num_class_embeds": 3}, "told classes"),
        (diffusers.DDPMScheduler(), {"out_channels": 2}, "returns 2 channels for 1"),
    ]
    for i, (scheduler, changes, said) in enumerate(cases):
        folder = pipeline(tmp_path / str(i) / "pipeline", scheduler, **changes)
        assert said in refused("train", *SHORT, "--model", folder, "--data", images, "--out", tmp_path / str(i))


@pytest.mark.parametrize("schedule", pipelines.SCHEDULES)
def test_schedules_are_those_of_diffusers(schedule):
    theirs = diffusers.DDPMScheduler(beta_schedule=schedule, beta_start=0.001, beta_end=0.01).alphas_cumprod
    ours = diffusion.alphas_cumprod(pipelines.SCHEDULES[schedule], beta_start=0.001, beta_end=0.01)
    torch.testing.assert_close(ours.float(), theirs, rtol=1e-4, atol=1e-6)


def test_new_networks_of_this_kind_are_pipelines_too(tmp_path, images):
    words = ("model.kind=unet2d", "model.patch_size=1", "data.resolution=8", "model.width=8", "model.attention=[]")
    words += ("model.multipliers=[1,1]", "diffusion.prediction=epsilon")
    command("train", "textures", *SHORT, *words, "--data", images, "--out", tmp_path)
    command("convert", tmp_path / "textures", tmp_path / "new.v1")
    scheduler = diffusers.DDPMPipeline.from_pretrained(tmp_path / "new.v1").scheduler
    assert (scheduler.config.beta_schedule, scheduler.config.prediction_type) == ("squaredcos_cap_v2", "epsilon")
    assert "expected the name of a folder" in refused("convert", tmp_path / "textures", tmp_path / "new.safetensors")
    assert "expected a new or an empty folder" in refused("convert", tmp_path / "textures", tmp_path / "new.v1")


def test_without_a_recipe_a_run_needs_a_folder(tmp_path):
    assert "got nothing" in refused("train", "training.steps=2")
    assert "expected a diffusers folder" in refused("train", "training.steps=2", "--model", tmp_path / "missing")
    (tmp_path / "scheduler").mkdir()
    (tmp_path / "config.json").write_text(json.dumps({"_class_name": "UNet2DModel"}))
    (tmp_path / "scheduler" / "scheduler_config.json").write_text(json.dumps({"_class_name": "UNet2DModel"}))
    assert "under _class_name; got 'UNet2DModel'" in refused("train", "--model", tmp_path)
