"""The paper's checkerboard experiment (section 5.1) at a size for two CPU cores."""

from __future__ import annotations

from typing import Any


def checkerboard() -> dict[str, Any]:
    """64×64 checkerboards with squares of 2, 4 and 8 pixels; MSE against MSE + amplitude_phase."""
    return {
        "name": "checkerboard",
        "title": "Checkerboards",
        "data": {"kind": "checkerboard", "resolution": 64, "squares": [2, 4, 8]},
        "model": {"width": 32, "multipliers": [1, 2], "attention": [1], "patch_size": 4},
        "diffusion": {"schedule": "cosine", "prediction": "x0"},
        "spectral": {
            "name": "amplitude_phase",
            "options": {"coupling": "projection"},
            "weight": 0.5,
            "noise_weight": "snr",
        },
        "training": {"steps": 4000, "batch_size": 16, "lr": 1e-3, "warmup": 50, "ema": 0.99},
        "sampling": {"count": 256, "steps": 50, "eta": 1.0},
    }
