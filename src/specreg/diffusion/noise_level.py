"""The noise level of a batch, x_t = alpha·x0 + sigma·eps, for any schedule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from specreg._checks import append_dims, compute_dtype, few, warn_once
from specreg.diffusion import diffusers_schedulers


@dataclass(frozen=True, eq=False)
class NoiseLevel:
    """Scales of signal and noise of each sample of a batch: x_t = alpha·x0 + sigma·eps.

    Args:
        alpha: scale of the clean sample, `[B]` or `[B, 1, …, 1]`; `[]` is read as `[1]`, one level for a whole batch.
        sigma: standard deviation of the noise, same shape.

    Both are kept in float32 at least: half precision is upcast, float64 stays.

    Raises:
        TypeError: for anything but real floating-point tensors.
        ValueError: for other shapes, and for negative, infinite or NaN values on the CPU. Values on an accelerator
            are not checked, because that would force a synchronization, nor are they under `torch.compile`.
    """

    alpha: Tensor
    sigma: Tensor

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
        if isinstance(alphas_cumprod_t, Tensor) and not alphas_cumprod_t.is_floating_point():
            raise TypeError(
                "alphas_cumprod_t must be a real floating-point tensor, alphas_cumprod[t] and not t itself; "
                f"got {alphas_cumprod_t.dtype}"
            )
        alpha_bar = _per_sample("alphas_cumprod_t", alphas_cumprod_t)
        _check_unit("alphas_cumprod_t", alpha_bar, "alphas_cumprod[t]")
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
    def flow(cls, t: Tensor, *, data_at: Literal[0, 1] = 0) -> NoiseLevel:
        """Return the straight path's level at t in [0, 1], `[B]`: alpha = 1 − t, sigma = t.

        `data_at` is the t of clean data: 0 in diffusers and SD3, 1 in torchcfm, flow_matching and lucidrains'
        rectified flow, whose networks usually predict the "velocity" x0 − ε.
        """
        t = _per_sample("t", t)
        if data_at not in (0, 1):
            raise ValueError(f"data_at must be 0 or 1, the t of clean data; got {data_at!r}")
        _check_unit("t", t, "timesteps divided by their number")
        return cls(1 - t, t) if data_at == 0 else cls(t, 1 - t)

    @classmethod
    def from_diffusers(cls, scheduler: Any, timesteps: Tensor) -> NoiseLevel:
        """Return the level that a diffusers scheduler's training has at `timesteps`, `[B]`, on their device.

        What the scheduler was used for before does not matter, and it is not changed: a timestep has one level, also
        after `set_timesteps`, for schedulers that answer with their last step, and for those that take one timestep at
        a time. Of EDM's schedulers, whose "epsilon" is the preconditioned network, a warning says what to pass on.

        Args:
            scheduler: any of diffusers' for continuous data (see `specreg.diffusion.diffusers_schedulers`).
            timesteps: whole numbers from 0 to T − 1, in an integer or floating-point dtype; for Euler and its kin also
                the fractions in scheduler.timesteps; for flow matching 0 to T; for EDM ¼·ln σ.

        Raises:
            TypeError: when it has neither `add_noise` nor flow matching's `scale_noise`, or is a class or a config, and
                for timesteps that are no tensor.
            ValueError: for timesteps out of range (not checked on an accelerator, nor in a traced graph), for fractions
                that are not in its list, and for classes whose levels are not known here.
        """
        if not isinstance(timesteps, Tensor):
            raise TypeError(f"timesteps must be a torch.Tensor of shape [B]; got {type(timesteps).__name__}")
        found = diffusers_schedulers.scales(scheduler, timesteps.reshape(-1))
        if diffusers_schedulers.preconditions(scheduler):
            name = type(scheduler).__name__
            warn_once(
                f"epsilon of {name}",
                f"{name}: its prediction_type 'epsilon' means the network inside EDM's "
                "preconditioning; pass prediction=scheduler to recover_x0, or 'edm' for the raw network and 'x0' for "
                "the denoiser",
            )
        return cls(*found)

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
        return NoiseLevel(self.alpha.to(device), self.sigma.to(device))

    def __len__(self) -> int:
        return self.alpha.shape[0]


def can_read(values: Tensor) -> bool:
    """Return whether a check may read values: not on an accelerator, where it would wait, nor in a traced graph."""
    return values.device.type == "cpu" and not torch.compiler.is_compiling()


def check_level(level: object) -> None:
    """Raise TypeError for anything but a NoiseLevel: timesteps, say, which do not tell their schedule."""
    if not isinstance(level, NoiseLevel):
        raise TypeError(
            "level must be a NoiseLevel, such as NoiseLevel.ddpm(alphas_cumprod[t]) or "
            f"NoiseLevel.from_diffusers(scheduler, t); got {type(level).__name__}"
        )


def check_device(per_sample: Tensor, samples: Tensor) -> None:
    """Raise ValueError where the values of a noise level and the samples are on two devices."""
    if per_sample.device != samples.device:
        raise ValueError(
            f"the noise level and the samples must be on one device; got {per_sample.device} and {samples.device}"
        )


def combine(a: Tensor, x: Tensor, b: Tensor, y: Tensor) -> Tensor:
    """Return a·x + b·y for per-sample `a`, `b` `[B]` or `[1]` and `x`, `y` of one shape `[B, ...]`.

    Runs in float64 if x or y is, else in float32, and returns that dtype.
    """
    if x.shape != y.shape:
        raise ValueError(f"expected two tensors of one shape; got {list(x.shape)} and {list(y.shape)}")
    if len(a) != 1 and x.shape[:1] != a.shape:
        raise ValueError(f"the noise level has {len(a)} values; expected 1 or B for a batch {list(x.shape)}")
    check_device(a, x)
    dtype = torch.promote_types(compute_dtype("x", x), compute_dtype("y", y))
    return append_dims(a.to(dtype), x.ndim) * x + append_dims(b.to(dtype), x.ndim) * y


def _check_unit(name: str, values: Tensor, meant: str) -> None:
    """Raise ValueError for values outside 0 to 1 on the CPU; `meant` is what the caller should pass."""
    if can_read(values) and not bool(((values >= 0) & (values <= 1)).all()):
        raise ValueError(f"{name} must be from 0 to 1, {meant}; got {few(values)}")


def _per_sample(name: str, value: Tensor) -> Tensor:
    """Return `value` `[B]` or `[B, 1, …, 1]` as `[B]` in float32 or float64, or say why it is not one per sample."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor of shape [B]; got {type(value).__name__}")
    if value.ndim > 1 and value.numel() != value.shape[0]:
        raise ValueError(
            f"{name} must hold one value per sample, shape [B] or [B, 1, …, 1]; got {list(value.shape)} "
            "(one for each token or pixel is not supported)"
        )
    return value.reshape(-1).to(compute_dtype(name, value))
