"""Real images at CPU size."""

from __future__ import annotations

from typing import Any


def textures() -> dict[str, Any]:
    """64×64 crops or tiles of an image folder or zip: `specreg compare textures data.path=crops.zip`."""
    return {
        "name": "textures",
        "title": "Real images",
        "data": {"kind": "images", "resolution": 64, "flip": True},
        "model": {"width": 64, "multipliers": [1, 2, 2], "attention": [1, 2], "patch_size": 4},
        "diffusion": {"schedule": "cosine", "prediction": "x0"},
        "spectral": {"name": "amplitude", "weight": "auto", "ratio": 2.0},
        "training": {"steps": 2000, "batch_size": 16, "lr": 1e-3, "ema": 0.995},
        "sampling": {"count": 256, "steps": 50},
    }
