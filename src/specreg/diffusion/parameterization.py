"""The clean sample from the network's output: every parameterization is affine and has four coefficients.

With x_t = alpha·x0 + sigma·eps,

    x0_hat = a·x_t + b·output        and        output = c·x0 + d·eps    for the perfect network.

The formulas hold for any alpha, sigma ≥ 0, not both 0; they reduce to the familiar ones where
alpha² + sigma² = 1 (v-prediction) or alpha + sigma = 1 (flow).

    epsilon   eps
    v         (alpha·eps − sigma·x0) / √(alpha² + sigma²)      (so diffusers' Euler, with alpha = 1)
    x0        x0
    flow      eps − x0
    velocity  x0 − eps      (flow matching with data at t = 1: torchcfm, flow_matching, Z-Image)
    score     ∇ log p(x_t | x0) = −eps / sigma
    edm       EDM's raw F: D(x; s) = c_skip·x + c_out·F, with x = x_t/alpha and s = sigma/alpha
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from specreg._checks import choice
from specreg.diffusion import diffusers_schedulers
from specreg.diffusion.noise_level import NoiseLevel, can_read, check_level, combine

Prediction = Literal["epsilon", "v", "x0", "flow", "velocity", "score", "edm"]

PredictionAlias = Literal[
    "v_prediction", "sample", "flow_prediction", "pred_noise", "pred_v", "pred_x0", "noise", "eps", "x_start"
]
"""The same under the names that diffusers, lucidrains' packages and others use."""

_ALIASES = {
    "v_prediction": "v",
    "sample": "x0",
    "flow_prediction": "flow",
    "pred_noise": "epsilon",
    "pred_v": "v",
    "pred_x0": "x0",
    "noise": "epsilon",
    "eps": "epsilon",
    "x_start": "x0",
}


class Scheduler(Protocol):
    """A diffusers scheduler, whose config says what its network predicts."""

    @property
    def config(self) -> Any:
        """Its options."""


AnyPrediction = Prediction | PredictionAlias | Scheduler
"""What a network predicts: a name, or a diffusers scheduler that says it."""


class _Affine(NamedTuple):
    """x0_hat = a·x_t + b·output; output = c·x0 + d·eps. Each `[B]`."""

    a: Tensor
    b: Tensor
    c: Tensor
    d: Tensor


def _epsilon(alpha: Tensor, sigma: Tensor, sigma_data: float) -> _Affine:
    return _Affine(1 / alpha, -sigma / alpha, torch.zeros_like(alpha), torch.ones_like(alpha))


def _v(alpha: Tensor, sigma: Tensor, sigma_data: float) -> _Affine:
    norm = torch.hypot(alpha, sigma)
    return _Affine(alpha / norm**2, -sigma / norm, -sigma / norm, alpha / norm)


def _x0(alpha: Tensor, sigma: Tensor, sigma_data: float) -> _Affine:
    zero, one = torch.zeros_like(alpha), torch.ones_like(alpha)
    return _Affine(zero, one, one, zero)


def _flow(alpha: Tensor, sigma: Tensor, sigma_data: float) -> _Affine:
    total, one = alpha + sigma, torch.ones_like(alpha)
    return _Affine(1 / total, -sigma / total, -one, one)


def _velocity(alpha: Tensor, sigma: Tensor, sigma_data: float) -> _Affine:
    a, b, c, d = _flow(alpha, sigma, sigma_data)
    return _Affine(a, -b, -c, -d)


def _score(alpha: Tensor, sigma: Tensor, sigma_data: float) -> _Affine:
    return _Affine(1 / alpha, sigma**2 / alpha, torch.zeros_like(alpha), -1 / sigma)


def _edm(alpha: Tensor, sigma: Tensor, sigma_data: float) -> _Affine:
    # a = c_skip/alpha, b = c_out with c_skip = σ_d²/(s² + σ_d²), c_out = s·σ_d/√(s² + σ_d²).
    norm = torch.hypot(sigma, alpha * sigma_data)
    a, b = alpha * (sigma_data / norm) ** 2, sigma * sigma_data / norm
    return _Affine(a, b, sigma / (sigma_data * norm), -alpha * sigma_data / norm)


_TABLE: dict[str, Callable[[Tensor, Tensor, float], _Affine]] = {
    "epsilon": _epsilon,
    "v": _v,
    "x0": _x0,
    "flow": _flow,
    "velocity": _velocity,
    "score": _score,
    "edm": _edm,
}


def _output(prediction: AnyPrediction) -> diffusers_schedulers.Output:
    """Return a prediction's name in `_TABLE`, with the sigma_data and the sign that a scheduler gives it."""
    if isinstance(prediction, str):
        name = choice("prediction", prediction, (*_TABLE, *_ALIASES))
        return diffusers_schedulers.Output(_ALIASES.get(name, name))
    if isinstance(prediction, type) or not hasattr(prediction, "config"):
        named = f"the class {prediction.__name__}" if isinstance(prediction, type) else f"a {type(prediction).__name__}"
        raise TypeError(
            f"prediction must be a name, such as {', '.join(_TABLE)}, or a diffusers scheduler (the object, not its "
            f"class or config); got {named}"
        )
    found = diffusers_schedulers.prediction_of(prediction)
    return found._replace(prediction=_ALIASES.get(found.prediction, found.prediction))


def prediction_name(prediction: AnyPrediction) -> str:
    """Return what a network predicts by the name that it has in `recover_x0`: "epsilon", "v", "x0", …

    Raises as `coefficients` does.
    """
    return _output(prediction).prediction


def _affine(level: NoiseLevel, prediction: AnyPrediction, sigma_data: float) -> _Affine:
    check_level(level)
    name, own, sign = _output(prediction)
    a, b, c, d = _TABLE[name](level.alpha, level.sigma, sigma_data if own is None else own)
    return _Affine(a, sign * b, sign * c, sign * d)


def coefficients(level: NoiseLevel, prediction: AnyPrediction, *, sigma_data: float = 0.5) -> tuple[Tensor, Tensor]:
    """Return a and b, each `[B]`, of x0_hat = a·x_t + b·output.

    Args:
        level: the level of x_t.
        prediction: what the network predicts, by name here or elsewhere ("v_prediction", "pred_noise", …), or the
            diffusers scheduler that it is trained with, which also knows its sigma_data.
        sigma_data: standard deviation of the data; only "edm" uses it.

    Raises:
        TypeError: for a level that is no NoiseLevel, and a prediction that is neither a name nor a scheduler.
        ValueError: for an unknown prediction, and where alpha = 0, so that x_t is pure noise, for predictions that
            do not determine x0 there. On an accelerator the coefficients are infinite instead.
    """
    a, b, _, _ = _affine(level, prediction, sigma_data)
    if can_read(a) and not bool(a.isfinite().all()):
        raise ValueError(
            f"{prediction!r} does not determine x0 where alpha = 0 (zero terminal SNR): "
            f"expected alpha > 0, got alpha = {level.alpha.tolist()}"
        )
    return a, b


def recover_x0(
    model_output: Tensor,
    x_t: Tensor,
    level: NoiseLevel,
    *,
    prediction: AnyPrediction,
    sigma_data: float = 0.5,
) -> Tensor:
    """Return the clean sample x0_hat that the network's output implies (Eq. 5 of the paper, for any prediction).

    Args:
        model_output: what the network returned, `[B, ...]`.
        x_t: the noisy sample of the same shape, unscaled (for EDM: before c_in).
        level: the level of x_t, of B values or 1.
        prediction: see `coefficients`.
        sigma_data: standard deviation of the data; only "edm" uses it.

    Returns:
        x0_hat `[B, ...]`, float64 if an input is, else float32: half precision has too few bits for the
        difference of two numbers σ/α times larger than x0.

    Raises:
        ValueError: for shapes that do not match, and as `coefficients` does.
    """
    a, b = coefficients(level, prediction, sigma_data=sigma_data)
    return combine(a, x_t, b, model_output)


def target(
    x0: Tensor,
    noise: Tensor,
    level: NoiseLevel,
    *,
    prediction: AnyPrediction,
    sigma_data: float = 0.5,
) -> Tensor:
    """Return what the network should output at `level.diffuse(x0, noise)`: the regression target, `[B, ...]`.

    `x0` and `noise` have one shape `[B, ...]`; options and dtype as in `recover_x0`.
    """
    _, _, c, d = _affine(level, prediction, sigma_data)
    return combine(c, x0, d, noise)


def ddim_estimate(
    predict_x0: Callable[[Tensor, NoiseLevel], Tensor],
    x_t: Tensor,
    levels: Sequence[NoiseLevel],
    *,
    checkpoint: bool = False,
) -> Tensor:
    """Return x0_hat after `len(levels)` network calls of deterministic DDIM, differentiably.

    One level is Eq. 5 of the paper; more are an unrolled sampler (Bastek et al., "Physics-informed diffusion
    models", algorithm 1), whose error against the probability-flow ODE falls as 1/len(levels).

    Args:
        predict_x0: the network as a function of x_t `[B, ...]` and its level, returning x0_hat `[B, ...]`.
        x_t: the noisy sample, `[B, ...]`.
        levels: the level of x_t first, then ever less noisy ones.
        checkpoint: recompute each call in the backward pass. Memory then holds the activations of one call at a
            time instead of all calls. Costs one more forward pass per call.

    Raises:
        ValueError: for no levels, for levels whose noise does not fall (CPU only), and for shapes that do not match.
    """
    if not levels:
        raise ValueError("levels must hold at least the level of x_t; got none")
    for i, (level, following) in enumerate(itertools.pairwise(levels)):
        falls = (level.sigma > 0) & (following.log_snr >= level.log_snr)
        if can_read(falls) and not bool(falls.all()):
            raise ValueError(f"levels must fall from noisy to clean; levels[{i + 1}] does not follow levels[{i}]")
    if checkpoint:
        from torch.utils.checkpoint import checkpoint as run_checkpointed  # imports sympy with torch 2.4, half a second

        predict_x0 = functools.partial(run_checkpointed, predict_x0, use_reentrant=False)

    x = x_t
    x0_hat = predict_x0(x, levels[0])
    for level, following in itertools.pairwise(levels):
        eps = combine(1 / level.sigma, x, -level.alpha / level.sigma, x0_hat)
        x = following.diffuse(x0_hat, eps)
        x0_hat = predict_x0(x, following)
    return x0_hat
