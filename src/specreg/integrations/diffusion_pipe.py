"""diffusion-pipe: the term in its pipelines' loss. Read from diffusion-pipe at commit 8f83dbf (August 2026).

In its `train.py`, after the model is built and before `get_loss_fn` is called:

    from specreg.integrations.diffusion_pipe import add_term
    add_term(model, regularizer, time=lambda features: features[3], patch=2)    # Flux

Its loss sees output and label alone. So clean latents and times travel in the label, through the pipeline's stages.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from specreg import NoiseLevel, SpectralRegularizer, check_wiring, unpack_tokens
from specreg.diffusion.parameterization import AnyPrediction


def add_term(
    model: Any,
    regularizer: SpectralRegularizer,
    *,
    time: Callable[[Sequence[Any]], Tensor],
    level: Callable[[Tensor], NoiseLevel] = NoiseLevel.flow,
    prediction: AnyPrediction = "flow",
    patch: int | None = None,
    check: bool = True,
) -> None:
    """Add the term to the loss function of a model, in place.

    Args:
        model: a model with `prepare_inputs` and `get_loss_fn`, whose label is (target, mask).
        regularizer: the term.
        time: the times `[B]` among the features that `prepare_inputs` returns.
        level: noise level of these times; for SDXL `lambda t: NoiseLevel.ddpm(scheduler.alphas_cumprod[t])`.
        prediction: what the network predicts.
        patch: side of the squares that tokens are made of, None where output and target are latents.
        check: whether the first call passes target, x_t and latents through `check_wiring`, where the first feature is
            x_t and nothing else (no control latents).

    A mask counts in the term as it does in the loss. With `patch`, λ is measured beside the mean squared error.

    Raises ValueError for an automatic λ with several pipeline stages: every process would have to see the loss.
    """
    if regularizer.automatic and getattr(model, "config", {}).get("pipeline_stages", 1) > 1:
        raise ValueError('weight="auto" needs pipeline_stages = 1, where every process sees the loss; pass a number')
    prepare, build = model.prepare_inputs, model.get_loss_fn
    unchecked = check

    def prepare_inputs(inputs: dict[str, Any], *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        nonlocal unchecked
        features, label = prepare(inputs, *args, **kwargs)
        if len(label) != 2:
            raise ValueError(f"expected a label of target and mask; {type(model).__name__} has {len(label)} parts")
        target, mask = label
        x0, t = inputs["latents"].float(), time(features)
        if unchecked and features[0].numel() == x0.numel() == target.numel():
            found, x_t = (_as_latents(x, x0, patch) for x in (target, features[0]))
            check_wiring(found, x_t, x0, level(t), prediction=prediction)
            unchecked = False
        return features, (target, x0, t, mask)

    def get_loss_fn() -> Callable[[Any, Any], Tensor]:
        plain = build()

        def loss_fn(output: Any, label: Any) -> Tensor:
            target, x0, t, mask = label
            base: Tensor = plain(output, (target, mask))
            predicted = output[0] if isinstance(output, (tuple, list)) else output
            if not torch.is_grad_enabled() or not predicted.requires_grad:
                return base
            device = predicted.device
            target, x0 = target.to(device), x0.to(device)
            seen = mask.to(device).expand_as(target) if mask.numel() else None
            measured: dict[str, Any] = {"base_loss": base}
            if patch is not None:
                height, width = x0.shape[-2:]
                predicted, target = (unpack_tokens(x, height, width, patch=patch) for x in (predicted, target))
                seen = unpack_tokens(seen, height, width, patch=patch) if seen is not None else None
                measured = {}  # the base loss is one of tokens; beside the mean squared error of latents λ is the same
            term = regularizer.from_output(
                predicted, target, level(t.to(device)), prediction=prediction, x0=x0, mask=seen, **measured
            )
            return base + term.loss

        return loss_fn

    model.prepare_inputs, model.get_loss_fn = prepare_inputs, get_loss_fn


def _as_latents(x: Tensor, x0: Tensor, patch: int | None) -> Tensor:
    return x.reshape(x0.shape) if patch is None else unpack_tokens(x, *x0.shape[-2:], patch=patch)
