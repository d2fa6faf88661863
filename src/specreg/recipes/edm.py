"""The paper's image experiments (section 5.2): pretrained EDM networks fine-tuned for a few steps.

The eight public checkpoints are DDPM++ ("vp") and NCSN++ ("ve") networks, all under EDM preconditioning. Learning rate,
dropout and augmentation are the paper's (for CIFAR-10, where it gives none, those of EDM's training). λ is 1 beside a
loss that EDM sums over pixels, so the spectral losses are sums too. "-weighted" arms have λ = λ_EDM(σ).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

LOSSES = ("amplitude", "amplitude_phase", "haar", "bior1.3")

_DATASETS: dict[str, dict[str, Any]] = {
    "cifar10-cond": {"title": "CIFAR-10 with classes", "side": 32, "lr": 2e-4, "dropout": 0.13, "p": 0.12, "steps": 18},
    "cifar10-uncond": {"title": "CIFAR-10", "side": 32, "lr": 2e-4, "dropout": 0.13, "p": 0.12, "steps": 18},
    "afhqv2": {"title": "AFHQv2", "side": 64, "lr": 5e-5, "dropout": 0.25, "p": 0.15, "steps": 40},
    "ffhq": {"title": "FFHQ", "side": 64, "lr": 5e-5, "dropout": 0.05, "p": 0.15, "steps": 40},
}
_FORMS = {"vp": "DDPM++", "ve": "NCSN++"}


def arms() -> dict[str, Any]:
    """The paper's four losses, unweighted and weighted."""
    return {
        f"{loss}{suffix}": {"name": loss, "weight": 1.0, "noise_weight": weight, "options": {"reduction": "sum"}}
        for suffix, weight in (("", "constant"), ("-weighted", "edm"))
        for loss in LOSSES
    }


def _recipe(dataset: str, form: str) -> Callable[[], dict[str, Any]]:
    values = _DATASETS[dataset]
    name = f"edm-{dataset}-{form}"

    def recipe() -> dict[str, Any]:
        return {
            "name": name,
            "title": f"{values['title']}, EDM {_FORMS[form]}",
            "data": {
                "kind": "images", "resolution": values["side"], "channels": 3, "augment": values["p"],
            },
            "model": {"kind": "pretrained", "dropout": values["dropout"]},
            "diffusion": {"objective": "edm"},
            "spectral": arms()["amplitude_phase"],
            "arms": arms(),
            "training": {
                "steps": 5, "batch_size": 16, "lr": values["lr"], "warmup": 0, "decay": "constant", "clip": None,
                "ema_halflife": 500_000, "ema_rampup": 0.05, "log_every": 1, "keep": 1,
            },
            "sampling": {"count": 64, "sampler": "heun", "steps": values["steps"]},
        }  # fmt: skip

    recipe.__name__ = recipe.__qualname__ = name
    recipe.__doc__ = f"{values['title']} {values['side']}×{values['side']}: fine-tune EDM's {_FORMS[form]} checkpoint."
    return recipe


EDM_RECIPES = {f"edm-{dataset}-{form}": _recipe(dataset, form) for dataset in _DATASETS for form in _FORMS}


def edm_textures() -> dict[str, Any]:
    """A small DDPM++ from scratch under EDM, on 64×64 crops: a checkpoint to fine-tune where there is no other."""
    return {
        "name": "edm-textures",
        "title": "A small EDM network on real images",
        "data": {"kind": "images", "resolution": 64, "channels": 3, "augment": 0.12},
        "model": {"kind": "ddpmpp", "width": 32, "multipliers": [1, 2, 2], "blocks": 1, "attention": [2]},
        "diffusion": {"objective": "edm"},
        "arms": arms(),
        "training": {
            "steps": 2000, "batch_size": 16, "lr": 1e-3, "warmup": 100, "decay": "cosine", "clip": None, "ema": 0.995,
        },
        "sampling": {"count": 256, "sampler": "heun", "steps": 18},
    }  # fmt: skip
