"""Data that cannot be read in the middle of a run: one sentence, the step before saved, and no process left."""

import multiprocessing
import shutil
import time

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from torch.utils.data import _utils as loader_settings

from commands import lines, save_config, start
from specreg._files import WriteError
from specreg.randomness import DataOrder
from specreg.training import checkpoint
from specreg.training.batches import DataError, Places, load
from specreg.training.trainer import Trainer

QUIET = Console(quiet=True)


@pytest.fixture
def images(tmp_path):
    """48 images of 16×16 pixels, 6 batches of 8."""
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(48):
        pixels = np.random.default_rng(i).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:02}.png")
    return folder


def image_of_step(images, step):
    """Return an image that the batch of `step` has, counted from 1, and no earlier one."""
    return images / f"{DataOrder(0, 48, 8).item(step - 1, 5):02}.png"


@pytest.fixture
def config(tiny, images):
    """Return a factory of runs on these images, with one checkpoint at the end."""
    options = ("data.kind=images", f"data.path={images}", "training.checkpoint_every=500")
    return lambda *overrides: tiny(*options, *overrides)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_damaged_image_saves_the_steps_before_and_leaves_no_worker(config, images, tmp_path, workers):
    Trainer(config(), tmp_path / "whole", console=QUIET).run()
    whole, damaged = image_of_step(images, 4).read_bytes(), image_of_step(images, 4)
    damaged.write_bytes(whole[:60] + bytes(len(whole) - 60))  # of the same size: a run knows its files by name and size
    run, folder = config(f"training.workers={workers}"), tmp_path / "run"
    said = (
        rf"^cannot read the image {damaged.name} in .*leaves damaged ones out; step 3 is saved in .*run: run the same "
        r"command again to resume once it can be read$"
    )
    for _ in range(2):  # the same command fails at the same image
        with Trainer(run, folder, console=QUIET) as trainer, pytest.raises(DataError, match=said):
            trainer.run()
        assert not multiprocessing.active_children()
        assert lines(folder / "metrics.jsonl") == 3
        assert checkpoint.load(checkpoint.latest(folder / "checkpoints")).step == 3
    damaged.write_bytes(whole)
    Trainer(run, folder, console=QUIET).run()
    ours, theirs = (checkpoint.load(at / "checkpoints/step-00000006") for at in (folder, tmp_path / "whole"))
    assert all(torch.equal(ours.model[name], theirs.model[name]) for name in theirs.model)


def test_data_that_are_gone_save_the_steps_before(config, images, tmp_path):
    trainer = Trainer(config(), tmp_path / "run", console=QUIET)
    step = trainer.train_step

    def remove_before_step_4(parts, **options):
        if trainer.step == 2:
            image_of_step(images, 4).unlink()
        return step(parts, **options)

    trainer.train_step = remove_before_step_4
    with pytest.raises(DataError, match=r"No such file or directory.*; step 3 is saved in"):
        trainer.run()
    assert checkpoint.load(checkpoint.latest(tmp_path / "run" / "checkpoints")).step == 3


def test_nothing_is_said_to_be_saved_before_the_first_step(config, images, tmp_path):
    image_of_step(images, 1).write_bytes(b"")
    trainer = Trainer(config(), tmp_path / "run", console=QUIET)
    with pytest.raises(DataError, match=r"leaves damaged ones out$"):
        trainer.run()
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_step_that_cannot_be_saved_either_is_said_too(config, images, tmp_path):
    image_of_step(images, 4).write_bytes(b"")
    trainer = Trainer(config(), tmp_path / "run", console=QUIET)
    (tmp_path / "run" / "checkpoints").write_text("in the way")
    with pytest.raises(DataError, match=r"cannot read the image .*; nor can step 3 be saved: .*cannot be written"):
        trainer.run()


def test_a_step_that_another_process_saves_first_is_saved(config, images, tmp_path, monkeypatch):
    """All processes of a launcher fail at once where the data are gone."""
    image_of_step(images, 4).write_bytes(b"")
    save = checkpoint.save

    def both(*args, **options):
        save(*args, **options)
        raise WriteError("Directory not empty")

    trainer = Trainer(config(), tmp_path / "run", console=QUIET)
    monkeypatch.setattr(checkpoint, "save", both)
    with pytest.raises(DataError, match="; step 3 is saved in"):
        trainer.run()


def test_the_command_ends_with_the_sentence_and_exit_code_2(config, images, tmp_path):
    shutil.copytree(images, tmp_path / "test")  # the command reads the images that samples are measured against first
    image_of_step(images, 4).write_bytes(b"")
    save_config(tmp_path, config("training.workers=2", f"data.test_path={tmp_path / 'test'}"))
    run = start(tmp_path, "train", "tiny.yaml")
    _, said = run.communicate(timeout=60)
    assert run.returncode == 2
    assert said.startswith("error: cannot read the image")
    assert said.endswith("step 3 is saved in runs/tiny: run the same command again to resume once it can be read\n")
    assert said.count("\n") == 1


class Hanging(torch.utils.data.Dataset):
    """Items that are read at once in the first step, and never in the others."""

    def __getitem__(self, place):
        if place[0]:
            time.sleep(1000)
        return {"x0": torch.zeros(1)}


def test_a_worker_that_hangs_is_ended(monkeypatch):
    monkeypatch.setattr(loader_settings, "MP_STATUS_CHECK_INTERVAL", 0.1)  # 5 s otherwise
    loaded = load(Hanging(), Places(0, 3, [range(2)]), workers=1)
    assert next(loaded)["x0"].shape == (2, 1)
    (worker,) = multiprocessing.active_children()
    loaded.close()
    worker.join(timeout=10)
    assert not worker.is_alive()
