"""The paper's audio experiments (section 5.3): the public DiffWave vocoder, fine-tuned.

λ of 1e-4, 1e-5 and 1e-6 go with sums over coefficients; an arm named `haar@1e-4` has that λ. `mr_stft` is no loss of
the paper's. The public code keeps no average of the weights, clips no gradient and has one constant learning rate.
"""

from __future__ import annotations

from typing import Any

LOSSES = ("amplitude", "amplitude_phase", "haar", "bior1.3")


def arms() -> dict[str, Any]:
    """The paper's four losses at λ = 1e-5, and a multi-resolution STFT loss at an automatic λ."""
    term = {"weight": 1e-5, "noise_weight": "constant", "options": {"reduction": "sum"}}
    paper = {loss: {"name": loss, **term} for loss in LOSSES}
    return {**paper, "mr_stft": {"name": "mr_stft", "weight": "auto", "ratio": 0.1, "noise_weight": "constant"}}


def diffwave() -> dict[str, Any]:
    """LJSpeech: fine-tune the public 22.05 kHz DiffWave vocoder (--checkpoint FILE --data DIR)."""
    return {
        "name": "diffwave",
        "title": "DiffWave vocoder",
        "data": {"kind": "audio"},
        "model": {"kind": "pretrained"},
        "diffusion": {"objective": "diffwave"},
        "spectral": arms()["amplitude_phase"],
        "arms": arms(),
        "training": {
            "steps": 150_000, "batch_size": 16, "lr": 2e-4, "warmup": 0, "decay": "constant", "clip": None, "ema": 0.0,
            "checkpoint_every": 5000, "log_every": 100,
        },
        "sampling": {"count": 256, "sampler": "fast"},
    }  # fmt: skip


def diffwave_small() -> dict[str, Any]:
    """A small DiffWave from scratch at the data's own sample rate, for two cores; a tenth of the clips held out."""
    return {
        "name": "diffwave-small",
        "title": "A small DiffWave vocoder",
        "data": {"kind": "audio", "held_out": 0.1},
        "model": {"kind": "diffwave"},
        "vocoder": {
            "residual_layers": 8, "residual_channels": 24, "dilation_cycle_length": 8, "crop_mel_frames": 31,
        },
        "diffusion": {"objective": "diffwave"},
        "arms": arms(),
        "training": {
            "steps": 1500, "batch_size": 4, "lr": 2e-3, "warmup": 50, "decay": "cosine", "clip": None, "ema": 0.0,
            "checkpoint_every": 250,
        },
        "sampling": {"count": 16, "sampler": "fast"},
    }  # fmt: skip
