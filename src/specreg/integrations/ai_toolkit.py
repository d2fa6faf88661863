"""ostris' ai-toolkit: its trainer with the term, as an extension. Read from ai-toolkit at commit 27a03a9 (August 2026).

A folder in its `extensions/`, whose `__init__.py` is:

    from toolkit.extension import Extension

    class SpectralExtension(Extension):
        uid, name = "spectral_trainer", "Trainer with the spectral term"

        @classmethod
        def get_process(cls):
            import specreg
            from extensions_built_in.sd_trainer.DiffusionTrainer import DiffusionTrainer
            from specreg.integrations.ai_toolkit import with_term
            return with_term(DiffusionTrainer, specreg.SpectralRegularizer("amplitude", weight="auto"))

    AI_TOOLKIT_EXTENSIONS = [SpectralExtension]

and `type: spectral_trainer` in the config of a job.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from specreg import NoiseLevel, SpectralRegularizer, diffusion
from specreg.diffusion.parameterization import AnyPrediction


def with_term(
    trainer: type, regularizer: SpectralRegularizer, *, prediction: AnyPrediction | None = None, check: bool = True
) -> type:
    """Return a subclass of SDTrainer whose loss has the term, for ε, v, flow and x0.

    Args:
        trainer: SDTrainer or one that derives from it.
        regularizer: the term.
        prediction: what the network predicts; None for what the model says. "velocity" for OmniGen2 and F-Lite, whose
            target is x0 − ε, "x0" for PRX in pixels.
        check: whether the first call checks that with `check_wiring`; not for perturbed inputs, whose x_t is of other
            noise than the target.
    """

    class WithTerm(trainer):  # type: ignore[misc]
        def calculate_loss(
            self, noise_pred: Tensor, noise: Tensor, noisy_latents: Tensor, timesteps: Tensor, batch: Any, **kwargs: Any
        ) -> Tensor:
            base: Tensor = super().calculate_loss(noise_pred, noise, noisy_latents, timesteps, batch, **kwargs)
            if not torch.is_grad_enabled() or not noise_pred.requires_grad:
                return base
            latents, kind = batch.latents, prediction or _prediction(self.sd)
            if self.sd.is_flow_matching:
                level = NoiseLevel.flow(timesteps.float() / 1000)
            else:
                level = NoiseLevel.from_diffusers(self.sd.noise_scheduler, timesteps)
            if self.sd.is_flow_matching and hasattr(self.sd, "get_loss_target"):
                target = self.sd.get_loss_target(noise=noise, batch=batch, timesteps=timesteps).detach()
            else:
                target = diffusion.target(latents, noise, level, prediction=kind)
            term = regularizer.from_output(
                noise_pred, target, level, prediction=kind, x0=latents, x_t=noisy_latents, base_loss=base, check=check
            )
            return base + term.loss

    WithTerm.__name__ = f"{trainer.__name__}WithTerm"
    return WithTerm


def _prediction(sd: Any) -> AnyPrediction:
    if getattr(sd, "x0_pred", False):
        return "x0"
    if sd.is_flow_matching:
        return "flow"
    return "v" if sd.prediction_type == "v_prediction" else "epsilon"
