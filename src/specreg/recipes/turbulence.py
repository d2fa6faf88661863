"""Two-dimensional turbulence: a small DDPM++ under EDM on simulated vorticity, with and without the term."""

from __future__ import annotations

from typing import Any

ARMS = ("amplitude", "haar", "fft:log_power", "fft:amse")


def turbulence() -> dict[str, Any]:
    """64×64 vorticity of Kolmogorov flow (`specreg turbulence FOLDER` simulates a set), λ automatic."""
    return {
        "name": "turbulence",
        "title": "Two-dimensional turbulence",
        "data": {"kind": "fields"},
        "model": {
            "kind": "ddpmpp", "width": 16, "multipliers": [1, 1, 2], "blocks": 1, "attention": [], "periodic": True,
        },
        "diffusion": {"objective": "edm"},
        "spectral": {"name": "amplitude", "weight": "auto", "ratio": 0.5},
        "arms": {
            name: {"name": name, "weight": "auto", "ratio": 2.0} for name in ARMS
        },
        "training": {
            "steps": 1000, "batch_size": 8, "lr": 1e-3, "warmup": 100, "decay": "cosine", "clip": None, "ema": 0.995,
        },
        "sampling": {"count": 128, "sampler": "heun", "steps": 18},
        "metrics": {"vorticity": True},
    }  # fmt: skip
