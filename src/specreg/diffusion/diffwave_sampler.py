"""DiffWave's sampler (Kong et al. 2021, algorithm 2 and appendix B), with the training schedule or a faster one.

    x_{n−1} = (x_n − β_n/√(1 − ᾱ_n) · ε̂) / √(1 − β_n) + σ_n z,    σ_n² = (1 − ᾱ_{n−1})/(1 − ᾱ_n) · β_n

The network takes training steps only, so it gets the fractional training step whose ᾱ a step of the fast schedule has.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from specreg._checks import compute_dtype
from specreg.diffusion.noise_level import NoiseLevel
from specreg.diffusion.samplers import StackedGenerator
from specreg.diffusion.schedules import fractional_timestep

PredictNoise = Callable[[Tensor, Tensor], Tensor]
"""The network: from x_t `[B, ...]` and training steps `[B]` (fractional, float32) to the noise in x_t, `[B, ...]`."""


def fast_steps(betas: Sequence[float], inference_betas: Sequence[float]) -> Tensor:
    """Return the fractional training step, float64 `[N]`, of each step of a fast schedule.

    Args:
        betas: β of the T training steps, each in (0, 1).
        inference_betas: β of the N steps of the fast schedule, from clean to noisy.

    Raises:
        ValueError: the fast schedule has a noise level outside the training schedule.
    """
    trained, asked = _alpha_bars("betas", betas), _alpha_bars("inference_betas", inference_betas)
    # The public fast schedule starts at the first training level itself, so rounding may place it slightly outside.
    slack = 1e-9
    outside = (asked > trained[0] + slack) | (asked < trained[-1] - slack)
    if bool(outside.any()):
        raise ValueError(
            f"inference_betas must keep ᾱ within the training schedule's, {trained[-1]:.4g} to {trained[0]:.4g}; "
            f"got {asked[outside][0]:.4g} at step {int(outside.nonzero()[0])}"
        )
    return fractional_timestep(trained, NoiseLevel.ddpm(asked))


@torch.no_grad()
def diffwave(
    predict_noise: PredictNoise,
    latents: Tensor,
    betas: Sequence[float],
    *,
    inference_betas: Sequence[float] | None = None,
    generator: StackedGenerator,
    clip: tuple[float, float] | None = (-1.0, 1.0),
) -> Tensor:
    """Return sound sampled with DiffWave, in float32 at least.

    Args:
        predict_noise: see `PredictNoise`; for a vocoder `lambda x, t: network(x, t, mel)`.
        latents: unit normal noise, `[B, ...]`.
        betas: β of the training steps.
        inference_betas: β of a fast schedule; None for all training steps.
        generator: source of the noise of every step but the last.
        clip: bounds of x after each step, by default those of the public code; None for no bounds.

    Returns:
        The samples `[B, ...]`.

    Raises:
        ValueError: the fast schedule leaves the training schedule, or the network returns another shape than x_t.
    """
    chosen = betas if inference_betas is None else inference_betas
    steps = fast_steps(betas, chosen).tolist()
    alpha_bars = [1.0, *_alpha_bars("betas", chosen).tolist()]
    x = latents.to(compute_dtype("latents", latents))
    for n in reversed(range(len(steps))):
        t = torch.full((len(x),), steps[n], dtype=torch.float32, device=x.device)
        eps = predict_noise(x, t).to(x.dtype)
        if eps.shape != x.shape:
            raise ValueError(f"predict_noise must return the shape of x_t, {list(x.shape)}; got {list(eps.shape)}")
        beta, before, alpha_bar = float(chosen[n]), alpha_bars[n], alpha_bars[n + 1]
        x = (x - beta / math.sqrt(1 - alpha_bar) * eps) / math.sqrt(1 - beta)
        if n > 0:
            x = x + math.sqrt((1 - before) / (1 - alpha_bar) * beta) * generator.randn(x.shape, x.dtype)
        x = x if clip is None else x.clamp(*clip)
    return x


def _alpha_bars(name: str, betas: Sequence[float]) -> Tensor:
    values = torch.tensor([float(beta) for beta in betas], dtype=torch.float64)
    if not len(values) or not bool(((values > 0) & (values < 1)).all()):
        raise ValueError(f"{name} must hold numbers between 0 and 1, at least one; got {values.tolist()}")
    return (1 - values).cumprod(0)
