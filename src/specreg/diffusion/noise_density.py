"""Densities from which training draws noise levels, as quantile functions of σ or of flow matching's t.

The training loop calls a quantile function with uniform random numbers, evaluation calls it with an even grid.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import torch

from specreg import _checks
from specreg.diffusion.schedules import vp_sigma

NoiseDensity = Callable[[float], float]
"""A quantile function: from u in (0, 1) to σ, or to t in (0, 1)."""


@dataclass(frozen=True)
class LogNormal:
    """EDM: ln σ ~ N(mean, std²) (Karras et al. 2022, Table 1)."""

    mean: float = -1.2
    std: float = 1.2

    def __call__(self, u: float) -> float:
        """Return σ at quantile u."""
        return math.exp(NormalDist(self.mean, self.std).inv_cdf(u))


@dataclass(frozen=True)
class VPTime:
    """VP: t ~ U(ε_t, 1), σ = σ(t)."""

    beta_d: float = 19.9
    beta_min: float = 0.1
    epsilon_t: float = 1e-5

    def __call__(self, u: float) -> float:
        """Return σ at quantile u."""
        t = torch.tensor(self.epsilon_t + u * (1 - self.epsilon_t), dtype=torch.float64)
        return float(vp_sigma(t, beta_d=self.beta_d, beta_min=self.beta_min))


@dataclass(frozen=True)
class LogUniform:
    """VE: ln σ ~ U(ln σ_min, ln σ_max)."""

    sigma_min: float = 0.02
    sigma_max: float = 100.0

    def __call__(self, u: float) -> float:
        """Return σ at quantile u."""
        return self.sigma_min * math.pow(self.sigma_max / self.sigma_min, u)


@dataclass(frozen=True)
class UniformTime:
    """Flow matching: t ~ U(0, 1), x_t = (1 − t)·x0 + t·ε."""

    def __call__(self, u: float) -> float:
        """Return t at quantile u."""
        return u


@dataclass(frozen=True)
class LogitNormal:
    """Flow matching: ln(t/(1 − t)) ~ N(mean, std²) (Esser et al. 2024, Stable Diffusion 3, Eq. 19)."""

    mean: float = 0.0
    std: float = 1.0

    def __post_init__(self) -> None:
        if not self.std > 0:
            raise ValueError(f"std must be positive; got {self.std}")

    def __call__(self, u: float) -> float:
        """Return t at quantile u."""
        return 1 / (1 + math.exp(-NormalDist(self.mean, self.std).inv_cdf(u)))


NOISE_DENSITIES: dict[str, type] = {
    "edm": LogNormal,
    "vp": VPTime,
    "ve": LogUniform,
    "uniform": UniformTime,
    "logit_normal": LogitNormal,
}
"""Densities by name: of σ for "edm", "vp" and "ve", of t in (0, 1) for "uniform" and "logit_normal"."""


def build(name: str, **options: float) -> NoiseDensity:
    """Return the density of `NOISE_DENSITIES` of that name, with its options."""
    density: NoiseDensity = _checks.build("noise density", NOISE_DENSITIES, name, options)
    return density
