"""The noise level of a batch, x_t = alpha·x0 + sigma·eps, for any schedule."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from specreg._checks import append_dims, can_read, compute_dtype
from specreg.diffusion.schedulers import scheduler_level


@dataclass(frozen=True, eq=False)
class NoiseLevel:
    """Scales of signal and noise of each sample of a batch: x_t = alpha·x0 + sigma·eps.

    Args:
        alpha: scale of the clean sample, `[B]`; `[]` is read as `[1]`, one level for a whole batch.
        sigma: standard deviation of the noise, same shape.
        preconditioned: name of the diffusers scheduler that the level comes from, where its network's raw output is
            preconditioned by c_skip and c_out although its prediction_type says "epsilon" or "v_prediction" (EDM).
            `recover_x0` and `target` then refuse these names and take the scheduler.

    Both are kept in float32 at least: half precision is upcast, float64 stays.

    Raises:
        TypeError: for anything but real floating-point tensors.
        ValueError: for other shapes, and for negative, infinite or NaN values on the CPU. Values on an accelerator
            are not checked, because that would force a synchronization, nor are they under `torch.compile`.
    """

    alpha: Tensor
    sigma: Tensor
    preconditioned: str | None = field(default=None, kw_only=True, repr=False)

    def __post_init__(self) -> None:
        alpha, sigma = _per_sample("alpha", self.alpha), _per_sample("sigma", self.sigma)
        if alpha.shape != sigma.shape:
            raise ValueError(
                f"alpha and sigma must have the same shape; got {list(alpha.shape)} and {list(sigma.shape)}"
            )
        dtype = torch.promote_types(alpha.dtype, sigma.dtype)
        for name, value in (("alpha", alpha), ("sigma", sigma)):
            if can_read(value) and not bool(((value >= 0) & (value < torch.inf)).all()):
                raise ValueError(f"{name} must be finite and not negative; got {value.tolist()}")
            object.__setattr__(self, name, value.to(dtype))

    @classmethod
    def ddpm(cls, alphas_cumprod_t: Tensor) -> NoiseLevel:
        """Return the level of DDPM's ᾱ gathered at each sample's t, `[B]`: alpha = √ᾱ, sigma = √(1 − ᾱ)."""
        alpha_bar = _per_sample("alphas_cumprod_t", alphas_cumprod_t)
        return cls(alpha_bar.sqrt(), (1 - alpha_bar).sqrt())

    @classmethod
    def vp(cls, t: Tensor, *, beta_d: float = 19.9, beta_min: float = 0.1) -> NoiseLevel:
        """Return the VP SDE's level at t in [0, 1], `[B]`: alpha² = 1 − sigma² = exp(−½ β_d t² − β_min t)."""
        t = _per_sample("t", t)
        log_alpha_bar = -(0.5 * beta_d * t**2 + beta_min * t)
        # expm1, because at t = 1e-5 the difference 1 − alpha² has only one digit in float32.
        return cls((0.5 * log_alpha_bar).exp(), (-torch.expm1(log_alpha_bar)).sqrt())

    @classmethod
    def edm(cls, sigma: Tensor) -> NoiseLevel:
        """Return the level of x_t = x0 + sigma·eps, `[B]`: EDM's, and the variance-exploding SDE's."""
        sigma = _per_sample("sigma", sigma)
        return cls(torch.ones_like(sigma), sigma)

    @classmethod
    def flow(cls, t: Tensor) -> NoiseLevel:
        """Return the straight path's level at t in [0, 1], `[B]`: alpha = 1 − t, sigma = t."""
        t = _per_sample("t", t)
        return cls(1 - t, t)

    @classmethod
    def from_diffusers(cls, scheduler: Any, timesteps: Tensor) -> NoiseLevel:
        """Return the level that a diffusers scheduler's training gives `timesteps`, `[B]`, on their device.

        It is computed from the scheduler's table and config. Nothing in the scheduler changes, and neither
        `set_timesteps` nor a pipeline that ran it makes a difference. Timesteps are what the network is told: for DDPM
        and its kin whole indices of ᾱ, for k-diffusion's schedulers such as Euler also times between two indices, for
        flow matching sigma·1000, for EDM ¼·ln(sigma).

        Args:
            scheduler: one of diffusers' schedulers for Gaussian noise, or of a class that inherits from one.
            timesteps: integers, float32 or float64, `[B]` or `[]`.

        Raises:
            TypeError: for a scheduler whose levels are not known, or that a timestep does not determine; for timesteps
                of another dtype.
            ValueError: for timesteps outside those of training. On an accelerator and under `torch.compile`, where
                values are not checked, their level is NaN.
        """
        alpha, sigma, preconditioned = scheduler_level(scheduler, timesteps)
        return cls(alpha, sigma, preconditioned=type(scheduler).__name__ if preconditioned else None)

    @property
    def snr(self) -> Tensor:
        """The signal-to-noise ratio alpha²/sigma², `[B]`; infinite without noise."""
        return (self.alpha / self.sigma) ** 2

    @property
    def log_snr(self) -> Tensor:
        """Natural logarithm of `snr`, `[B]`, without its overflow."""
        return 2 * (self.alpha.log() - self.sigma.log())

    def diffuse(self, x0: Tensor, noise: Tensor) -> Tensor:
        """Return x_t = alpha·x0 + sigma·noise for `x0` and `noise` `[B, ...]`, in float32 at least."""
        return combine(self.alpha, x0, self.sigma, noise)

    def to(self, device: torch.device | str) -> NoiseLevel:
        """Return the same level on another device."""
        return NoiseLevel(self.alpha.to(device), self.sigma.to(device), preconditioned=self.preconditioned)

    def __len__(self) -> int:
        return self.alpha.shape[0]


def combine(a: Tensor, x: Tensor, b: Tensor, y: Tensor) -> Tensor:
    """Return a·x + b·y for per-sample `a`, `b` `[B]` or `[1]` and `x`, `y` of one shape `[B, ...]`.

    Runs in float64 if x or y is, else in float32, and returns that dtype.
    """
    if x.shape != y.shape:
        raise ValueError(f"expected two tensors of one shape; got {list(x.shape)} and {list(y.shape)}")
    if len(a) != 1 and x.shape[:1] != a.shape:
        raise ValueError(f"the noise level has {len(a)} values; expected 1 or B for a batch {list(x.shape)}")
    dtype = torch.promote_types(compute_dtype("x", x), compute_dtype("y", y))
    return append_dims(a.to(dtype), x.ndim) * x + append_dims(b.to(dtype), x.ndim) * y


def _per_sample(name: str, value: Tensor) -> Tensor:
    """Return `value` as `[B]` in float32 or float64, or say why it is not one number per sample."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor of shape [B]; got {type(value).__name__}")
    if value.ndim > 1:
        raise ValueError(f"{name} must hold one value per sample, shape [B]; got {list(value.shape)}")
    return value.reshape(-1).to(compute_dtype(name, value))
