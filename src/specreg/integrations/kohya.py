"""kohya's sd-scripts: its LoRA trainers with the term. Read from sd-scripts at commit 48d368f (February 2026).

A script beside theirs, started as theirs are:

    import sdxl_train_network as script
    script.SdxlNetworkTrainer = with_term(script.SdxlNetworkTrainer, regularizer)
    args = script.setup_parser().parse_args()
    script.SdxlNetworkTrainer().train(args)

The trainers share `process_batch`, which returns the loss, and `get_noise_pred_and_target`, which sees the latents.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from specreg import NoiseLevel, SpectralRegularizer
from specreg.diffusion.parameterization import AnyPrediction


class _Call(NamedTuple):
    output: Tensor
    target: Tensor
    timesteps: Tensor
    latents: Tensor
    args: Any
    scheduler: Any


def with_term(trainer: type, regularizer: SpectralRegularizer, *, prediction: AnyPrediction | None = None) -> type:
    """Return a subclass of a sd-scripts trainer whose training loss has the term; its validation loss has not.

    Args:
        trainer: `NetworkTrainer` or one that derives from it.
        regularizer: the term. Latents `[B, C, H, W]` are what it sees.
        prediction: what the network predicts; None for ε or v as `--v_parameterization` says, under a flow "flow", and
            "velocity" where the trainer is Lumina's, whose target is x0 − ε.

    Per-sample weights (prior preservation) and masks of the batch count in the term as they do in the loss.
    """

    class WithTerm(trainer):  # type: ignore[misc]
        _call: _Call | None = None

        def get_noise_pred_and_target(
            self, args: Any, accelerator: Any, noise_scheduler: Any, latents: Tensor, *rest: Any, **kwargs: Any
        ) -> tuple[Tensor, Tensor, Tensor, Any]:
            found: tuple[Tensor, Tensor, Tensor, Any] = super().get_noise_pred_and_target(
                args, accelerator, noise_scheduler, latents, *rest, **kwargs
            )
            self._call = _Call(*found[:3], latents, args, noise_scheduler)
            return found

        def process_batch(self, batch: dict[str, Any], *rest: Any, **kwargs: Any) -> Tensor:
            base: Tensor = super().process_batch(batch, *rest, **kwargs)
            call, self._call = self._call, None
            if call is None:
                raise RuntimeError("expected process_batch to call get_noise_pred_and_target; it did not")
            if not torch.is_grad_enabled() or not call.output.requires_grad:
                return base
            level, kind = _level(call, prediction or _default(call, trainer))
            term = regularizer.from_output(
                call.output, call.target, level, prediction=kind, x0=call.latents, base_loss=base,
                sample_weight=batch["loss_weights"].to(base.device), mask=_mask(batch, call),
            )  # fmt: skip
            return base + term.loss

    WithTerm.__name__ = f"{trainer.__name__}WithTerm"
    return WithTerm


def _default(call: _Call, trainer: type) -> AnyPrediction:
    if hasattr(call.scheduler, "alphas_cumprod"):
        return "v" if call.args.v_parameterization else "epsilon"
    return "velocity" if any("Lumina" in kind.__name__ for kind in trainer.__mro__) else "flow"


def _level(call: _Call, prediction: AnyPrediction) -> tuple[NoiseLevel, AnyPrediction]:
    if (alphas := getattr(call.scheduler, "alphas_cumprod", None)) is not None:
        return NoiseLevel.ddpm(alphas.to(call.timesteps.device)[call.timesteps.long()]), prediction
    if (kind := getattr(call.args, "model_prediction_type", "raw")) != "raw":
        raise ValueError(f"--model_prediction_type: the term expects raw, the network's own output; got {kind}")
    return NoiseLevel.flow(call.timesteps.float() / call.scheduler.config.num_train_timesteps), prediction


def _mask(batch: dict[str, Any], call: _Call) -> Tensor | None:
    """Return the mask `[B, 1, H, W]` in [0, 1] that the trainer multiplies its loss by, None where it has none."""
    if (alpha := batch.get("alpha_masks")) is not None:
        mask = alpha.unsqueeze(1)
    elif getattr(call.args, "masked_loss", False):
        mask = batch["conditioning_images"][:, :1] / 2 + 0.5  # the red channel, from [−1, 1]
    else:
        return None
    return functional.interpolate(mask.to(call.output.device).float(), size=call.output.shape[-2:], mode="area")
