"""Value and gradient of the wavelet loss: W is linear, so it takes W of the difference and one transpose."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from specreg._checks import append_dims
from specreg._compile import constant_tensors
from specreg.losses.fused import Description, Evaluation, chunks
from specreg.losses.inputs import refuse_non_finite
from specreg.losses.optional import Kernel, find_kernel
from specreg.transforms import wavelet as transform
from specreg.transforms.wavelet_stages import Stage, is_lifted, plan


@dataclass(frozen=True)
class WaveletL1(Description):
    """Σ γ·‖W[x0_hat − x0]‖₁; `gammas` level by level, the approximation last; `weights` are `[B or 1, bands]`."""

    wavelet: str
    levels: int
    mode: str
    ndim: int
    reduction: str
    gammas: tuple[float, ...]

    def evaluate(
        self, x0_hat: Tensor, x0: Tensor, weights: Tensor | None, wants_gradient: bool, scale: float
    ) -> Evaluation:
        """See `Description`."""
        shape, space = x0.shape, x0.shape[-self.ndim :]
        if len(shape) - 2 > self.ndim:
            x0_hat, x0 = (x.reshape(shape[0], -1, *space) for x in (x0_hat, x0))
        parts = chunks(x0.shape, self.ndim, whole_samples=False, device=x0.device)
        kernel: Kernel | None = None
        if is_lifted(self.wavelet, self.levels, self._mode, space):
            kernel = find_kernel("haar", x0_hat, x0)
        if kernel is not None:
            value, gradient = kernel(
                x0_hat,
                x0,
                weights,
                levels=self.levels,
                ndim=self.ndim,
                gammas=self.gammas,
                wants_gradient=wants_gradient,
            )
        elif len(parts) == 1:
            value, gradient = self._part(x0_hat, x0, weights, wants_gradient)
        else:
            value = x0.new_zeros(shape[0])
            gradient = torch.empty_like(x0_hat) if wants_gradient else None
            for b, r in parts:
                w = weights if weights is None or len(weights) == 1 else weights[b]
                total, found = self._part(x0_hat[b, r], x0[b, r], w, wants_gradient)
                value[b] += total
                if gradient is not None and found is not None:
                    gradient[b, r] = found
        value = value * scale
        if x0.device.type == "cpu" and not math.isfinite(sum(value.tolist())):
            refuse_non_finite(x0)
        return Evaluation(value, gradient if gradient is None or gradient.shape == shape else gradient.reshape(shape))

    def options(self) -> tuple[str | int | tuple[float, ...], ...]:
        """See `Description`."""
        return self.wavelet, self.levels, self.mode, self.ndim, self.reduction, self.gammas

    def scale(self, shape: torch.Size) -> float:
        """Return 1/(coefficients per sample) for a mean, 1 for a sum."""
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
        """Return value `[b]` and gradient of a chunk `[b, r, *space]`."""
        space = x0.shape[-self.ndim :]
        x = x0_hat - x0
        stages = plan(self.wavelet, self.levels, self._mode, space, x)
        total: Tensor | None = None
        done: list[Tensor] = []
        first, common = 0, 1.0  # first band of a stage, and the factor that earlier stages left on its input
        for stage in stages:
            y = stage.forward(x)
            del x  # frees its memory
            final, apart = stage is stages[-1], stage.bands(y)
            if not final:  # the next stages transform and score the approximation
                x = stage.approximation(y)
                if not apart:
                    x = x.clone(memory_format=torch.contiguous_format)
                    stage.approximation(y).zero_()
            last = first + len(stage.factors) - 1
            gammas = (*self.gammas[first:last], self.gammas[-1] if final else self.gammas[first])
            pulls = tuple(abs(common * factor) * gamma for factor, gamma in zip(stage.factors, gammas, strict=True))
            w = None if weights is None else torch.cat((weights[:, first:last], weights[:, -1:]), 1)
            if apart:
                found = _score_apart(apart if final else apart[:-1], pulls, w, wants_gradient)
            else:
                found = _score(y, stage, pulls, w, wants_gradient)
            total = found if total is None else total + found
            done.append(y)
            first, common = last, common * stage.factors[-1]
        assert total is not None  # there is a level
        if not wants_gradient:
            return total, None
        del y, apart
        for stage in reversed(stages):
            if stage is not stages[-1]:
                stage.approximation(done[-1]).copy_(x)
                del x
            x = stage.transpose(done.pop())
        return total, x


def _score_apart(
    bands: Sequence[Tensor], pulls: tuple[float, ...], weights: Tensor | None, wants_gradient: bool
) -> Tensor:
    """Return Σ of weight · pull · ‖band‖₁ over bands `[B, …]`, `[B]`; overwrites them with its gradient, if wanted."""
    total = bands[0].new_zeros(len(bands[0]))
    for k, (band, pull) in enumerate(zip(bands, pulls, strict=False)):
        by_sample = None if weights is None else weights[:, k] * pull
        total += band.abs().flatten(1).sum(1) * (pull if by_sample is None else by_sample)
        if wants_gradient:
            band.sign_().mul_(pull if by_sample is None else append_dims(by_sample, band.ndim))
    return total


def _score(y: Tensor, stage: Stage, pulls: tuple[float, ...], weights: Tensor | None, wants_gradient: bool) -> Tensor:
    """Return Σ of weight · pull · |y| over coefficients `y`, `[B]`; overwrites y with its gradient, if wanted."""
    sizes, axes = y.abs(), tuple(range(1, y.ndim))
    if wants_gradient:
        y.sign_()
    if weights is None and len(set(pulls)) == 1:
        if wants_gradient and pulls[0] != 1.0:
            y.mul_(pulls[0])
        return sizes.sum(axes) * pulls[0]
    by_band = _tensor(pulls, y.dtype, y.device)
    field = stage.spread(by_band if weights is None else by_band * weights)
    if wants_gradient:
        y.mul_(field)
    return sizes.mul_(field).sum(axes)


@constant_tensors(256)
def _tensor(pulls: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.tensor([pulls], dtype=dtype, device=device)
