"""kohya's sd-scripts: its LoRA trainers with the term. Read from sd-scripts at commit 48d368f (February 2026).

A script beside theirs, started as theirs are, which ends as they do:

    import sdxl_train_network as script
    from library import train_util

    parser = script.setup_parser()
    args = parser.parse_args()
    train_util.verify_command_line_training_args(args)
    args = train_util.read_config_from_file(args, parser)
    with_term(script.SdxlNetworkTrainer, regularizer)().train(args)

The trainers share `process_batch`, which returns the loss, and `get_noise_pred_and_target`, which sees the latents.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from specreg import NoiseLevel, SpectralRegularizer, check_wiring, unpack_tokens, watch
from specreg.diffusion.parameterization import AnyPrediction


class _Call(NamedTuple):
    output: Tensor
    target: Tensor
    timesteps: Tensor
    latents: Tensor
    args: Any
    scheduler: Any
    x_t: Tensor | None
    """What the network was given, of the latents' shape; None after the first call, and where x_t is out of reach."""


def with_term(
    trainer: type, regularizer: SpectralRegularizer, *, prediction: AnyPrediction | None = None, check: bool = True
) -> type:
    """Return a subclass of a sd-scripts trainer whose training loss has the term; its validation loss has not.

    Args:
        trainer: `NetworkTrainer` or one that derives from it.
        regularizer: the term. Latents `[B, C, H, W]` are what it sees.
        prediction: what the network predicts; None for ε or v as `--v_parameterization` says, under a flow "flow",
            "velocity" where the trainer is Lumina's, whose target is x0 − ε, and "x0" where the target is the latents,
            as in SD3's, which turns the output into x0 before its loss.
        check: whether the first call passes target, x_t and latents through `check_wiring`, where the network is given
            x_t (Flux' 2×2 tokens too) with the noise of the target (no `--ip_noise_gamma`, no prior of the network) and
            at the time that is returned (HunyuanImage's is cut to whole steps).

    Per-sample weights (prior preservation) and masks of the batch count in the term as they do in the loss.
    """

    class WithTerm(trainer):  # type: ignore[misc]
        _call: _Call | None = None
        _unchecked = check

        def get_noise_pred_and_target(
            self,
            args: Any,
            accelerator: Any,
            noise_scheduler: Any,
            latents: Tensor,
            batch: dict[str, Any],
            text_encoder_conds: Any,
            unet: Any,
            *rest: Any,
            **kwargs: Any,
        ) -> tuple[Tensor, Tensor, Tensor, Any]:
            given = (args, accelerator, noise_scheduler, latents, batch, text_encoder_conds, unet, *rest)
            if not self._unchecked or not isinstance(unet, nn.Module) or _other_noise(args, batch):
                found, x_t = super().get_noise_pred_and_target(*given, **kwargs), None
            else:
                with watch(unet) as seen:
                    found = super().get_noise_pred_and_target(*given, **kwargs)
                    x_t = _as_latents(seen.x_t, latents)
            output, target, timesteps, weighting = found
            self._call = _Call(output, target, timesteps, latents, args, noise_scheduler, x_t)
            return output, target, timesteps, weighting

        def process_batch(self, batch: dict[str, Any], *rest: Any, **kwargs: Any) -> Tensor:
            base: Tensor = super().process_batch(batch, *rest, **kwargs)
            call, self._call = self._call, None
            if call is None:
                raise RuntimeError("expected process_batch to call get_noise_pred_and_target; it did not")
            if not torch.is_grad_enabled() or not call.output.requires_grad:
                return base
            level, kind = _level(call, trainer), prediction or _default(call, trainer)
            x0 = call.latents.reshape(call.output.shape)  # Anima's old caches have an axis of frames
            truncated = kind == "flow" and not call.timesteps.is_floating_point()  # HunyuanImage's: σ to 0.001
            if call.x_t is not None and not truncated:
                check_wiring(call.target, call.x_t.reshape(x0.shape), x0, level, prediction=kind)
                self._unchecked = False
            term = regularizer.from_output(
                call.output, call.target, level, prediction=kind, x0=x0, base_loss=base,
                sample_weight=batch["loss_weights"].to(base.device), mask=_mask(batch, call),
            )  # fmt: skip
            return base + term.loss

    WithTerm.__name__ = f"{trainer.__name__}WithTerm"
    return WithTerm


def _named(trainer: type, name: str) -> bool:
    return any(name in kind.__name__ for kind in trainer.__mro__)


def _default(call: _Call, trainer: type) -> AnyPrediction:
    if hasattr(call.scheduler, "alphas_cumprod"):
        return "v" if call.args.v_parameterization else "epsilon"
    if call.target is call.latents:
        return "x0"
    return "velocity" if _named(trainer, "Lumina") else "flow"


def _level(call: _Call, trainer: type) -> NoiseLevel:
    if (alphas := getattr(call.scheduler, "alphas_cumprod", None)) is not None:
        return NoiseLevel.ddpm(alphas.to(call.timesteps.device)[call.timesteps.long()])
    if (kind := getattr(call.args, "model_prediction_type", "raw")) != "raw":
        raise ValueError(f"--model_prediction_type: the term expects raw, the network's own output; got {kind}")
    largest = 1 if _named(trainer, "Anima") else call.scheduler.config.num_train_timesteps
    return NoiseLevel.flow(call.timesteps.float() / largest)


def _other_noise(args: Any, batch: dict[str, Any]) -> bool:
    """Return whether target and x_t are of different noise, or the target is a prior of the network."""
    attributes = batch.get("custom_attributes") or []
    return bool(getattr(args, "ip_noise_gamma", None)) or any("diff_output_preservation" in one for one in attributes)


def _as_latents(x_t: Tensor, latents: Tensor) -> Tensor | None:
    """Return what the network was given in the latents' shape, or None where it is neither latents nor 2×2 tokens."""
    if x_t.ndim == 3 and x_t.numel() == latents.numel():
        return unpack_tokens(x_t, *latents.shape[-2:]).detach()
    return x_t.detach() if x_t.numel() == latents.numel() else None


def _mask(batch: dict[str, Any], call: _Call) -> Tensor | None:
    """Return the mask `[B, 1, H, W]` in [0, 1] that the trainer multiplies its loss by, None where it has none."""
    alpha, image = batch.get("alpha_masks"), batch.get("conditioning_images")
    if image is not None and (alpha is not None or getattr(call.args, "masked_loss", False)):
        mask = image[:, :1] / 2 + 0.5  # the red channel, from [−1, 1]
    elif alpha is not None:
        mask = alpha.unsqueeze(1)
    else:
        return None
    return functional.interpolate(mask.to(call.output.device).float(), size=call.output.shape[-2:], mode="area")
