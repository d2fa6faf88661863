"""Noise schedules and their inverses. Tables are float64: 1 − ᾱ is 1e-4 at the first step."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from specreg import _checks
from specreg.diffusion.noise_level import NoiseLevel

Schedule = Literal["linear", "scaled_linear", "cosine"]


def alphas_cumprod(
    schedule: Schedule, timesteps: int = 1000, *, beta_start: float = 1e-4, beta_end: float = 0.02
) -> Tensor:
    """Return ᾱ_t = ∏ (1 − β_s), s ≤ t, for t = 0 … T−1: float64 `[T]`, falling from near 1 towards 0.

    Args:
        schedule: "linear", β evenly from `beta_start` to `beta_end` (as DDPM and DiffWave), "scaled_linear", √β
            evenly between theirs (as latent diffusion), or "cosine" (Nichol and Dhariwal, s = 0.008, β at most 0.999),
            which takes no β.
        timesteps: T, at least 1. β is not rescaled with it.
        beta_start: first β.
        beta_end: last β.
    """
    if timesteps < 1:
        raise ValueError(f"timesteps must be at least 1; got {timesteps}")
    if _checks.choice("schedule", schedule, ("linear", "scaled_linear", "cosine")) != "cosine":
        if not 0 < beta_start <= beta_end < 1:
            raise ValueError(f"expected 0 < beta_start <= beta_end < 1; got {beta_start} and {beta_end}")
        power = 1 if schedule == "linear" else 0.5
        betas = torch.linspace(beta_start**power, beta_end**power, timesteps, dtype=torch.float64) ** (1 / power)
    else:
        t = torch.linspace(0, 1, timesteps + 1, dtype=torch.float64)
        f = torch.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2
        betas = (1 - f[1:] / f[:-1]).clamp(max=0.999)
    return (1 - betas).cumprod(0)


def fractional_timestep(alphas_cumprod: Tensor, level: NoiseLevel) -> Tensor:
    """Return the fractional t in [0, T−1] at which a network trained on `alphas_cumprod` knows `level`.

    √ᾱ is interpolated linearly between steps, as DiffWave does for its fast schedule. Levels with
    alpha² + sigma² ≠ 1 (EDM, flow) are matched by SNR: feed the network x_t / √(alpha² + sigma²). Levels
    beyond either end of the table get that end.

    Args:
        alphas_cumprod: falling ᾱ, `[T]`, T ≥ 2.
        level: B levels.

    Returns:
        t `[B]` on the level's device, float64 (rounded to float32 on a device without it).
    """
    if alphas_cumprod.ndim != 1 or len(alphas_cumprod) < 2:
        raise ValueError(f"alphas_cumprod must be [T] with T of at least 2; got {list(alphas_cumprod.shape)}")
    device = level.alpha.device
    rising, alpha, sigma = map(_checks.in_float64, (alphas_cumprod, level.alpha, level.sigma))
    rising = rising.sqrt().flip(0)
    root = alpha / torch.hypot(alpha, sigma)
    right = torch.searchsorted(rising, root).clamp(1, len(rising) - 1)
    left = rising[right - 1]
    fraction = ((root - left) / (rising[right] - left)).clamp(0, 1)
    return (len(rising) - right - fraction).to(_checks.widest_dtype(device)).to(device)


def vp_sigma(t: Tensor, *, beta_d: float = 19.9, beta_min: float = 0.1) -> Tensor:
    """Return the VP SDE's sigma/alpha at t, of any shape: σ(t)² = exp(½ β_d t² + β_min t) − 1."""
    level = NoiseLevel.vp(t.flatten(), beta_d=beta_d, beta_min=beta_min)
    return (level.sigma / level.alpha).reshape(t.shape)


def vp_t(sigma: Tensor, *, beta_d: float = 19.9, beta_min: float = 0.1) -> Tensor:
    """Return the t at which `vp_sigma(t)` is `sigma`, of any shape."""
    log = (sigma**2).log1p()
    # (√(β_min² + 2 β_d log) − β_min) / β_d, written so that it does not cancel near 0.
    return 2 * log / ((beta_min**2 + 2 * beta_d * log).sqrt() + beta_min)
