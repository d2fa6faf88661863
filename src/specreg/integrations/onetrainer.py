"""OneTrainer: the term in its model setups. Read from OneTrainer at commit 23df383 (August 2026).

Before its trainer starts, in a launcher that ends as its `scripts/train.py` does:

    from modules.modelSetup.BaseFluxSetup import BaseFluxSetup
    add_term(BaseFluxSetup, regularizer)

A setup's `calculate_loss` sees output, target and timestep; latents are what the batch and the model say they are.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from specreg import NoiseLevel, SpectralRegularizer


def add_term(setup: type, regularizer: SpectralRegularizer) -> None:
    """Add the term to the loss of a model setup class, in place; validation, without gradients, has no term.

    Raises TypeError for a class without `calculate_loss`, and when it is added twice.
    """
    plain = getattr(setup, "calculate_loss", None)
    if plain is None:
        raise TypeError(f"expected a model setup of OneTrainer, which has calculate_loss; got {setup.__name__}")
    if hasattr(plain, "__wrapped__"):
        raise TypeError(f"{setup.__name__} has a term already")

    @functools.wraps(plain)
    def calculate_loss(self: Any, model: Any, batch: dict[str, Any], data: dict[str, Any], config: Any) -> Tensor:
        base: Tensor = plain(self, model, batch, data, config)
        output, target, t = data["predicted"], data["target"], data["timestep"]
        if not torch.is_grad_enabled() or not output.requires_grad:
            return base
        if "prediction_type" in data:
            alphas = model.noise_scheduler.alphas_cumprod.to(t.device)
            level, kind = NoiseLevel.ddpm(alphas[t.long()]), data["prediction_type"]
        else:
            steps = model.noise_scheduler.config["num_train_timesteps"]
            level, kind = NoiseLevel.flow((t.float() + 1) / steps), "flow"  # its σ runs from 1/T to 1
        weight = batch.get("loss_weight")
        term = regularizer.from_output(
            output, target, level, prediction=kind, x0=_latents(model, batch, data, output), base_loss=base,
            sample_weight=weight.to(output.device) if isinstance(weight, Tensor) and weight.ndim == 1 else None,
            mask=batch["latent_mask"].clamp(config.unmasked_weight, 1) if config.masked_training else None,
        )  # fmt: skip
        return base + term.loss

    setup.calculate_loss = calculate_loss  # type: ignore[attr-defined]


def _latents(model: Any, batch: dict[str, Any], data: dict[str, Any], output: Tensor) -> Tensor | None:
    """Return the clean latents of the output's scale and shape, or None where they are out of reach."""
    found = data.get("scaled_latent_image")
    if found is None and "latent_image" in batch:
        if hasattr(model, "scale_latents"):
            found = model.scale_latents(batch["latent_image"])
        elif (factor := getattr(getattr(model.vae, "config", None), "scaling_factor", None)) is not None:
            found = batch["latent_image"] * factor
    return found if isinstance(found, Tensor) and found.shape == output.shape else None
