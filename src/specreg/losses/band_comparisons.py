"""How power is compared: `log_power`, `amse`, `binned_power`, by band and (log power) by coefficient.

Bands are those that a transform has by nature (shells one wavenumber wide, with one for the corners beyond Nyquist;
degrees; subbands), or `bands` of equal width up to Nyquist, whose last has the corners. A power is the mean of |F|²
over a band, for white noise of unit variance 1, in squared data units.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from specreg.losses.coefficients import Grid, check_choice
from specreg.losses.comparisons import SCOPES, Comparison, Scope, mean_of, power
from specreg.losses.fourier_l1 import PHASE_GRADIENT_LIMIT
from specreg.transforms.radial import equal_bands

TOLERANCE = 1e-6


class _Bands(NamedTuple):
    number: Tensor  # [K], of each coefficient's band
    size: Tensor  # [bands], Σ share; 0 where a band of equal width has no coefficient
    share: Tensor  # [K]

    def total(self, values: Tensor) -> Tensor:
        """Return the sum over each band of `[…, K]`, each coefficient by its share: `[…, bands]`."""
        return values.new_zeros(*values.shape[:-1], len(self.size)).index_add(-1, self.number, values * self.share)

    def mean(self, values: Tensor) -> Tensor:
        """Return the mean over each band, 0 for empty ones."""
        return self.total(values) / self.size.clamp_min(torch.finfo(self.size.dtype).tiny)

    def mean_over(self, by_band: Tensor, weight: Tensor | None) -> Tensor:
        """Return the mean over bands that are not empty of `[B, R, P, bands]`; a weight is its mean over a band."""
        filled = (self.size > 0).to(by_band.dtype)
        weighted = filled if weight is None else (filled * self.mean(weight))[:, None, None]
        return (by_band * weighted).sum(-1) / filled.sum().clamp_min(1)  # a single value has no spectrum


def _bands(grid: Grid, count: int | None, *, mean: bool) -> _Bands:
    """Return the bands of a grid, or `count` equal ones, with or without the zero frequency, the mean of the data."""
    index, share = grid.band, grid.share
    if count is not None:
        index = equal_bands(grid.frequency, count)
    elif mean:
        return _Bands(index, grid.size, share)
    if not mean:  # by a product, because choosing coefficients would wait for an accelerator
        share = share * (grid.frequency > 0)
    return _Bands(index, share.new_zeros(count or len(grid.size)).index_add(0, index, share), share)


@dataclass(frozen=True)
class _OfPower(Comparison):
    """What the comparisons of power have in common. They leave out the zero frequency: a mean has no spectrum."""

    bands: int | None = None
    over: Scope = "sample"
    tolerance: float = TOLERANCE

    def __post_init__(self) -> None:
        check_choice(self, over=SCOPES)
        if self.bands is not None and (type(self.bands) is not int or self.bands < 1):
            raise ValueError(f"bands must be a whole number of at least 1, or None; got {self.bands!r}")
        if isinstance(self.tolerance, bool) or not 0 < self.tolerance < float("inf"):
            raise ValueError(f"tolerance must be a positive finite power; got {self.tolerance!r}")

    def _powers(self, F_hat: Tensor, F: Tensor, bands: _Bands) -> tuple[Tensor, Tensor, Tensor]:
        """Return both mean powers of each band over `unit`, and that: the largest power, so that no square overflows.

        Shapes are `[B or 1, R, P, bands]` and `[B or 1, 1, 1, 1]`.
        """
        largest = _largest(F_hat, F)
        if self.over == "batch":
            largest = largest.amax(0, keepdim=True)
        means = [bands.mean(power(f / largest)) for f in (F_hat, F)]
        if self.over == "batch":
            means = [mean.mean(0, keepdim=True) for mean in means]
        return means[0], means[1], largest


@dataclass(frozen=True)
class LogPower(_OfPower):
    """`log_power`: |ln(P̂ + tolerance) − ln(P + tolerance)|, which counts each band the same however weak it is.

    Args:
        by: "band", or "coefficient" for each on its own.
        bands: number of equal bands up to Nyquist; those of the transform when None.
        over: "sample": the power of each sample; "batch": the mean over the batch, which mixes its noise levels.
        tolerance: power below which a difference does not count, so that silence makes no infinite error. The gradient
            is at most 1/√tolerance per coefficient.
    """

    name: ClassVar = "log_power"

    by: Literal["band", "coefficient"] = "band"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self, by=("band", "coefficient"))
        if self.by == "coefficient" and (self.bands is not None or self.over == "batch"):
            raise ValueError("bands and over='batch' of log_power are of bands; got by='coefficient' beside them")

    def compare(self, F_hat: Tensor, F: Tensor, grid: Grid, weight: Tensor | None) -> Tensor:
        """See `Comparison`."""
        if self.by == "coefficient":
            floor = F_hat.real.new_full((), sqrt(self.tolerance))
            logs = [torch.hypot(f.abs(), floor).log() for f in (F_hat, F)]
            return mean_of(2 * (logs[0] - logs[1]).abs(), grid, weight)
        bands = _bands(grid, self.bands, mean=False)
        P_hat, P, unit = self._powers(F_hat, F, bands)
        least = (sqrt(self.tolerance) / unit).square().clamp_min(torch.finfo(P.dtype).tiny)
        return bands.mean_over(((P_hat + least).log() - (P + least).log()).abs(), weight)


@dataclass(frozen=True)
class BinnedPower(_OfPower):
    """`binned_power`: (1 − (P̂ + tolerance)/(P + tolerance))², the binned spectral power loss (arXiv 2502.00472).

    Too much power costs more than too little: at most 1 is to be had from a silent band.

    Args:
        bands: number of equal bands up to Nyquist; those of the transform when None.
        over: "sample" or "batch", as of `log_power`.
        tolerance: power at which a ratio turns into a difference.
    """

    name: ClassVar = "binned_power"

    def compare(self, F_hat: Tensor, F: Tensor, grid: Grid, weight: Tensor | None) -> Tensor:
        """See `Comparison`."""
        bands = _bands(grid, self.bands, mean=False)
        P_hat, P, unit = self._powers(F_hat, F, bands)
        least = (sqrt(self.tolerance) / unit).square().clamp_min(torch.finfo(P.dtype).tiny)
        return bands.mean_over((1 - (P_hat + least) / (P + least)).square(), weight)


@dataclass(frozen=True)
class AMSE(Comparison):
    """`amse`: (√P̂ − √P)² + 2·max(P̂, P)·(1 − coherence) by band (Subich et al. 2025, arXiv 2501.19374).

    P is the sum of |F|² over a band, coherence Re Σ F̂·conj F / √(P̂·P). It is the squared error where amplitudes agree;
    elsewhere it charges a too weak band for what it lacks, not for being at the wrong place with its full power.
    Summed over bands and divided by the number of coefficients, so it is on the scale of the mean squared error.

    The gradient of the coherence grows as √P/√P̂ where a band is almost silent; it is held at `PHASE_GRADIENT_LIMIT`
    times what it is at √P̂ = √P.

    Args:
        bands: number of equal bands up to Nyquist; those of the transform when None.
    """

    name: ClassVar = "amse"

    bands: int | None = None

    def __post_init__(self) -> None:
        if self.bands is not None and (type(self.bands) is not int or self.bands < 1):
            raise ValueError(f"bands must be a whole number of at least 1, or None; got {self.bands!r}")

    def compare(self, F_hat: Tensor, F: Tensor, grid: Grid, weight: Tensor | None) -> Tensor:
        """See `Comparison`."""
        bands = _bands(grid, self.bands, mean=True)
        by_band = sum(self._by_band(F_hat, F, bands))
        if weight is not None:
            by_band = by_band * bands.mean(weight)[:, None, None]
        return by_band.sum(-1) / grid.size.sum()  # type: ignore[union-attr]

    def parts(self, F_hat: Tensor, F: Tensor, grid: Grid) -> Mapping[str, Tensor]:
        """Return the errors of amplitude and of coherence, whose sum is the loss."""
        both = self._by_band(F_hat, F, _bands(grid, self.bands, mean=True))
        named = zip(("amplitude", "decorrelation"), both, strict=True)
        return {name: part.sum(-1) / grid.size.sum() for name, part in named}

    def _by_band(self, F_hat: Tensor, F: Tensor, bands: _Bands) -> tuple[Tensor, Tensor]:
        """Return both parts by band, `[B, R, P, bands]` each."""
        unit = _largest(F_hat, F)  # no square overflows before the last
        F_hat, F = F_hat / unit, F / unit
        cross = (F_hat * F.conj()).real if F.is_complex() else F_hat * F
        P_hat, P, cross = bands.total(power(F_hat)), bands.total(power(F)), bands.total(cross)
        a_hat, a = _root(P_hat), _root(P)
        least = torch.finfo(P.dtype).eps ** 2  # what is smaller is rounding of the largest coefficient
        coherence = cross / (a_hat * a).clamp_min(least)
        # Its gradient is orthogonal to F̂ and has to stay so: it is scaled, because another denominator would turn it.
        share = (PHASE_GRADIENT_LIMIT * a_hat / a.clamp_min(torch.finfo(a.dtype).tiny)).clamp_max(1.0).detach()
        coherence = coherence.detach() + share * (coherence - coherence.detach())
        decorrelation = 2 * torch.maximum(P_hat, P) * (1 - coherence).clamp_min(0.0)
        return (a_hat - a).square() * unit.square(), decorrelation * unit.square()


def _largest(F_hat: Tensor, F: Tensor) -> Tensor:
    """Return the largest amplitude of each sample, `[B, 1, 1, 1]`, at least about 1e-10, without gradient."""
    largest = torch.maximum(F_hat.detach().abs().flatten(1).amax(1), F.abs().flatten(1).amax(1))
    return largest.clamp_min(sqrt(sqrt(torch.finfo(largest.dtype).tiny)))[:, None, None, None]


def _root(P: Tensor) -> Tensor:
    """Return √P with the gradient 0 where P is 0."""
    some = P > 0
    return torch.where(some, torch.where(some, P, torch.ones_like(P)).sqrt(), P)
