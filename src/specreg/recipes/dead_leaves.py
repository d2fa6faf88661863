"""Dead leaves: images with natural statistics that need no download, at a size for two CPU cores."""

from __future__ import annotations

from typing import Any


def demo() -> dict[str, Any]:
    """16×16 discs that hide one another; MSE against MSE + amplitude + haar at an automatic λ: minutes on two cores."""
    return {
        "name": "demo",
        "title": "Dead leaves",
        "data": {"kind": "dead_leaves", "resolution": 16, "channels": 1, "radii": [3, 8], "contrast": 0},
        "model": {"width": 16, "multipliers": [1, 2], "attention": [1]},
        "diffusion": {"schedule": "cosine", "prediction": "x0"},
        "spectral": {"name": "amplitude+haar", "weight": "auto", "ratio": 2.0, "noise_options": {"power": 2}},
        "training": {"steps": 800, "batch_size": 16, "lr": 2e-3, "warmup": 50, "decay": "constant", "ema": 0.99},
        "sampling": {"count": 256, "steps": 25},
    }
