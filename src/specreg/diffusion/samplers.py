"""Samplers as functions of x0_hat, and one random stream a sample: DDIM and ancestral for discrete time, Heun for σ.

The papers' ᾱ_t (DDPM) and α_t (DDIM) are both `alpha_bar` here; ᾱ "before" the first step is 1, so the last
update returns x0_hat itself. All run without gradients, in float32 at least.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from specreg._checks import compute_dtype
from specreg.diffusion.precond import EDM, Preconditioning

PredictX0 = Callable[[Tensor, Tensor], Tensor]
"""The network: x_t `[B, ...]` and timesteps `[B]` (int64; for Heun σ, float64) to x0_hat `[B, ...]`."""

_Update = Callable[[Tensor, Tensor, float, float], tuple[Tensor, float]]
"""x_t, x0_hat, alpha_bar, alpha_bar_next to the mean and the standard deviation of the next x."""


class StackedGenerator:
    """One random stream a sample, so that sample k depends on its seed and not on its batch or its device.

    Numbers are drawn on the CPU and moved to `device`.
    """

    def __init__(self, seeds: Sequence[int], device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self._generators = [torch.Generator().manual_seed(int(seed)) for seed in seeds]

    def __len__(self) -> int:
        return len(self._generators)

    def randn(self, shape: Sequence[int], dtype: torch.dtype = torch.float32) -> Tensor:
        """Draw unit normal noise of `shape` `[B, ...]`, B being the number of seeds."""
        batch, *rest = shape
        if batch != len(self):
            raise ValueError(f"expected a batch of {len(self)}, one sample per seed; got shape {list(shape)}")
        return torch.stack([torch.randn(rest, generator=g, dtype=dtype) for g in self._generators]).to(self.device)

    def randint(self, high: int) -> Tensor:
        """Draw one whole number below `high` a sample, int64 `[B]`."""
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
    """Sample with DDIM (Song et al. 2021, Eq. 12 and 16) on evenly spaced timesteps, T−1 to 0 included.

    Args:
        predict_x0: see `PredictX0`.
        latents: unit normal noise, `[B, ...]`, taken as x at the last timestep.
        alphas_cumprod: ᾱ, `[T]`.
        steps: network calls, 1 to T.
        eta: from 0, deterministic, to 1, DDPM's variance.
        generator: the noise; needed when eta > 0.
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
    """Sample with DDPM (Ho et al. 2020): all T steps, each drawn from the posterior q(x_{t−1} | x_t, x0_hat).

    Arguments and result as in `ddim`.
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
    """Run `update` down `timesteps`, from latents to the clean sample."""
    alpha_bars = [*alphas_cumprod[list(timesteps)].tolist(), 1.0]
    x = latents.to(compute_dtype("latents", latents))
    for t, alpha_bar, alpha_bar_next in zip(timesteps, alpha_bars, alpha_bars[1:], strict=False):
        x0_hat = predict_x0(x, torch.full((len(x),), t, device=x.device)).to(x.dtype)
        if x0_hat.shape != x.shape:
            raise ValueError(f"predict_x0 must return the shape of x_t, {list(x.shape)}; got {list(x0_hat.shape)}")
        x0_hat = x0_hat if clip is None else x0_hat.clamp(*clip)
        x, std = update(x, x0_hat, alpha_bar, alpha_bar_next)
        if std > 0 and generator is not None:
            x = x + std * generator.randn(x.shape, x.dtype)
    return x


class Churn(NamedTuple):
    """Stochasticity of Algorithm 2 of Karras et al. 2022: S_churn, S_tmin, S_tmax and S_noise."""

    amount: float = 0.0
    low: float = 0.0
    high: float = math.inf
    noise: float = 1.0


def edm_sigmas(steps: int, *, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0) -> Tensor:
    """Noise levels from `sigma_max` to `sigma_min` (Karras et al. 2022, Eq. 5), float64 `[steps]`; a 0 follows them."""
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
    """Sample dx/dσ = (x − x0_hat)/σ with Heun's method (Karras et al. 2022, Algorithms 1 and 2).

    Args:
        predict_x0: the denoiser, called with x in float32 and σ `[B]` in float64.
        latents: unit normal noise, `[B, ...]`; x starts at σ_0 times it, and is float64 throughout.
        steps: noise levels; 2·steps − 1 network calls.
        sigma_min: the last level before 0.
        sigma_max: the first level.
        rho: how much the levels crowd towards `sigma_min`.
        churn: noise added before each step; None for the deterministic sampler.
        generator: the noise; needed with churn.
        second_order: False leaves Euler steps, which here are DDIM's (η = 0).
        preconditioning: of the network; the range of σ is clipped to its own, and levels rounded to those it knows.

    Returns:
        The samples `[B, ...]`, float64.
    """
    if churn is not None and churn.amount > 0 and generator is None:
        raise ValueError(f"churn of {churn.amount} adds noise at every step: pass generator=StackedGenerator(seeds)")
    known = preconditioning or EDM()
    low, high = max(sigma_min, known.sigma_min), min(sigma_max, known.sigma_max)
    sigmas = known.round_sigma(edm_sigmas(steps, sigma_min=low, sigma_max=high, rho=rho))

    def slope(x: Tensor, sigma: float) -> Tensor:
        level = torch.full((len(x),), sigma, dtype=torch.float64, device=x.device)
        x0_hat = predict_x0(x.float(), level).double()
        if x0_hat.shape != x.shape:
            raise ValueError(f"predict_x0 must return the shape of x_t, {list(x.shape)}; got {list(x0_hat.shape)}")
        return (x - x0_hat) / sigma

    x = latents.double() * float(sigmas[0])
    for sigma, sigma_next in itertools.pairwise([*sigmas.tolist(), 0.0]):
        start = sigma
        if churn is not None and generator is not None and churn.low <= sigma <= churn.high:
            gamma = min(churn.amount / steps, math.sqrt(2) - 1)
            start = float(known.round_sigma(torch.tensor(sigma * (1 + gamma), dtype=torch.float64)))
            added = math.sqrt(max(start**2 - sigma**2, 0.0)) * churn.noise
            x = x + added * generator.randn(x.shape, torch.float64)
        d = slope(x, start)
        moved = x + (sigma_next - start) * d
        if second_order and sigma_next > 0:
            moved = x + (sigma_next - start) * 0.5 * (d + slope(moved, sigma_next))
        x = moved
    return x
