"""The whole path with EDM networks: from a checkpoint and an archive to samples and results, as a user would run it."""

import json
import math
import os
import shutil
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

import reference_pickle
from specreg import evaluation
from specreg.config import ConfigError, dump
from specreg.diffusion import Preconditioned
from specreg.modalities import parse
from specreg.modalities.images.sampling import draw_images
from specreg.models import pretrained
from specreg.recipes import RECIPES
from specreg.training import checkpoint
from specreg.training.ema import EMA
from specreg.training.record import NonFiniteLoss
from specreg.training.schedule import learning_rate
from specreg.training.trainer import Trainer

QUIET = Console(quiet=True)


def archive(path, *, side=8, count=12, classes=0, channels=3):
    """Smooth random images in EDM's zip form."""
    rng = np.random.default_rng(0)
    names = [f"00000/img{i:08d}.png" for i in range(count)]
    with zipfile.ZipFile(path, "w") as file:
        for name in names:
            small = Image.fromarray(rng.integers(0, 256, (4, 4, channels), dtype=np.uint8).squeeze())
            with file.open(name, "w") as out:
                small.resize((side, side), Image.Resampling.BICUBIC).save(out, "PNG")
        labels = [[name, i % classes] for i, name in enumerate(names)] if classes else None
        file.writestr("dataset.json", json.dumps({"labels": labels}))
    return path


def tiny(path, *overrides):
    return parse(
        {
            "name": "tiny",
            "data": {"kind": "images", "path": str(path), "resolution": 8, "augment": 0.3},
            "model": {"kind": "ddpmpp", "width": 8, "multipliers": [1, 2], "attention": [1], "dropout": 0.1},
            "diffusion": {"objective": "edm"},
            "training": {
                "steps": 4, "batch_size": 4, "lr": 1e-3, "warmup": 0, "decay": "constant", "clip": None, "log_every": 1,
                "ema_halflife": 1000, "checkpoint_every": 2,
            },
            "sampling": {"count": 3, "sampler": "heun", "steps": 3},
        },
        overrides,
    )  # fmt: skip


def train(config, folder):
    trainer = Trainer(config, folder, console=QUIET)
    trainer.run()
    return trainer


def weights(folder):
    saved = checkpoint.load(checkpoint.latest(folder / "checkpoints"))
    return {f"{kind}.{name}": t for kind in ("model", "ema") for name, t in getattr(saved, kind).items()}


def log(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return archive(tmp_path_factory.mktemp("data") / "images.zip", classes=3)


@pytest.mark.parametrize("objective", ["edm", "vp", "ve"])
@pytest.mark.parametrize("kind", ["ddpmpp", "ncsnpp", "adm"])
def test_every_network_trains_under_every_objective_and_is_sampled(kind, objective, data, tmp_path):
    config = tiny(data, f"model.kind={kind}", f"diffusion.objective={objective}", "training.steps=2",
                  "model.classes=3", "spectral.weight=1", "spectral.options={reduction: sum}")  # fmt: skip
    train(config, tmp_path)
    for record in log(tmp_path):
        assert record["loss"] == pytest.approx(record["base"] + record["term"], rel=1e-5)
        assert record["term"] > 0
    results = evaluation.evaluate(tmp_path, evaluation.load_truth(config))
    assert results["sampler"] == "Heun, 3 steps"
    assert len(results["denoising"]["timesteps"]) == 12
    assert np.load(tmp_path / "samples" / "samples.npy").shape == (3, 8, 8, 3)


def test_training_learns(data, tmp_path):
    train(tiny(data, "training.steps=80", "training.lr=3e-3", "data.augment=0", "training.log_every=1"), tmp_path)
    base = [record["base"] for record in log(tmp_path)]
    assert np.mean(base[-20:]) < 0.92 * np.mean(base[:20])


def test_resumed_and_accumulated_runs_agree(data, tmp_path):
    config = tiny(data, "spectral.weight=auto")
    train(config, tmp_path / "whole")
    stopped = Trainer(config, tmp_path / "parts", console=QUIET)
    step = stopped.train_step

    def stop_at_2(parts, **options):
        if stopped.step == 2:
            raise KeyboardInterrupt
        return step(parts, **options)

    stopped.train_step = stop_at_2
    with pytest.raises(KeyboardInterrupt):
        stopped.run()
    train(config, tmp_path / "parts")
    a, b = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(torch.equal(a[name], b[name]) for name in a)

    for name, n in (("one", 1), ("two", 2)):
        train(tiny(data, f"training.accumulate={n}", "model.dropout=0", "training.steps=1"), tmp_path / name)
    one, two = log(tmp_path / "one")[0], log(tmp_path / "two")[0]
    for key in ("base", "grad_norm"):
        assert one[key] == pytest.approx(two[key], rel=1e-4)


def test_a_resumed_fine_tune_keeps_the_run_s_dropout_and_needs_no_checkpoint(data, tmp_path):
    """The file says 0.5, the run 0: both halves of a resumed run must follow the run."""
    described = {"img_resolution": 8, "model_channels": 8, "channel_mult": [1, 2], "num_blocks": 1, "dropout": 0.5,
                 "attn_resolutions": [4], "augment_dim": 9}  # fmt: skip
    network = pretrained.NetworkConfig("songunet", "edm", described)
    source = tmp_path / "start.safetensors"
    pretrained.save(source, network.build(seed=1), config=network)
    start = ("model.kind=pretrained", f"model.checkpoint={source}", "model.dropout=0")
    train(tiny(data, *start), tmp_path / "whole")
    train(tiny(data, *start, "training.steps=2"), tmp_path / "parts")
    source.unlink()
    train(tiny(data, *start), tmp_path / "parts")
    a, b = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_two_processes_train_like_one(data, tmp_path):
    config = tiny(data, "model.dropout=0", "model.classes=3", "training.steps=2", "spectral.weight=1")
    train(config, tmp_path / "one")
    (tmp_path / "config.yaml").write_text(dump(config))
    (tmp_path / "run.py").write_text(
        "import sys; from pathlib import Path; from specreg.modalities import load; "
        "from specreg.training.trainer import Trainer; "
        "Trainer(load(Path(sys.argv[1])), Path(sys.argv[2])).run()"
    )
    subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone",
         str(tmp_path / "run.py"), str(tmp_path / "config.yaml"), str(tmp_path / "two")],
        check=True, capture_output=True, timeout=180,
        env={**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    one, two = log(tmp_path / "one"), log(tmp_path / "two")
    for key in ("base", "spectral", "grad_norm"):
        assert two[0][key] == pytest.approx(one[0][key], rel=1e-5)
        assert two[1][key] == pytest.approx(one[1][key], rel=1e-2)


def test_nan_gradients_stop_the_run_and_keep_the_last_good_state(data, tmp_path):
    trainer = Trainer(tiny(data), tmp_path, console=QUIET)
    handle = None

    def poison(gradient):
        return gradient * math.nan if trainer.step == 2 else gradient

    parameter = next(trainer.accelerator.unwrap_model(trainer.model).parameters())
    handle = parameter.register_hook(poison)
    with pytest.raises(NonFiniteLoss, match="step 3: the gradient norm is nan though the loss is finite"):
        trainer.run()
    handle.remove()
    saved = weights(tmp_path)
    assert checkpoint.latest(tmp_path / "checkpoints").name == "step-00000002"
    assert all(tensor.isfinite().all() for tensor in saved.values())


def test_ema_has_the_public_loop_s_halflife_in_images():
    """β = 0.5^(batch/halflife), the half-life at most 5% of the images seen before the update."""
    ema = EMA(torch.nn.Linear(1, 1), 0.9, halflife=500_000, rampup=0.05, batch_size=512)
    decays = []
    for _ in range(3):
        decays.append(ema.next_decay())
        ema.update(torch.nn.Linear(1, 1))
    assert decays == pytest.approx([0, 0.5 ** (512 / (512 * 0.05)), 0.5 ** (512 / (1024 * 0.05))])
    ema.updates = 10**6
    assert ema.next_decay() == pytest.approx(0.5 ** (512 / 500_000))
    assert EMA(torch.nn.Linear(1, 1), 0.9, halflife=100, batch_size=50).next_decay() == pytest.approx(0.5**0.5)


def test_learning_rate_ramps_over_images_as_the_public_loop_does():
    config = parse(RECIPES["edm-afhqv2-vp"](), ["training.warmup_images=10000000"])
    assert [learning_rate(config, step) for step in range(3)] == pytest.approx([0, 5e-5 * 16 / 1e7, 5e-5 * 32 / 1e7])
    assert learning_rate(parse(RECIPES["edm-afhqv2-vp"]()), 0) == 5e-5


def test_recipes_are_the_paper_s():
    names = [name for name in RECIPES if name.startswith("edm-") and name != "edm-textures"]
    assert len(names) == 8
    for name in names:
        config = parse(RECIPES[name]())
        assert config.training.steps == 5
        assert config.training.batch_size == 16
        assert set(config.arms) == {
            f"{loss}{w}" for loss in ("amplitude", "amplitude_phase", "haar", "bior1.3") for w in ("", "-weighted")
        }
        small = "cifar" in name
        assert (config.training.lr, config.sampling.steps) == ((2e-4, 18) if small else (5e-5, 40))
    assert parse(RECIPES["edm-afhqv2-ve"]()).model.dropout == 0.25
    assert parse(RECIPES["edm-ffhq-ve"]()).model.dropout == 0.05


def test_what_does_not_fit_is_said_in_one_sentence(data, tmp_path):
    def refused(match, *overrides, path=data):
        with pytest.raises(ConfigError, match=match) as refusal:
            Trainer(tiny(path, *overrides), tmp_path / "refused", console=QUIET)
        assert "\n" not in str(refusal.value)

    refused("trained with edm, vp or ve; got ddpm", "diffusion.objective=ddpm", "data.augment=0")
    refused("trained with ddpm or flow; got edm", "model.kind=small_unet")
    refused("sampling.sampler must be heun or ddim", "sampling.sampler=ancestral")
    refused("model.checkpoint: expected an EDM", "model.kind=pretrained")
    refused("expected model.kind = pretrained", "model.checkpoint=x.pkl")
    refused("expected labels from 0 to 1", "model.classes=2")
    refused("sampling.classes: data is for networks with model.classes", "sampling.classes=data")
    unlabelled = archive(tmp_path / "unlabelled.zip")
    refused("expected labels in", "model.classes=3", path=unlabelled)
    saved = tmp_path / "saved.safetensors"
    network = Trainer(tiny(data, "data.augment=0"), tmp_path / "run", console=QUIET)
    pretrained.save(saved, network.model, config=pretrained.NetworkConfig(**network.description["denoiser"]))
    start = ("model.kind=pretrained", f"model.checkpoint={saved}")
    refused("is not told of augmentation", *start)
    refused("its images have 3 channels and 8 pixels", *start, "data.augment=0",
            path=archive(tmp_path / "grey.zip", channels=1))  # fmt: skip


def test_ddim_is_euler_and_churn_changes_samples(data, tmp_path):
    config = tiny(data)
    trained = Trainer(config, tmp_path, console=QUIET)
    model = trained.model.eval()
    draws = [
        draw_images(tiny(data, *overrides), model, trained.shape, range(3))
        for overrides in ([], ["sampling.batch_size=1"], ["sampling.sampler=ddim"], ["sampling.churn=20"])
    ]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert not torch.equal(draws[0], draws[3])


def test_classes_of_samples_are_equally_likely_or_as_frequent_as_in_the_data(tmp_path):
    entries = np.array([0] * 6 + [1] * 3 + [2])
    np.savez(tmp_path / "images.npz", images=np.zeros((10, 8, 8, 3), np.uint8), labels=entries)
    told = []

    def of(*overrides):
        config = tiny(
            tmp_path / "images.npz", "model.classes=3", "sampling.steps=1", "sampling.batch_size=64", *overrides
        )
        network = Trainer(config, tmp_path / "run", console=QUIET).model.eval()
        network.register_forward_pre_hook(lambda _, __, named: told.append(named["labels"]), with_kwargs=True)
        draw_images(config, network, (3, 8, 8), range(400))
        drawn = torch.cat(told)
        told.clear()
        return drawn

    equal, frequent = of(), of("sampling.classes=data")
    generators = [torch.Generator().manual_seed(i) for i in range(400)]
    for generator in generators:
        torch.randn(3, 8, 8, generator=generator)
    expected = [int(torch.randint(3, (1,), generator=g)) for g in generators]
    assert equal.tolist() == expected
    assert np.bincount(frequent) / 400 == pytest.approx([0.6, 0.3, 0.1], abs=0.06)


def test_a_diffusers_folder_goes_on_under_ddpm(data, tmp_path):
    diffusers = pytest.importorskip("diffusers")
    unet = diffusers.UNet2DModel(
        sample_size=8, block_out_channels=(8, 8), layers_per_block=1, norm_num_groups=4,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    unet.save_pretrained(tmp_path / "pipeline" / "unet")
    config = tiny(data, "diffusion.objective=ddpm", "data.augment=0", "model.kind=pretrained", "sampling.sampler=ddim",
                  "model.dropout=0", f"model.checkpoint={tmp_path / 'pipeline'}", "training.steps=1")  # fmt: skip
    train(config, tmp_path / "run")
    shutil.rmtree(tmp_path / "pipeline")
    results = evaluation.evaluate(tmp_path / "run", evaluation.load_truth(config))
    assert results["step"] == 1


def test_fine_tuning_a_pickle_by_the_command_a_user_types(tmp_path):
    """From a checkpoint in the public form and a labelled archive to samples, without the checkpoint, and a new one."""
    source = reference_pickle.write_tiny(tmp_path / "edm.pkl")
    images = archive(tmp_path / "cifar.zip", side=32, classes=10)
    command = ["train", "edm-cifar10-cond-ve", "--checkpoint", source, "--data", images, "--loss", "bior1.3",
               "--weighted", "--out", tmp_path / "runs", "training.batch_size=4", "training.steps=2",
               "sampling.count=4", "sampling.steps=2"]  # fmt: skip

    def run(*arguments):
        return subprocess.run([sys.executable, "-m", "specreg", *map(str, arguments)], capture_output=True, text=True)

    done = run(*command)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "runs" / "edm-cifar10-cond-ve-bior1.3-weighted"
    assert (folder / "report.html").exists()
    results = json.loads((folder / "results.json").read_text())
    assert results["arm"] == "bior1.3"
    first = log(folder)[0]
    assert first["weight"] > 4  # λ_EDM(σ) is at least 1/σ_d²
    (tmp_path / "edm.pkl").unlink()
    sampled = run("sample", folder, "--count", 2, "--steps", 2, "--out", tmp_path / "png")
    assert sampled.returncode == 0, sampled.stderr
    assert len(list((tmp_path / "png").glob("*.png"))) == 2
    converted = run("convert", folder, tmp_path / "tuned.safetensors")
    assert converted.returncode == 0, converted.stderr
    tuned = pretrained.read(tmp_path / "tuned.safetensors").build()
    assert isinstance(tuned, Preconditioned)
    ema, _ = checkpoint.load_ema(checkpoint.latest(folder / "checkpoints"))
    assert all(torch.equal(tuned.state_dict()[name], ema[name]) for name in ema)
