"""Preconditioning (Karras et al. 2022, Table 1): coefficients that turn a raw network F into a denoiser D.

    D(x; σ) = c_skip·x + c_out·F(c_in·x; c_noise)                                                  (7)

A preconditioning consists of four functions of σ, the range of σ that the network can use, and its noise levels.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from specreg import _checks
from specreg.diffusion.schedules import vp_sigma, vp_t


class Coefficients(NamedTuple):
    """The four functions of Eq. 7 at some σ, each `[B]`."""

    c_skip: Tensor
    c_out: Tensor
    c_in: Tensor
    c_noise: Tensor


class Preconditioning(Protocol):
    """The interface of a preconditioning: coefficients at σ `[B]`, and the σ that the network can use."""

    @property
    def sigma_min(self) -> float:
        """The smallest σ that the network can use."""

    @property
    def sigma_max(self) -> float:
        """The largest σ that the network can use."""

    def coefficients(self, sigma: Tensor) -> Coefficients:
        """Return the four functions of Eq. 7 at σ `[B]`."""

    def round_sigma(self, sigma: Tensor) -> Tensor:
        """Return the nearest levels that the network was trained on, in the shape of `sigma`."""


@dataclass(frozen=True)
class EDM:
    """EDM: unit variance of the network's input and training target at every σ."""

    sigma_data: float = 0.5
    sigma_min: float = 0.0
    sigma_max: float = math.inf

    def coefficients(self, sigma: Tensor) -> Coefficients:
        """Return the four functions at σ `[B]`; c_noise = ln(σ)/4."""
        norm = torch.hypot(sigma, torch.full_like(sigma, self.sigma_data))
        return Coefficients((self.sigma_data / norm) ** 2, sigma * self.sigma_data / norm, 1 / norm, sigma.log() / 4)

    def round_sigma(self, sigma: Tensor) -> Tensor:
        """Return `sigma`: the network takes every level."""
        return sigma


@dataclass(frozen=True)
class VP:
    """VP: the variance-preserving SDE of Song et al. 2021 as a function of σ, for a network trained on M timesteps."""

    beta_d: float = 19.9
    beta_min: float = 0.1
    steps: int = 1000
    epsilon_t: float = 1e-5

    @property
    def sigma_min(self) -> float:
        """σ(ε_t), the smallest σ."""
        return self._sigma(self.epsilon_t)

    @property
    def sigma_max(self) -> float:
        """σ(1), the largest σ."""
        return self._sigma(1.0)

    def coefficients(self, sigma: Tensor) -> Coefficients:
        """Return the four functions at σ `[B]`; c_noise = (M − 1)·t(σ)."""
        t = vp_t(sigma, beta_d=self.beta_d, beta_min=self.beta_min)
        return Coefficients(torch.ones_like(sigma), -sigma, 1 / (sigma**2 + 1).sqrt(), (self.steps - 1) * t)

    def round_sigma(self, sigma: Tensor) -> Tensor:
        """Return `sigma`: the network takes every level."""
        return sigma

    def _sigma(self, t: float) -> float:
        time = torch.tensor(t, dtype=torch.float64)
        return float(vp_sigma(time, beta_d=self.beta_d, beta_min=self.beta_min))


@dataclass(frozen=True)
class VE:
    """VE: the variance-exploding SDE of Song et al. 2021."""

    sigma_min: float = 0.02
    sigma_max: float = 100.0

    def coefficients(self, sigma: Tensor) -> Coefficients:
        """Return the four functions at σ `[B]`; c_noise = ln(σ/2)."""
        one = torch.ones_like(sigma)
        return Coefficients(one, sigma, one, (sigma / 2).log())

    def round_sigma(self, sigma: Tensor) -> Tensor:
        """Return `sigma`: the network takes every level."""
        return sigma


@dataclass(frozen=True)
class IDDPM:
    """Improved DDPM (Nichol & Dhariwal 2021): M discrete levels u_0 > … > u_M = 0 of the cosine schedule.

    ᾱ_j = sin²(½π·j/(M·(C_2 + 1))) and u_{j−1} = √((u_j² + 1)/max(ᾱ_{j−1}/ᾱ_j, C_1) − 1).
    """

    c_1: float = 0.001
    c_2: float = 0.008
    steps: int = 1000

    @property
    def sigma_min(self) -> float:
        """u_{M−1}, the smallest level above 0."""
        return float(self.levels()[-2])

    @property
    def sigma_max(self) -> float:
        """u_0, the largest level."""
        return float(self.levels()[0])

    def levels(self) -> Tensor:
        """Return u_0 to u_M, float64 `[M + 1]`, falling to 0."""
        return _iddpm_levels(self.c_1, self.c_2, self.steps)

    def coefficients(self, sigma: Tensor) -> Coefficients:
        """Return the four functions at σ `[B]`; c_noise = M − 1 − (index of the nearest u)."""
        c_noise = self.steps - 1 - self._index(sigma).to(sigma)
        return Coefficients(torch.ones_like(sigma), -sigma, 1 / (sigma**2 + 1).sqrt(), c_noise)

    def round_sigma(self, sigma: Tensor) -> Tensor:
        """Return the nearest level u for each σ."""
        return self.levels().to(sigma)[self._index(sigma)]

    def _index(self, sigma: Tensor) -> Tensor:
        return (self.levels().to(sigma) - sigma.unsqueeze(-1)).abs().argmin(-1)


@functools.lru_cache
def _iddpm_levels(c_1: float, c_2: float, steps: int) -> Tensor:
    alpha_bar = [math.sin(0.5 * math.pi * j / steps / (c_2 + 1)) ** 2 for j in range(steps + 1)]
    levels = [0.0]
    for j in range(steps, 0, -1):
        levels.append(math.sqrt((levels[-1] ** 2 + 1) / max(alpha_bar[j - 1] / alpha_bar[j], c_1) - 1))
    return torch.tensor(levels[::-1], dtype=torch.float64)


PRECONDITIONINGS: dict[str, type] = {"edm": EDM, "vp": VP, "ve": VE, "iddpm": IDDPM}


def build(name: str, **options: float) -> Preconditioning:
    """Return the preconditioning of that name, "edm", "vp", "ve" or "iddpm", with its options."""
    found: Preconditioning = _checks.build("preconditioning", PRECONDITIONINGS, name, options)
    return found


class Preconditioned(nn.Module):
    """The denoiser D(x; σ) of Eq. 7 around a raw network, called as `(x, sigma)`; returns x0_hat in float32.

    Args:
        model: called as `(c_in·x [B, C, *space], c_noise [B], **condition)`.
        preconditioning: one of the classes above.
        dtype: precision in which the network runs, under autocast; the preconditioning always runs in float32.

    The network returns as many channels as `x` has, or twice as many, of which the first half is F.
    """

    def __init__(self, model: nn.Module, preconditioning: Preconditioning, *, dtype: torch.dtype = torch.float32):
        super().__init__()
        if dtype not in (torch.float32, torch.float16, torch.bfloat16):
            raise ValueError(f"dtype must be float32, float16 or bfloat16; got {dtype}")
        self.model, self.preconditioning, self.dtype = model, preconditioning, dtype

    def forward(self, x: Tensor, sigma: Tensor, **condition: Tensor | None) -> Tensor:
        """Return x0_hat `[B, C, *space]` of `x` at σ `[B]` or `[]`.

        `condition`, such as `labels`, goes to the network.
        """
        x = x.float()
        sigma = sigma.to(x).reshape(-1).expand(len(x))
        c = self.preconditioning.coefficients(sigma)

        def along(value: Tensor) -> Tensor:
            return _checks.append_dims(value, x.ndim)

        network: Callable[..., Any] = self.model
        if self.dtype == torch.float32:
            raw = network(along(c.c_in) * x, c.c_noise, **condition)
        else:
            with torch.autocast(x.device.type, self.dtype):
                raw = network(along(c.c_in) * x, c.c_noise, **condition)
        channels = x.shape[1]
        if raw.shape[1] not in (channels, 2 * channels):
            raise ValueError(f"the network must return {channels} or {2 * channels} channels; got {list(raw.shape)}")
        raw = raw[:, :channels]  # the second half of iDDPM's output predicts a variance, which is not used
        # (7)
        denoised: Tensor = along(c.c_skip) * x + along(c.c_out) * raw.float()
        return denoised

    def extra_repr(self) -> str:
        """Return the preconditioning and the dtype, for `print(network)`."""
        return f"{self.preconditioning}, {self.dtype}"
