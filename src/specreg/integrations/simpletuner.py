"""SimpleTuner: the term in its models' `auxiliary_loss`. Read from SimpleTuner at commit bc8e6ab (August 2026).

Before its trainer starts, in a launcher that ends as its `train.py` does:

    from simpletuner.helpers.models.flux.model import Flux
    add_term(Flux, regularizer)

SimpleTuner is under the AGPL; nothing of it is copied or imported here.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from specreg import NoiseLevel, SpectralRegularizer
from specreg.diffusion.parameterization import AnyPrediction

PREDICTIONS: dict[str, AnyPrediction] = {"flow_matching": "flow", "epsilon": "epsilon", "v_prediction": "v"}
"""Its prediction types, and the names of `recover_x0`."""


def add_term(
    model: Any, regularizer: SpectralRegularizer, *, prediction: AnyPrediction | None = None, check: bool = True
) -> None:
    """Add the term to `auxiliary_loss` of a model class or a model, in place.

    Args:
        model: a class of SimpleTuner's model families, or an object of one.
        regularizer: the term.
        prediction: what the network predicts; None for what the model's PREDICTION_TYPE says. A flow whose target is
            x0 − ε is "velocity".
        check: whether the first call checks that with `check_wiring`, where x_t is of the noise of the target (no input
            perturbation) and the target is not another network's output. Not with MixFlow or scheduled sampling, whose
            x_t is of another level.
    """
    plain = model.auxiliary_loss
    bound = not isinstance(model, type)

    @functools.wraps(plain)
    def auxiliary_loss(*args: Any, **kwargs: Any) -> tuple[Tensor, dict[str, Any] | None]:
        owner = model if bound else args[0]
        loss, logs = plain(*args, **kwargs)
        output = kwargs["model_output"]["model_prediction"]
        if not torch.is_grad_enabled() or not output.requires_grad:
            return loss, logs
        batch = kwargs["prepared_batch"]
        said = owner.PREDICTION_TYPE.value
        kind = prediction or PREDICTIONS.get(said)
        if kind is None:
            raise ValueError(f"PREDICTION_TYPE: expected {', '.join(PREDICTIONS)}, or prediction=; got {said}")
        if said == "flow_matching":
            level = NoiseLevel.flow(batch["sigmas"])
        else:
            level = NoiseLevel.from_diffusers(owner.noise_schedule, batch["timesteps"])
        usual = batch.get("target") is None and batch.get("input_noise", batch["noise"]) is batch["noise"]
        term = regularizer.from_output(
            output, owner.get_prediction_target(batch), level, prediction=kind, x0=batch["latents"],
            x_t=batch["noisy_latents"], base_loss=kwargs["loss"], check=check and usual,
        )  # fmt: skip
        spectral = {"spectral_loss": float(term.loss.detach()), "spectral_lambda": float(term.lam)}
        return loss + term.loss, {**(logs or {}), **spectral}

    model.auxiliary_loss = auxiliary_loss
