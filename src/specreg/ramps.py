"""λ over the calls of a training: a warm-up from 0 and a cooldown to 0."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from specreg import _checks

Shape = Literal["linear", "cosine"]
SHAPES = ("linear", "cosine")


@dataclass(frozen=True)
class Ramps:
    """Factors in [0, 1] by the number of calls.

    Args:
        warmup: calls over which the factor rises from 0; 0 for none.
        cooldown: calls over which it falls to 0, the last of `total`; 0 for none.
        total: calls in all, which a cooldown needs.
        shape: "linear" or "cosine", of both.
    """

    warmup: int = 0
    cooldown: int = 0
    total: int | None = None
    shape: Shape = "linear"

    def __post_init__(self) -> None:
        if not (isinstance(self.warmup, int) and self.warmup >= 0):
            raise ValueError(f"warmup must be a whole number of calls, at least 0; got {self.warmup!r}")
        _checks.choice("ramp", self.shape, SHAPES)
        if not (isinstance(self.cooldown, int) and self.cooldown >= 0):
            raise ValueError(f"cooldown must be a whole number of calls, at least 0; got {self.cooldown!r}")
        if self.cooldown and not (isinstance(self.total, int) and self.total >= self.warmup + self.cooldown):
            raise ValueError(f"a cooldown needs total= of at least warmup + cooldown calls; got {self.total!r}")

    @property
    def flat(self) -> bool:
        """Whether the factor is 1 throughout."""
        return not (self.warmup or self.cooldown)

    def scaled(self, lam: Tensor, calls: Tensor) -> Tensor:
        """Return λ, `[]`, at a number of calls, `[]`."""
        if self.warmup:
            lam = lam * self._shaped(calls / self.warmup).to(lam)
        if self.cooldown and self.total is not None:
            lam = lam * self._shaped((self.total - calls) / self.cooldown).to(lam)
        return lam

    def _shaped(self, done: Tensor) -> Tensor:
        """Return a ramp's value in [0, 1] at the share `done` of its length."""
        done = done.clamp(0.0, 1.0)
        return done if self.shape == "linear" else 0.5 - 0.5 * torch.cos(math.pi * done)

    def __str__(self) -> str:
        """Return what differs from the defaults, as arguments of the regularizer."""
        said = [f"warmup={self.warmup}"] if self.warmup else []
        said += [f"cooldown={self.cooldown}, total={self.total}"] if self.cooldown else []
        return ", ".join([*said, *([] if self.flat else [f"ramp={self.shape!r}"])])
