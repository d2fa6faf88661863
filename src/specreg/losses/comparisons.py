"""How coefficients are compared one by one: `amplitude`, `amplitude_phase`, `l1`, `focal`. Bands are next door.

A comparison maps F̂ and F `[B, R, P, K]`, the coefficients of x0_hat and x0, to `[B, R, P]`: a mean over all
coefficients that the K stand for. Gradients are finite for every finite input whose square is finite.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from specreg.losses.coefficients import Grid, Transform, check_choice
from specreg.losses.fourier_l1 import PHASE_GRADIENT_LIMIT, least_amplitude

Scope = Literal["sample", "batch"]
SCOPES = ("sample", "batch")


class Comparison(ABC):
    """A comparison of coefficients; subclasses are frozen dataclasses, whose fields are its options."""

    name: ClassVar[str]
    difference_alone: ClassVar[bool] = False
    """Whether it is a function of F̂ − F. It is then called with that and zeros."""

    @abstractmethod
    def compare(self, F_hat: Tensor, F: Tensor, grid: Grid, weight: Tensor | None) -> Tensor:
        """Return the loss, `[B, R, P]`, with the `weight` of each coefficient, `[B or 1, K]`."""

    def parts(self, F_hat: Tensor, F: Tensor, grid: Grid) -> Mapping[str, Tensor]:
        """Return the parts that the loss consists of, by name, each `[B, R, P]`."""
        return {}

    def check(self, transform: Transform) -> None:  # noqa: B027
        """Raise ValueError where the coefficients of a transform cannot be compared in this way."""


def mean_of(values: Tensor, grid: Grid, weight: Tensor | None) -> Tensor:
    """Return the mean of `[B, R, P, K]` over the coefficients; the weight does not change the divisor."""
    share = grid.share if weight is None else (grid.share * weight)[:, None, None]
    return (values * share).sum(-1) / grid.size.sum()


@dataclass(frozen=True)
class AmplitudeL1(Comparison):
    """`amplitude`: |A − Â|, blind to phase and, of real coefficients, to sign."""

    name: ClassVar = "amplitude"

    def compare(self, F_hat: Tensor, F: Tensor, grid: Grid, weight: Tensor | None) -> Tensor:
        """See `Comparison`."""
        return mean_of((F_hat.abs() - F.abs()).abs(), grid, weight)


@dataclass(frozen=True)
class CoefficientL1(Comparison):
    """`l1`: |F̂ − F|, for complex coefficients the modulus of the difference."""

    name: ClassVar = "l1"
    difference_alone: ClassVar = True

    def compare(self, F_hat: Tensor, F: Tensor, grid: Grid, weight: Tensor | None) -> Tensor:
        """See `Comparison`."""
        return mean_of((F_hat - F).abs(), grid, weight)


@dataclass(frozen=True)
class AmplitudeAndPhase(Comparison):
    """`amplitude_phase`: Eq. 15 of the paper, coupled at each coefficient; see `functional.amplitude_phase`.

    The gradient of a phase is held at `PHASE_GRADIENT_LIMIT` times that of an amplitude. The coupling "norm", of whole
    samples, has only the loss with the short name.

    Args:
        coupling: "frequency" or "projection".
    """

    name: ClassVar = "amplitude_phase"

    coupling: Literal["frequency", "projection"] = "frequency"

    def __post_init__(self) -> None:
        check_choice(self, coupling=("frequency", "projection"))

    def check(self, transform: Transform) -> None:
        """See `Comparison`."""
        if not transform.is_complex:
            raise ValueError(
                f"amplitude_phase needs complex coefficients, and {transform.name} has real ones; take l1 or amplitude"
            )

    def compare(self, F_hat: Tensor, F: Tensor, grid: Grid, weight: Tensor | None) -> Tensor:
        """See `Comparison`."""
        least = least_amplitude(F.real.dtype)
        A, A_hat = F.abs(), F_hat.abs()
        error = (A_hat - A).abs()
        if self.coupling == "projection":
            present = (least <= A).to(A.dtype)
            along = (F_hat * (F / A.clamp_min(least)).conj()).real
            return mean_of(error + (A_hat * present - along).clamp_min(0.0), grid, weight)
        tiny = torch.finfo(A.dtype).tiny
        seen = (A_hat > least) & (tiny < A)
        # The phase is Δφ; of unit length, so that no square in atan2's gradient overflows.
        pair = torch.view_as_real(F_hat / A_hat.detach().clamp_min(least) * (F / A.clamp_min(tiny)).conj())
        re, im = (torch.where(seen, part, other) for part, other in zip(pair.unbind(-1), (1.0, 0.0), strict=True))
        delta = torch.atan2(im, re + 0.0).abs()
        return mean_of(error * (1 + _limited(delta, error, A_hat)), grid, weight)


def _limited(delta: Tensor, lever: Tensor, A_hat: Tensor) -> Tensor:
    """Return δ with a gradient that, times `lever`, is at most `PHASE_GRADIENT_LIMIT`: that of δ itself is 1/Â."""
    share = (PHASE_GRADIENT_LIMIT * A_hat / lever.clamp_min(torch.finfo(lever.dtype).tiny)).clamp_max(1.0).detach()
    return delta.detach() + share * (delta - delta.detach())


@dataclass(frozen=True)
class Focal(Comparison):
    """`focal`: w·|F̂ − F|² with w = |F̂ − F|^alpha over its largest value, which has no gradient.

    Focal frequency loss (Jiang et al. 2021, arXiv 2012.12821); its patch factor p is `patches(size=N/p)`.

    Args:
        alpha: exponent of the weights, positive; towards 0 this is the squared error, which has no spectral meaning.
        log: whether w is of ln(1 + |F̂ − F|^alpha).
        over: "sample": the largest value is that of each sample, channel and place; "batch": of all.
    """

    name: ClassVar = "focal"
    difference_alone: ClassVar = True

    alpha: float = 1.0
    log: bool = False
    over: Scope = "sample"

    def __post_init__(self) -> None:
        check_choice(self, over=SCOPES)
        if isinstance(self.alpha, bool) or not 0 < self.alpha < float("inf"):
            raise ValueError(f"alpha of focal must be a positive finite number; got {self.alpha!r}")

    def compare(self, F_hat: Tensor, F: Tensor, grid: Grid, weight: Tensor | None) -> Tensor:
        """See `Comparison`."""
        difference = F_hat - F
        sizes = difference.detach().abs().pow(self.alpha)
        sizes = sizes.log1p() if self.log else sizes
        largest = sizes.max() if self.over == "batch" else sizes.amax(-1, keepdim=True)
        focus = sizes / largest.clamp_min(torch.finfo(sizes.dtype).tiny)
        return mean_of(focus * power(difference), grid, weight)


def power(F: Tensor) -> Tensor:
    """Return |F|² of real or complex coefficients."""
    return torch.view_as_real(F).square().sum(-1) if F.is_complex() else F.square()
