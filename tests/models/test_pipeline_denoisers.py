"""Tiny pipelines that diffusers saves, against what its own schedulers make of the network's output."""

import json

import diffusers
import numpy as np
import pytest
import torch

from specreg.diagnosis.subjects import open_subject
from specreg.models.pipeline_denoisers import read_pipeline

SIDE = 8
SCHEDULER = "scheduler/scheduler_config.json"


def unet(channels=3, out_channels=None, **options):
    torch.manual_seed(0)
    return diffusers.UNet2DModel(
        sample_size=SIDE, in_channels=channels, out_channels=out_channels or channels, block_out_channels=(8,),
        layers_per_block=1, down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",), norm_num_groups=4,
        **options,
    )  # fmt: skip


def vqvae():
    torch.manual_seed(1)
    return diffusers.VQModel(
        in_channels=3, out_channels=3, block_out_channels=(8, 8), layers_per_block=1, latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2, norm_num_groups=4,
        scaling_factor=0.3,
    )  # fmt: skip


def saved(folder, scheduler, **options):
    diffusers.DDPMPipeline(unet=unet(**options), scheduler=scheduler).save_pretrained(folder)
    return folder


@pytest.fixture
def images(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (12, SIDE, SIDE, 3), dtype=np.uint8)
    np.save(tmp_path / "images.npy", pixels)
    return tmp_path / "images.npy"


def ours(subject, x0, noise, t):
    objective = subject.objective
    x_t = objective.level(t).diffuse(x0, noise)
    with torch.no_grad():
        return objective.predict_x0(subject.network, x_t, t)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("kind", ["DDPMScheduler", "DDIMScheduler", "EulerDiscreteScheduler"])
def test_x0_hat_is_that_of_the_scheduler(tmp_path, images, kind, prediction):
    options = {} if kind.startswith("Euler") else {"clip_sample": False}
    scheduler = getattr(diffusers, kind)(prediction_type=prediction, **options)
    folder = saved(tmp_path / "pipeline", scheduler)
    subject = open_subject(folder, images, count=8)
    if kind.startswith("Euler") and prediction == "sample":
        pytest.skip("diffusers' Euler does not take it")
    scheduler.set_timesteps(10)
    t = scheduler.timesteps[4:5]
    x0, noise = torch.randn(2, 3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(2))
    noisy = scheduler.add_noise(x0, noise, t.expand(3))
    with torch.no_grad():
        output = unet()(scheduler.scale_model_input(noisy, t[0]), t.expand(3)).sample
    expected = scheduler.step(output, t[0], noisy).pred_original_sample
    torch.testing.assert_close(ours(subject, x0, noise, t.long().expand(3)), expected, rtol=1e-4, atol=1e-4)


def test_a_learned_variance_is_left_out(tmp_path, images):
    scheduler = diffusers.DDPMScheduler(variance_type="learned_range", clip_sample=False)
    subject = open_subject(saved(tmp_path / "pipeline", scheduler, out_channels=6), images, count=8)
    t = torch.tensor([500])
    x0, noise = torch.randn(2, 3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(2))
    noisy = scheduler.add_noise(x0, noise, t.expand(3))
    with torch.no_grad():
        output = unet(out_channels=6)(noisy, t.expand(3)).sample
    expected = scheduler.step(output, t[0], noisy).pred_original_sample
    torch.testing.assert_close(ours(subject, x0, noise, t.expand(3)), expected, rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="expected a network that returns its 3 channels; it returns 4"):
        read_pipeline(saved(tmp_path / "four", scheduler, out_channels=4))


def test_flow_matching_is_told_its_own_time(tmp_path, images):
    subject = open_subject(saved(tmp_path / "flow", diffusers.FlowMatchEulerDiscreteScheduler()), images, count=8)
    x0, noise = torch.randn(2, 3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(2))
    x_t = 0.7 * x0 + 0.3 * noise
    with torch.no_grad():
        expected = x_t - 0.3 * unet()(x_t, torch.full((3,), 300.0)).sample
    torch.testing.assert_close(ours(subject, x0, noise, torch.full((3,), 0.3)), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_edm_is_preconditioned_as_its_scheduler_does(tmp_path, images, prediction):
    scheduler = diffusers.EDMEulerScheduler(prediction_type=prediction)
    subject = open_subject(saved(tmp_path / "edm", scheduler), images, count=8)
    scheduler.set_timesteps(10)
    t, sigma = scheduler.timesteps[4], scheduler.sigmas[4]
    x0, noise = torch.randn(2, 3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(2))
    noisy = x0 + sigma * noise
    with torch.no_grad():
        output = unet()(scheduler.scale_model_input(noisy, t), t).sample
    expected = scheduler.step(output, t, noisy).pred_original_sample
    torch.testing.assert_close(ours(subject, x0, noise, sigma.expand(3)), expected, rtol=1e-4, atol=1e-4)


def test_latents_are_those_of_the_folder_s_encoder(tmp_path, images):
    pixels = np.random.default_rng(0).integers(0, 256, (9, 2 * SIDE, 2 * SIDE, 3), dtype=np.uint8)
    np.save(tmp_path / "large.npy", pixels)
    vq, scheduler = vqvae(), diffusers.DDIMScheduler()
    diffusers.LDMPipeline(vqvae=vq, unet=unet(4), scheduler=scheduler).save_pretrained(tmp_path / "ldm")
    subject = open_subject(tmp_path / "ldm", tmp_path / "large.npy", count=9)
    x = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.no_grad():
        expected = 0.3 * vq.encode(x).latents
    torch.testing.assert_close(subject.real.x0, expected, rtol=1e-4, atol=1e-5)
    assert subject.real.unit == "cycles per latent pixel"
    with pytest.raises(ValueError, match=r"expected data of shape \[4, 8, 8\] for the network .*; got \[4, 4, 4\]"):
        open_subject(tmp_path / "ldm", images, count=9)


def test_a_latent_network_without_an_encoder_says_that_it_needs_latents(tmp_path, images):
    folder = saved(tmp_path / "latent", diffusers.DDPMScheduler(), channels=4)
    with pytest.raises(ValueError, match=r"takes 4 channels and there is no vae folder .*latents \[N, 4, H, W\]"):
        open_subject(folder, images, count=8)
    latents = torch.randn(9, 4, SIDE, SIDE)
    np.save(tmp_path / "latents.npy", latents.numpy())
    subject = open_subject(folder, tmp_path / "latents.npy", count=9)
    assert torch.equal(subject.real.x0, latents)


def test_classes_are_told(tmp_path):
    folder = saved(tmp_path / "classes", diffusers.DDPMScheduler(), num_class_embeds=3)
    pixels = np.zeros((9, SIDE, SIDE, 3), dtype=np.uint8)
    np.savez(tmp_path / "labelled.npz", images=pixels, labels=np.arange(9) % 3)
    subject = open_subject(folder, tmp_path / "labelled.npz", count=9)
    assert subject.real.condition["labels"].tolist() == [0, 1, 2] * 3
    subject.powers(levels=1, bands=2, seed=0, batch_size=4)
    np.savez(tmp_path / "unlabelled.npz", images=pixels)
    with pytest.raises(ValueError, match="expected labels from 0 to 2"):
        open_subject(folder, tmp_path / "unlabelled.npz", count=9)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda folder: (folder / "unet/config.json").unlink(), "expected a pipeline with unet/config.json; its parts"),
        (lambda folder: (folder / SCHEDULER).unlink(), "expected scheduler/scheduler_config.json; there is none"),
        (lambda folder: rewrite(folder, SCHEDULER, "Popen"), "expected a scheduler of diffusers; got 'Popen'"),
        (lambda folder: rewrite(folder, SCHEDULER, "CMStochasticIterativeScheduler"), "CMStochasticIterativeScheduler"),
        (lambda folder: rewrite(folder, "unet/config.json", "UNet2DConditionModel"), "expected a UNet2DModel; got"),
    ],
)
def test_folders_that_are_no_such_pipeline_are_refused_in_a_sentence(tmp_path, change, said):
    folder = saved(tmp_path / "pipeline", diffusers.DDPMScheduler())
    change(folder)
    with pytest.raises((ValueError, FileNotFoundError), match=said):
        read_pipeline(folder)


def rewrite(folder, name, kind):
    path = folder / name
    path.write_text(json.dumps({**json.loads(path.read_text()), "_class_name": kind}))
