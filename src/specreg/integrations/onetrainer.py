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
from specreg.diffusion.parameterization import AnyPrediction


def add_term(setup: type, regularizer: SpectralRegularizer) -> None:
    """Add the term to the loss of a model setup class, in place; validation, without gradients, has no term.

    Raises TypeError for a class without `calculate_loss`, and when it is added twice. The loss raises ValueError for a
    diffusion model whose scheduler has no `alphas_cumprod` (Würstchen, Stable Cascade).
    """
    plain = getattr(setup, "calculate_loss", None)
    if plain is None:
        raise TypeError(f"expected a model setup of OneTrainer, which has calculate_loss; got {setup.__name__}")
    if hasattr(plain, "__wrapped__"):
        raise TypeError(f"{setup.__name__} has a term already")

    @functools.wraps(plain)
    def calculate_loss(self: Any, model: Any, batch: dict[str, Any], data: dict[str, Any], config: Any) -> Tensor:
        base: Tensor = plain(self, model, batch, data, config)
        output, target = data["predicted"], data["target"]
        if not torch.is_grad_enabled() or not output.requires_grad:
            return base
        level, kind = _level(model, data)
        if kind == "flow" and any("Ideogram" in one.__name__ for one in type(self).__mro__):
            kind = "velocity"  # its target is x0 − ε
        weight = batch.get("loss_weight")
        masked = config.masked_training and not config.model_type.has_conditioning_image_input()  # as its loss
        term = regularizer.from_output(
            output, target, level, prediction=kind, x0=_latents(model, batch, data, output), base_loss=base,
            sample_weight=weight.to(output.device) if isinstance(weight, Tensor) and weight.ndim == 1 else None,
            mask=batch["latent_mask"].clamp(config.unmasked_weight, 1) if masked else None,
        )  # fmt: skip
        return base + term.loss

    setup.calculate_loss = calculate_loss  # type: ignore[attr-defined]


def _level(model: Any, data: dict[str, Any]) -> tuple[NoiseLevel, AnyPrediction]:
    t, scheduler = data["timestep"], model.noise_scheduler
    if "prediction_type" not in data:
        steps = scheduler.config["num_train_timesteps"]
        return NoiseLevel.flow((t.float() + 1) / steps), "flow"  # its σ runs from 1/T to 1
    if (alphas := getattr(scheduler, "alphas_cumprod", None)) is None:
        raise ValueError(f"expected a noise scheduler with alphas_cumprod; {type(scheduler).__name__} has none")
    return NoiseLevel.ddpm(alphas.to(t.device)[t.long()]), data["prediction_type"]


def _latents(model: Any, batch: dict[str, Any], data: dict[str, Any], output: Tensor) -> Tensor | None:
    """Return the clean latents of the output's scale and shape, or None where they are out of reach."""
    found = data.get("scaled_latent_image")
    if found is None and "latent_image" in batch:
        found = _scaled(model, batch["latent_image"])
    if not isinstance(found, Tensor) or found.numel() != output.numel():
        return None
    return found.reshape(output.shape)  # an image among videos has no axis of frames in the batch


def _scaled(model: Any, latents: Tensor) -> Tensor | None:
    if hasattr(model, "scale_latents"):
        if not hasattr(model, "patchify_latents"):
            scaled: Tensor = model.scale_latents(latents)
            return scaled
        patches = model.scale_latents(model.patchify_latents(latents.float()))  # Flux.2, Ernie, Ideogram
        grid = [side // 2 for side in latents.shape[-2:]] if patches.ndim == 3 else []
        whole: Tensor = model.unpatchify_latents(patches, *grid)
        return whole
    config = getattr(model.vae, "config", None)
    if (factor := getattr(config, "scaling_factor", None)) is None:
        return None
    clean: Tensor = (latents - (getattr(config, "shift_factor", None) or 0)) * factor
    return clean
