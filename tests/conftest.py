"""Runs small enough for a test: 16×16 boards, a network of a few thousand weights."""

import os

import pytest

# Tensors of a few kilobytes: threads only get in each other's way, here and in the commands that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from specreg.training.config import parse

TINY = {
    "name": "tiny",
    "data": {"resolution": 16, "squares": [2, 4], "count": 20},
    "model": {"width": 8, "multipliers": [1, 2], "attention": [1], "patch_size": 2},
    "diffusion": {"timesteps": 50, "prediction": "x0"},
    "training": {"steps": 6, "batch_size": 8, "warmup": 2, "log_every": 1, "checkpoint_every": 2},
    "sampling": {"count": 4, "steps": 3},
}


@pytest.fixture(scope="session")
def tiny():
    """Return a factory of tiny configs: `tiny("spectral.weight=0.1", …)`."""
    return lambda *overrides: parse(TINY, overrides)
