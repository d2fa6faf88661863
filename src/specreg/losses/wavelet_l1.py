"""Value and gradient of the wavelet loss: W is linear, so W of the difference and one transpose are enough."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from specreg.losses import haar_l1
from specreg.losses.fused import Description, Evaluation, chunks, refuse_non_finite
from specreg.transforms import wavelet as transform


@dataclass(frozen=True)
class WaveletL1(Description):
    """Σ γ·‖W[x0_hat − x0]‖₁; `gammas` level by level, the approximation last; weights are `[B or 1, bands]`."""

    wavelet: str
    levels: int
    mode: str
    ndim: int
    reduction: str
    gammas: tuple[float, ...]

    def evaluate(self, x0_hat: Tensor, x0: Tensor, weights: Tensor | None, wants_gradient: bool) -> Evaluation:
        """See `Description`."""
        shape, space = x0.shape, x0.shape[-self.ndim :]
        if len(shape) - 2 > self.ndim:
            x0_hat, x0 = (x.reshape(shape[0], -1, *space) for x in (x0_hat, x0))
        parts = list(chunks(x0.shape, self.ndim, whole_samples=False, device=x0.device))
        value = x0.new_zeros(shape[0])
        gradient = torch.empty_like(x0_hat) if wants_gradient and len(parts) > 1 else None
        for b, r in parts:
            w = weights if weights is None or len(weights) == 1 else weights[b]
            total, found = self._part(x0_hat[b, r], x0[b, r], w, wants_gradient)
            if len(parts) == 1:
                value, gradient = total, found
                break
            value[b] += total
            if gradient is not None and found is not None:
                gradient[b, r] = found
        if x0.device.type == "cpu" and not bool(value.isfinite().all()):
            refuse_non_finite(x0)
        return Evaluation(value, None if gradient is None else gradient.reshape(shape))

    def options(self) -> tuple[str | int | tuple[float, ...], ...]:
        """See `Description`."""
        return self.wavelet, self.levels, self.mode, self.ndim, self.reduction, self.gammas

    def scale(self, shape: torch.Size) -> float:
        """1/coefficients of a sample for a mean, 1 for a sum."""
        if self.reduction == "sum":
            return 1.0
        return 1.0 / transform.coefficient_count(
            tuple(map(int, shape[1:])), self.wavelet, levels=self.levels, mode=self._mode, ndim=self.ndim
        )

    @property
    def _mode(self) -> transform.Mode:
        return cast(transform.Mode, self.mode)

    def _part(
        self, x0_hat: Tensor, x0: Tensor, weights: Tensor | None, wants_gradient: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Value `[b]` and gradient of a chunk `[b, r, *space]`."""
        if haar_l1.applies(self.wavelet, self.levels, x0.shape[-self.ndim :]):
            return haar_l1.value_and_gradient(
                x0_hat,
                x0,
                weights,
                levels=self.levels,
                ndim=self.ndim,
                gammas=self.gammas,
                wants_gradient=wants_gradient,
            )
        factors = transform.level_factors(self.wavelet, self.ndim)
        high = len(factors) - 1
        lacking = 1.0  # what the low-pass band is to be multiplied by
        x = x0_hat - x0
        total = x.new_zeros(x.shape[0])
        done = []
        for s in range(self.levels):
            bands = transform.level(x, self.wavelet, mode=self._mode, ndim=self.ndim)
            done.append((bands, x.shape[-self.ndim :]))
            x = bands[0]
            details = [lacking * factor for factor in factors[1:]]
            total += self._take(bands[1:], details, s * high, weights, wants_gradient)
            lacking *= factors[0]
        total += self._take(bands[:1], [lacking], self.levels * high, weights, wants_gradient)
        if not wants_gradient:
            return total, None
        for bands, space in reversed(done):
            if bands is not done[-1][0]:
                bands[0] = x
            x = transform.level_adjoint(bands, self.wavelet, mode=self._mode, shape=space)
        return total, x

    def _take(
        self, bands: Tensor, factors: Sequence[float], first: int, weights: Tensor | None, wants_gradient: bool
    ) -> Tensor:
        """Σ over `bands` `[K, b, r, *coarse]`, the loss's bands from `first` on, of weight · ‖factor · band‖₁: `[b]`.

        Leaves in place of the bands, if wanted, the gradient of that.
        """
        pulls = [abs(f) * gamma for f, gamma in zip(factors, self.gammas[first:], strict=False)]
        sizes, space = bands.abs(), tuple(range(2, bands.ndim))
        if wants_gradient:
            bands.sign_()
        if weights is None and len(set(pulls)) == 1:
            if wants_gradient:
                bands.mul_(pulls[0])
            return sizes.sum((0, *space)) * pulls[0]
        norms = torch.stack([norm * pull for norm, pull in zip(sizes.sum(space), pulls, strict=True)])
        for band, pull in zip(bands, pulls, strict=True) if wants_gradient else ():
            band.mul_(pull)
        if weights is None:
            return norms.sum(0)
        w = weights[:, first : first + len(bands)].T
        if wants_gradient:
            bands.mul_(w.reshape(*w.shape, *(1,) * len(space)))
        return (norms * w).sum(0)
