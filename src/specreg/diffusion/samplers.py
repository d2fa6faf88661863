"""Samplers as functions of x0_hat: DDIM and ancestral for timesteps, Heun for σ and for flow matching's t.

The papers' ᾱ_t (DDPM) and α_t (DDIM) are both `alpha_bar` here; ᾱ before the first step is 1, so the last update
returns x0_hat. Every sampler runs without gradients, in float32 at least, and each sample has its own random stream.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from specreg._checks import compute_dtype, widest_dtype
from specreg.diffusion.precond import EDM, Preconditioning

PredictX0 = Callable[[Tensor, Tensor], Tensor]
"""The denoiser: from x_t `[B, ...]` and times `[B]` to x0_hat `[B, ...]`.

Times are timesteps (int64) for `ddim` and `ancestral`, σ for `heun` and t for `flow` (float64 where the device has it).
"""

_Update = Callable[[Tensor, Tensor, float, float], tuple[Tensor, float]]
"""From x_t, x0_hat, alpha_bar and alpha_bar_next to the mean and the standard deviation of the next x."""

_Slope = Callable[[Tensor, float], Tensor]
"""From x and a noise level to the derivative of x along the noise level."""


class StackedGenerator:
    """Random numbers with one stream per sample: sample k depends on its seed, not on its batch or its device.

    Numbers are drawn on the CPU and moved to `device`.

    Args:
        seeds: one seed per sample.
        device: where the numbers are needed.
    """

    def __init__(self, seeds: Sequence[int], device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self._generators = [torch.Generator().manual_seed(int(seed)) for seed in seeds]

    def __len__(self) -> int:
        return len(self._generators)

    def randn(self, shape: Sequence[int], dtype: torch.dtype = torch.float32) -> Tensor:
        """Return unit normal noise of `shape` `[B, ...]`, B the number of seeds.

        On a device without float64, float64 numbers are drawn and rounded to float32.
        """
        batch, *rest = shape
        if batch != len(self):
            raise ValueError(f"expected a batch of {len(self)}, one sample per seed; got shape {list(shape)}")
        drawn = torch.stack([torch.randn(rest, generator=g, dtype=dtype) for g in self._generators])
        there = widest_dtype(self.device) if dtype == torch.float64 else dtype
        return drawn.to(there).to(self.device)

    def randint(self, high: int) -> Tensor:
        """Return one random whole number below `high` per sample, int64 `[B]`."""
        return torch.cat([torch.randint(high, (1,), generator=g) for g in self._generators]).to(self.device)


def ddim(
    predict_x0: PredictX0,
    latents: Tensor,
    alphas_cumprod: Tensor,
    *,
    steps: int = 50,
    eta: float = 0.0,
    generator: StackedGenerator | None = None,
    clip: tuple[float, float] | None = None,
) -> Tensor:
    """Return samples of DDIM (Song et al. 2021, Eq. 12 and 16) on evenly spaced timesteps from T−1 to 0, both included.

    Args:
        predict_x0: see `PredictX0`.
        latents: unit normal noise, `[B, ...]`, taken as x at the last timestep.
        alphas_cumprod: ᾱ, `[T]`.
        steps: network calls, 1 to T.
        eta: 0 for the deterministic sampler, 1 for DDPM's variance, or between.
        generator: source of the noise; required when eta > 0.
        clip: bounds for x0_hat; the noise estimate then follows from the clipped x0_hat.

    Returns:
        The samples `[B, ...]`.
    """
    if not 1 <= steps <= len(alphas_cumprod):
        raise ValueError(f"steps must be between 1 and the {len(alphas_cumprod)} training timesteps; got {steps}")
    if not 0 <= eta <= 1:
        raise ValueError(f"eta must be between 0 and 1; got {eta}")
    if eta > 0 and generator is None:
        raise ValueError(f"eta = {eta} adds noise at every step: pass generator=StackedGenerator(seeds)")

    def update(x: Tensor, x0_hat: Tensor, alpha_bar: float, alpha_bar_next: float) -> tuple[Tensor, float]:
        eps = (x - math.sqrt(alpha_bar) * x0_hat) / math.sqrt(1 - alpha_bar)
        # (16)
        std = eta * math.sqrt((1 - alpha_bar_next) / (1 - alpha_bar) * (1 - alpha_bar / alpha_bar_next))
        # (12), without its noise
        direction = math.sqrt(max(1 - alpha_bar_next - std**2, 0.0))
        return math.sqrt(alpha_bar_next) * x0_hat + direction * eps, std

    timesteps = torch.linspace(len(alphas_cumprod) - 1, 0, steps, dtype=torch.float64).round().long()
    return _descend(predict_x0, latents, alphas_cumprod, timesteps.tolist(), update, generator, clip)


def ancestral(
    predict_x0: PredictX0,
    latents: Tensor,
    alphas_cumprod: Tensor,
    *,
    generator: StackedGenerator,
    clip: tuple[float, float] | None = None,
) -> Tensor:
    """Return samples of DDPM (Ho et al. 2020): T steps, each drawn from the posterior q(x_{t−1} | x_t, x0_hat).

    Arguments and result are those of `ddim`.
    """

    def update(x: Tensor, x0_hat: Tensor, alpha_bar: float, alpha_bar_next: float) -> tuple[Tensor, float]:
        # (7): mean and variance of the posterior
        alpha = alpha_bar / alpha_bar_next
        weight_x0 = math.sqrt(alpha_bar_next) * (1 - alpha) / (1 - alpha_bar)
        weight_x = math.sqrt(alpha) * (1 - alpha_bar_next) / (1 - alpha_bar)
        variance = (1 - alpha_bar_next) / (1 - alpha_bar) * (1 - alpha)
        return weight_x0 * x0_hat + weight_x * x, math.sqrt(variance)

    timesteps = list(range(len(alphas_cumprod) - 1, -1, -1))
    return _descend(predict_x0, latents, alphas_cumprod, timesteps, update, generator, clip)


@torch.no_grad()
def _descend(
    predict_x0: PredictX0,
    latents: Tensor,
    alphas_cumprod: Tensor,
    timesteps: Sequence[int],
    update: _Update,
    generator: StackedGenerator | None,
    clip: tuple[float, float] | None,
) -> Tensor:
    """Return the samples after `update` has run over all `timesteps`, from the latents."""
    alpha_bars = [*alphas_cumprod[list(timesteps)].tolist(), 1.0]
    x = latents.to(compute_dtype("latents", latents))
    for t, alpha_bar, alpha_bar_next in zip(timesteps, alpha_bars, alpha_bars[1:], strict=False):
        x0_hat = _checked(predict_x0(x, torch.full((len(x),), t, device=x.device)), x, clip)
        x, std = update(x, x0_hat, alpha_bar, alpha_bar_next)
        if std > 0 and generator is not None:
            x = x + std * generator.randn(x.shape, x.dtype)
    return x


def _checked(x0_hat: Tensor, x: Tensor, clip: tuple[float, float] | None) -> Tensor:
    """Return x0_hat in the dtype of `x`, clipped; raise ValueError where its shape differs."""
    if x0_hat.shape != x.shape:
        raise ValueError(f"predict_x0 must return the shape of x_t, {list(x.shape)}; got {list(x0_hat.shape)}")
    x0_hat = x0_hat.to(x.dtype)
    return x0_hat if clip is None else x0_hat.clamp(*clip)


class Churn(NamedTuple):
    """Stochasticity of Algorithm 2 of Karras et al. 2022: S_churn, S_tmin, S_tmax and S_noise."""

    amount: float = 0.0
    low: float = 0.0
    high: float = math.inf
    noise: float = 1.0


def edm_sigmas(steps: int, *, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0) -> Tensor:
    """Return noise levels from `sigma_max` to `sigma_min` (Karras et al. 2022, Eq. 5), float64 `[steps]`."""
    if steps < 1:
        raise ValueError(f"steps must be at least 1; got {steps}")
    if not 0 < sigma_min < sigma_max < math.inf:
        raise ValueError(f"expected 0 < sigma_min < sigma_max < inf; got {sigma_min} and {sigma_max}")
    # (5)
    i = torch.arange(steps, dtype=torch.float64) / max(1, steps - 1)
    first, last = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    sigmas: Tensor = (first + i * (last - first)) ** rho
    return sigmas


@torch.no_grad()
def heun(
    predict_x0: PredictX0,
    latents: Tensor,
    *,
    steps: int = 18,
    sigma_min: float = 0.002,
    sigma_max: float = 80.0,
    rho: float = 7.0,
    churn: Churn | None = None,
    generator: StackedGenerator | None = None,
    second_order: bool = True,
    preconditioning: Preconditioning | None = None,
) -> Tensor:
    """Return samples of dx/dσ = (x − x0_hat)/σ by Heun's method (Karras et al. 2022, Algorithms 1 and 2).

    Args:
        predict_x0: the denoiser, called with x in float32 and σ `[B]`.
        latents: unit normal noise, `[B, ...]`; x starts at σ_0 times it.
        steps: number of noise levels; the network is called 2·steps − 1 times.
        sigma_min: the last level before 0.
        sigma_max: the first level.
        rho: how densely the levels lie near `sigma_min`.
        churn: noise added before each step; None for the deterministic sampler.
        generator: source of the noise; required with churn.
        second_order: False for Euler steps, which here are DDIM's (η = 0).
        preconditioning: of the network; σ is clipped to its range and rounded to its levels.

    Returns:
        The samples `[B, ...]`, as the state of the solver float64 (float32 on a device without it).
    """
    if churn is not None and churn.amount > 0 and generator is None:
        raise ValueError(f"churn of {churn.amount} adds noise at every step: pass generator=StackedGenerator(seeds)")
    known = preconditioning or EDM()
    low, high = max(sigma_min, known.sigma_min), min(sigma_max, known.sigma_max)
    sigmas = known.round_sigma(edm_sigmas(steps, sigma_min=low, sigma_max=high, rho=rho))
    slope = _slope(predict_x0)
    x = latents.to(widest_dtype(latents.device)) * float(sigmas[0])
    for sigma, sigma_next in itertools.pairwise([*sigmas.tolist(), 0.0]):
        start = sigma
        if churn is not None and churn.low <= sigma <= churn.high:
            gamma = min(churn.amount / steps, math.sqrt(2) - 1)
            start = float(known.round_sigma(torch.tensor(sigma * (1 + gamma), dtype=torch.float64)))
            added = math.sqrt(max(start**2 - sigma**2, 0.0)) * churn.noise
            if added > 0 and generator is not None:
                x = x + added * generator.randn(x.shape, torch.float64)
        x = _step(slope, x, start, sigma_next, second_order=second_order)
    return x


@torch.no_grad()
def flow(
    predict_x0: PredictX0,
    latents: Tensor,
    *,
    steps: int = 50,
    second_order: bool = True,
    clip: tuple[float, float] | None = None,
) -> Tensor:
    """Return samples of flow matching: dx/dt = (x − x0_hat)/t along x_t = (1 − t)·x0 + t·ε, from t = 1 to 0.

    The derivative is the velocity ε − x0 (Lipman et al. 2023; Liu et al. 2023) written with x0_hat. t runs evenly.

    Args:
        predict_x0: the denoiser, called with x in float32 and t `[B]`.
        latents: unit normal noise, `[B, ...]`, taken as x at t = 1.
        steps: number of steps; the network is called 2·steps − 1 times, or `steps` times with Euler's method.
        second_order: True for Heun's method, False for Euler's.
        clip: bounds for x0_hat.

    Returns:
        The samples `[B, ...]`, as the state of the solver float64 (float32 on a device without it).
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1; got {steps}")
    slope = _slope(predict_x0, clip)
    x = latents.to(widest_dtype(latents.device))
    for i in range(steps, 0, -1):
        x = _step(slope, x, i / steps, (i - 1) / steps, second_order=second_order)
    return x


def _slope(predict_x0: PredictX0, clip: tuple[float, float] | None = None) -> _Slope:
    """Return (x − x0_hat)/level, the derivative of x along σ on EDM's path and along t on the straight path."""

    def slope(x: Tensor, level: float) -> Tensor:
        levels = torch.full((len(x),), level, dtype=x.dtype, device=x.device)
        return (x - _checked(predict_x0(x.float(), levels), x, clip)) / level

    return slope


def _step(slope: _Slope, x: Tensor, level: float, level_next: float, *, second_order: bool) -> Tensor:
    """Return x at `level_next` by Heun's method, or by Euler's where it is 0 or `second_order` is False."""
    d = slope(x, level)
    moved = x + (level_next - level) * d
    if second_order and level_next > 0:
        moved = x + (level_next - level) * 0.5 * (d + slope(moved, level_next))
    return moved
