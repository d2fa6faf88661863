"""The reference vectors beside the checkout: inputs, weights and outputs of the public implementations."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

FOLDER = Path(__file__).parents[2] / "shared" / "vectors"
NAMES = ("edm_ddpmpp_uncond", "edm_ncsnpp_cond", "vp_ddpmpp_uncond", "ve_ncsnpp_uncond", "edm_adm_cond")


def path(name):
    """A file of the vectors; the test is skipped where they are not beside the checkout."""
    if not (FOLDER / name).exists():
        pytest.skip(f"reference vectors are not here: {Path('..') / 'shared' / 'vectors' / name}")
    return FOLDER / name


def load(name):
    """Config and tensors: {"param/...", "in/...", "out/..."}."""
    with np.load(path(f"{name}.npz")) as file:
        config = json.loads(str(file["config"]))
        return config, {key: torch.from_numpy(file[key]) for key in file.files if key != "config"}


def parameters(tensors):
    return {key.removeprefix("param/"): value for key, value in tensors.items() if key.startswith("param/")}


def condition(tensors):
    return {"labels": tensors["in/class_labels"]} if "in/class_labels" in tensors else {}
