"""Runs small enough for a test: 16×16 boards, four clips of noise, networks of a few thousand weights."""

import os

import pytest

# Tensors of a few kilobytes: threads only get in each other's way, here and in the commands that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from specreg.modalities import parse

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


@pytest.fixture(scope="session")
def save_tiny_sound():
    """Return a function that writes a tiny DiffWave and four clips into a folder, and returns both paths."""
    import numpy as np
    import soundfile
    import torch

    from specreg.models.diffwave import DiffWave, DiffWaveConfig
    from specreg.models.diffwave_checkpoint import save_diffwave

    def save(folder):
        network = DiffWaveConfig(
            residual_layers=2, residual_channels=4, n_mels=8, n_fft=128, hop_samples=32, sample_rate=8000,
            crop_mel_frames=16,
        )  # fmt: skip
        with torch.random.fork_rng():
            torch.manual_seed(0)
            save_diffwave(folder / "net.pt", DiffWave(network))
        (folder / "clips").mkdir()
        for k in range(4):
            noise = np.random.default_rng(k).standard_normal(6000)
            soundfile.write(folder / "clips" / f"{k}.wav", 0.1 * noise, 8000)
        return folder / "net.pt", folder / "clips"

    return save
