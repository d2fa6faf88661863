"""Value and gradient of the wavelet loss: W is linear, so W of the difference and one transpose are enough."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
from torch import Tensor

from specreg._compile import constant_tensors
from specreg.losses import compiled
from specreg.losses.fused import Description, Evaluation, chunks, refuse_non_finite
from specreg.transforms import wavelet as transform
from specreg.transforms.wavelet_stages import Cells, Stage, even_levels, plan


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
        if len(parts) == 1:
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
        if x0.device.type == "cpu" and not math.isfinite(float(value.sum())):
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
        start = _Passed()
        lifted = even_levels(self.wavelet, self.levels, x0.shape[-self.ndim :]) if compiled.usable(x0) else 0
        if not lifted:
            return self._chain(x0_hat - x0, start, weights, wants_gradient)
        from specreg.losses import haar_kernels

        stage = Cells(self.wavelet, self._mode, tuple(x0.shape[-self.ndim :]), lifted)
        by_band = self._by_band(stage, start, weights, x0)
        if lifted == self.levels:
            return haar_kernels.evaluate(x0_hat, x0, lifted, self.ndim, by_band, wants_gradient=wants_gradient)
        total, low = haar_kernels.down(x0_hat, x0, lifted, self.ndim, by_band)
        rest, pull = self._chain(low, start.on(stage), weights, wants_gradient)
        total += rest
        if pull is None:
            return total, None
        return total, haar_kernels.up(x0_hat, x0, lifted, self.ndim, by_band, pull)

    def _chain(
        self, x: Tensor, passed: _Passed, weights: Tensor | None, wants_gradient: bool
    ) -> tuple[Tensor, Tensor | None]:
        """The levels that are left, of differences `x` `[b, r, *space]`, which are used up."""
        levels = self.levels - passed.levels
        stages = plan(self.wavelet, levels, self._mode, x.shape[-self.ndim :], x)
        total: Tensor | None = None
        done: list[Tensor] = []
        for stage in stages:
            y = stage.forward(x)
            del x  # or it would stay for as long as what comes of it
            if stage is not stages[-1]:  # what comes of the approximation is for the next stages to say
                x = stage.approximation(y).clone(memory_format=torch.contiguous_format)
                stage.approximation(y).zero_()
            found = _score(y, stage, self._pulls(stage, passed), self._of_bands(stage, passed, weights), wants_gradient)
            total = found if total is None else total + found
            done.append(y)
            passed = passed.on(stage)
        assert total is not None  # there is a level
        if not wants_gradient:
            return total, None
        del y
        for stage in reversed(stages):
            if stage is not stages[-1]:
                stage.approximation(done[-1]).copy_(x)
            x = stage.transpose(done.pop())
        return total, x

    def _pulls(self, stage: Stage, passed: _Passed) -> tuple[float, ...]:
        """γ of each band of a stage, times what its coefficients lack."""
        last = passed.bands + len(stage.factors) - 1
        gammas = (*self.gammas[passed.bands : last], self.gammas[-1])  # where it is not the last, nobody asks for it
        return tuple(abs(passed.lacking * factor) * gamma for factor, gamma in zip(stage.factors, gammas, strict=True))

    def _of_bands(self, stage: Stage, passed: _Passed, weights: Tensor | None) -> Tensor | None:
        last = passed.bands + len(stage.factors) - 1
        return None if weights is None else torch.cat((weights[:, passed.bands : last], weights[:, -1:]), 1)

    def _by_band(self, stage: Stage, passed: _Passed, weights: Tensor | None, like: Tensor) -> Tensor:
        """Both together, `[b or 1, bands]`."""
        pulls = _tensor(self._pulls(stage, passed), like.dtype, like.device)
        weights = self._of_bands(stage, passed, weights)
        return pulls if weights is None else pulls * weights


class _Passed(NamedTuple):
    """What the stages so far have done."""

    levels: int = 0
    bands: int = 0
    lacking: float = 1.0  # what the approximation lacks, and so all that comes of it

    def on(self, stage: Stage) -> _Passed:
        """And one stage more."""
        bands = self.bands + len(stage.factors) - 1
        return _Passed(self.levels + stage.levels, bands, self.lacking * stage.factors[-1])


def _score(y: Tensor, stage: Stage, pulls: tuple[float, ...], weights: Tensor | None, wants_gradient: bool) -> Tensor:
    """Σ over coefficients `y` of weight · pull of their band · |y|, `[B]`; leaves its gradient in y, if wanted."""
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
