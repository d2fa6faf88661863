"""What "time" is in training: discrete timesteps, σ, or the t of a straight path, each with its noise levels.

A time axis says which times training draws, which noise level a time has, what the network is told, and through which
earlier times an unrolled sampler goes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from specreg.diffusion.noise_density import LogNormal, NoiseDensity
from specreg.diffusion.noise_level import NoiseLevel


class TimeAxis(Protocol):
    """The times of a forward process, from clean to noisy."""

    def draw(self, rng: np.random.Generator) -> float:
        """Draw the time of one training sample."""

    def grid(self, count: int) -> Tensor:
        """Return `count` times at evenly spaced quantiles of training's density, from little noise to much."""

    def level(self, t: Tensor) -> NoiseLevel:
        """Return the noise level of times `[B]`."""

    def network_time(self, t: Tensor) -> Tensor:
        """Return what the network is told for times `[B]`, `[B]`."""

    def told(self, network_time: Tensor) -> Tensor:
        """Return the times `[B]` of what the network is told, `[B]`: the inverse of `network_time`."""

    def earlier(self, t: Tensor, share: float) -> Tensor:
        """Return the time that lies `share` (0 to 1) of the way from times t `[B]` to the clean end, `[B]`."""


@dataclass(frozen=True)
class Timesteps:
    """Discrete timesteps of a ᾱ table, drawn uniformly (DDPM, DiffWave).

    Args:
        alphas_cumprod: ᾱ, `[T]`, on the device of the batches.
    """

    alphas_cumprod: Tensor

    def draw(self, rng: np.random.Generator) -> int:
        """Draw a timestep from 0 to T − 1."""
        return int(rng.integers(len(self.alphas_cumprod)))

    def grid(self, count: int) -> Tensor:
        """Return `count` timesteps spread evenly over the schedule, int64 `[count]`."""
        return ((torch.arange(count) + 0.5) * len(self.alphas_cumprod) / count).long()

    def level(self, t: Tensor) -> NoiseLevel:
        """Return the level of timesteps `[B]`; between two of them, √ᾱ is interpolated linearly, as DiffWave does."""
        if not t.is_floating_point():
            return NoiseLevel.ddpm(self.alphas_cumprod[t])
        root, low = self.alphas_cumprod.sqrt(), t.floor().long()
        between = torch.lerp(root[low], root[(low + 1).clamp_max(len(root) - 1)], (t - low).to(root))
        return NoiseLevel.ddpm(between**2)

    def network_time(self, t: Tensor) -> Tensor:
        """Return the timesteps themselves."""
        return t

    def told(self, network_time: Tensor) -> Tensor:
        """See the protocol."""
        return network_time

    def earlier(self, t: Tensor, share: float) -> Tensor:
        """Return fractional timesteps; step 0 is the clean end of the table."""
        return t * (1 - share)


@dataclass(frozen=True)
class Sigmas:
    """σ of x_t = x0 + σ·ε, drawn from a density (EDM, VP, VE).

    Args:
        density: quantile function of σ in training.
        rho: how much earlier times crowd towards 0, as in EDM's sampler.
    """

    density: NoiseDensity = field(default_factory=LogNormal)
    rho: float = 7.0

    def draw(self, rng: np.random.Generator) -> float:
        """Draw σ."""
        return self.density(_uniform(rng))

    def grid(self, count: int) -> Tensor:
        """Return σ at evenly spaced quantiles, float32 `[count]`."""
        return _quantiles(self.density, count)

    def level(self, t: Tensor) -> NoiseLevel:
        """Return the level of σ `[B]`."""
        return NoiseLevel.edm(t)

    def network_time(self, t: Tensor) -> Tensor:
        """Return σ; a preconditioned network turns it into what its layers take."""
        return t

    def told(self, network_time: Tensor) -> Tensor:
        """See the protocol."""
        return network_time

    def earlier(self, t: Tensor, share: float) -> Tensor:
        """Return σ, interpolated between σ and 0 in σ^(1/rho)."""
        earlier: Tensor = t * (1 - share) ** self.rho
        return earlier


@dataclass(frozen=True)
class FlowTime:
    """t of the straight path x_t = (1 − t)·x0 + t·ε, drawn from a density (flow matching).

    Args:
        density: quantile function of t in training, to (0, 1).
        scale: what the network is told is scale·t; 1000, as diffusers has it, suits embeddings made for timesteps.
    """

    density: NoiseDensity
    scale: float = 1000.0

    def draw(self, rng: np.random.Generator) -> float:
        """Draw t."""
        return self.density(_uniform(rng))

    def grid(self, count: int) -> Tensor:
        """Return t at evenly spaced quantiles, float32 `[count]`."""
        return _quantiles(self.density, count)

    def level(self, t: Tensor) -> NoiseLevel:
        """Return the level of t `[B]`."""
        return NoiseLevel.flow(t)

    def network_time(self, t: Tensor) -> Tensor:
        """Return scale·t."""
        return self.scale * t

    def told(self, network_time: Tensor) -> Tensor:
        """See the protocol."""
        return network_time / self.scale

    def earlier(self, t: Tensor, share: float) -> Tensor:
        """Return t·(1 − share)."""
        return t * (1 - share)


def _uniform(rng: np.random.Generator) -> float:
    """Draw a number that is neither 0 nor 1, where quantile functions may be infinite."""
    return (float(rng.integers(2**53)) + 0.5) / 2**53


def _quantiles(density: NoiseDensity, count: int) -> Tensor:
    return torch.tensor([density((i + 0.5) / count) for i in range(count)])
