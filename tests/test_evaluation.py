"""Evaluation: shared over processes it gives the files and the numbers of one process."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from rich.console import Console

from specreg import evaluation
from specreg.modalities import parse
from specreg.recipes import RECIPES
from specreg.training.trainer import Trainer

SCRIPT = """
import sys
from datetime import timedelta
from pathlib import Path

from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs

Accelerator(kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(seconds=60))])
from specreg import evaluation, modalities, processes

for folder in map(Path, sys.argv[1:]):
    config = modalities.load(folder / "config.yaml")
    truth = evaluation.load_truth(config)
    modality = modalities.of(config)
    draw = modality.draw

    def watched(*arguments, **options):
        (folder / f"drawn-by-{processes.state().process_index}").write_text(str(list(arguments[4])))
        return draw(*arguments, **options)

    modality.draw = watched
    results = evaluation.evaluate(folder, truth)
    assert (results is not None) == processes.state().is_main_process
    del modality.draw
    processes.state().wait_for_everyone()
"""


@pytest.fixture(scope="module")
def folders(tmp_path_factory, tiny, save_tiny_sound):
    """Trained runs of images and of sound, evaluated by this process."""
    root = tmp_path_factory.mktemp("runs")
    images = tiny("training.steps=2", "sampling.count=5", "sampling.eta=1")
    net, clips = save_tiny_sound(root)
    sound = parse(
        RECIPES["diffwave"](),
        [f"model.checkpoint={net}", f"data.path={clips}", "data.held_out=['0', '1', '2']", "training.steps=2",
         "training.batch_size=1", "training.log_every=1"],
    )  # fmt: skip
    for name, config in (("images", images), ("sound", sound)):
        Trainer(config, root / name, console=Console(quiet=True)).run()
        evaluation.evaluate(root / name, evaluation.load_truth(config))
    return root


def test_two_processes_share_samples_and_scores(folders, tmp_path):
    for name in ("images", "sound"):
        shutil.copytree(folders / name, tmp_path / name)
        (tmp_path / name / "results.json").unlink()
        shutil.rmtree(tmp_path / name / "samples")
    (tmp_path / "evaluate.py").write_text(SCRIPT)
    subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--master_port=0", "--standalone",
         str(tmp_path / "evaluate.py"), str(tmp_path / "images"), str(tmp_path / "sound")],
        check=True, capture_output=True, timeout=300,
        env={**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    for name, shares in (("images", ([0, 1], [2, 3, 4])), ("sound", ([0], [1, 2]))):
        assert [json.loads((tmp_path / name / f"drawn-by-{rank}").read_text()) for rank in (0, 1)] == list(shares)
        alone, shared = (json.loads((root / name / "results.json").read_text()) for root in (folders, tmp_path))
        assert shared["metrics"] == pytest.approx(alone["metrics"], rel=1e-6, abs=1e-9)
        assert (shared["samples"], shared["missing"]) == (alone["samples"], alone["missing"])
    alone, shared = (np.load(root / "images" / "samples" / "samples.npy") for root in (folders, tmp_path))
    assert np.abs(alone.astype(int) - shared).max() <= 1  # 8-bit rounding of float noise
    for path in (folders / "sound" / "samples").glob("*.wav"):
        assert path.read_bytes() == (tmp_path / "sound" / "samples" / path.name).read_bytes()
