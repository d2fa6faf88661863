"""Value and gradient of the Fourier losses by torch's operations, in few passes over memory.

The transforms are unnormalized and the normalization multiplies the value of each sample: all couplings are homogeneous
in the two spectra (the phase difference has degree 0). Gradients along F̂ are called radial, those along iF̂ tangential;
the adjoint of the transform maps them to x0_hat. See `functional` for the formulas.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from specreg import _checks
from specreg._compile import constant_tensors
from specreg.losses.fused import Description, Evaluation, chunks
from specreg.losses.inputs import refuse_non_finite
from specreg.losses.optional import find_kernel
from specreg.transforms.fourier import bin_weights

# ∂φ̂/∂F̂ grows as 1/Â. The gradient of a phase factor is limited to this many times that of an amplitude.
PHASE_GRADIENT_LIMIT = 10.0

_bin_weights = constant_tensors(64)(bin_weights)


@dataclass(frozen=True)
class FourierL1(Description):
    """‖A − Â‖₁ (coupling None) or one of the couplings of Eq. 15; `weights` are `[B or 1, *half spectrum]`."""

    coupling: str | None
    ndim: int
    norm: str
    reduction: str

    def evaluate(
        self, x0_hat: Tensor, x0: Tensor, weights: Tensor | None, wants_gradient: bool, scale: float
    ) -> Evaluation:
        """See `Description`."""
        shape, space = x0.shape, x0.shape[-self.ndim :]
        terms = 1.0 if self.reduction == "mean" else float(x0[0].numel())
        if len(shape) - 2 > self.ndim:
            x0_hat, x0 = (x.reshape(shape[0], -1, *space) for x in (x0_hat, x0))
        parts = chunks(x0.shape, self.ndim, whole_samples=self.coupling == "norm", device=x0.device)
        if len(parts) == 1:
            value, gradient = _Part(x0_hat, x0, weights, self, terms, wants_gradient, scale).evaluate(x0)
        else:
            value = x0.new_zeros(shape[0])
            gradient = torch.empty_like(x0_hat, memory_format=torch.contiguous_format) if wants_gradient else None
            for b, r in parts:
                w = weights if weights is None or len(weights) == 1 else weights[b]
                out = None if gradient is None else gradient[b, r]
                found = _Part(x0_hat[b, r], x0[b, r], w, self, terms, wants_gradient, scale, out).evaluate(x0)
                value[b] += found.total
                if out is not None and found.gradient is not None and found.gradient.data_ptr() != out.data_ptr():
                    out.copy_(found.gradient)
        return Evaluation(value, gradient if gradient is None or gradient.shape == shape else gradient.reshape(shape))

    def options(self) -> tuple[str | int | None, ...]:
        """See `Description`."""
        return self.coupling, self.ndim, self.norm, self.reduction

    def scale(self, shape: torch.Size) -> float:
        """Return the normalization of the transform, divided by C·∏space for a mean."""
        size = shape[-self.ndim :].numel()
        normalization = {"ortho": 1.0 / math.sqrt(size), "backward": 1.0, "forward": 1.0 / size}[self.norm]
        return normalization / shape[1:].numel() if self.reduction == "mean" else normalization


class _Found(NamedTuple):
    total: Tensor  # [b]
    gradient: Tensor | None


class _Part(NamedTuple):
    """A chunk `[b, r, *space]` of a batch, and the options of its evaluation."""

    x0_hat: Tensor
    x0: Tensor
    weights: Tensor | None  # [b or 1, *half]
    loss: FourierL1
    terms: float  # coefficients per sample where the loss is their sum, 1 where it is their mean
    wants_gradient: bool
    scale: float  # factor of the value, not of the gradient
    out: Tensor | None = None  # contiguous memory that the gradient may be written to, `[b, r, *space]`

    def evaluate(self, batch: Tensor) -> _Found:
        """Return value and gradient of unnormalized spectra; an error names samples of `batch`, the whole x0."""
        found = self._evaluate(careful=False)
        if self.x0.device.type != "cpu" or math.isfinite(sum(found.total.tolist())):
            return found
        refuse_non_finite(batch)
        return self._evaluate(careful=True)

    def _evaluate(self, *, careful: bool) -> _Found:
        """Return value and gradient; `careful` computes amplitudes more slowly, without overflow and underflow."""
        if not careful and self.loss.coupling != "norm" and (kernel := find_kernel("fourier", self.x0_hat, self.x0)):
            value, gradient = kernel(
                self.x0_hat,
                self.x0,
                self.weights,
                coupling=self.loss.coupling,
                wants_gradient=self.wants_gradient,
                scale=self.scale,
                least_amplitude=least_amplitude(self.x0.dtype),
                phase_gradient_limit=PHASE_GRADIENT_LIMIT,
                out=self.out,
            )
            return _Found(value, gradient)
        ways = {None: self._amplitude, "projection": self._projection}
        found = ways.get(self.loss.coupling, self._phase)(careful)
        return found._replace(total=found.total * self.scale)

    def _amplitude(self, careful: bool) -> _Found:
        error = _modulus(self._spectrum(self.x0), careful)
        F_hat = self._spectrum(self.x0_hat)
        A_hat = _modulus(F_hat, careful)
        torch.sub(A_hat, error, out=error)
        if self.wants_gradient:
            _scale(F_hat, error.sign().div_(A_hat.clamp_min_(least_amplitude(A_hat.dtype))))
        del A_hat
        total = self._total(error.abs_())
        del error
        return _Found(total, self._adjoint(F_hat))

    def _projection(self, careful: bool) -> _Found:
        unit = self._spectrum(self.x0)
        A = _modulus(unit, careful)
        F_hat = self._spectrum(self.x0_hat)
        A_hat = _modulus(F_hat, careful)
        error = A_hat - A
        least = A.clamp_min(least_amplitude(A.dtype))
        present = A.div_(least)  # 1, or 0 where x0 has no coefficient and so no phase
        _scale(unit, least.reciprocal_())
        value = torch.mul(F_hat.real, unit.real, out=least).addcmul_(F_hat.imag, unit.imag).neg_()
        value.addcmul_(A_hat, present).clamp_min_(0.0)  # rounding
        present.add_(error.sign())
        total = self._total(value.add_(error.abs_()))
        del A, least, value, error
        if self.wants_gradient:
            _scale(F_hat, present.div_(A_hat.clamp_min_(least_amplitude(A_hat.dtype))))
            F_hat.sub_(unit)
        del unit, present, A_hat
        return _Found(total, self._adjoint(F_hat))

    def _phase(self, careful: bool) -> _Found:
        F_0 = self._spectrum(self.x0)
        A = _modulus(F_0, careful)
        F_hat = self._spectrum(self.x0_hat)
        if careful or F_0.device.type != "cpu":
            F_0.mul_(A.clamp_min(torch.finfo(A.dtype).tiny).reciprocal_())
        # Not conj(), which is lazy and whose flag is lost inside an operator.
        delta = _wrapped_phase(F_0.conj_physical_().mul_(F_hat))
        del F_0
        A_hat = _modulus(F_hat, careful)
        error = torch.sub(A_hat, A, out=A)
        radial = error.sign() if self.wants_gradient else None
        error.abs_()
        lever: Tensor
        if self.loss.coupling == "frequency":
            total = self._total(delta.abs().add_(1.0).mul_(error))
            turn = delta.sign() if self.wants_gradient else None
            factor, lever = delta.abs_().add_(1.0), error
        else:
            mean_error = self._total(error) / self.x0[0].numel()
            turn = delta.sign() if self.wants_gradient else None
            factor = 1.0 + self._total(delta.abs_()) * (self.terms / self.x0[0].numel())
            total = mean_error * factor * self.x0[0].numel()
            lever, factor = (_checks.append_dims(x, error.ndim) for x in (mean_error, factor))
        if radial is None or turn is None:
            return _Found(total, None)
        inverse = A_hat.clamp_min_(least_amplitude(A_hat.dtype)).reciprocal_()
        slope = torch.mul(lever, inverse, out=error).clamp_max_(PHASE_GRADIENT_LIMIT)
        if self.loss.coupling == "norm":
            slope.mul_(self.terms)
        radial.mul_(factor).mul_(inverse)
        turn.mul_(slope).mul_(inverse)
        del A, A_hat, error, slope, delta, factor, lever, inverse
        F_hat.mul_(torch.complex(radial, turn))
        del radial, turn
        return _Found(total, self._adjoint(F_hat))

    def _spectrum(self, x: Tensor) -> Tensor:
        spectrum: Tensor = torch.fft.rfftn(x, dim=tuple(range(-self.loss.ndim, 0)))
        return spectrum

    def _total(self, values: Tensor) -> Tensor:
        """Return Σ over the full spectrum of weighted values on the half spectrum, `[b]`: interior bins count twice."""
        if self.weights is not None:
            values.mul_(self.weights[:, None])
        columns = values.sum(tuple(range(1, values.ndim - 1)))
        return columns.mul_(_bin_weights(self.x0.shape[-1], dtype=columns.dtype, device=columns.device)).sum(1)

    def _adjoint(self, F: Tensor) -> Tensor | None:
        """Return the gradient with respect to x0_hat, given that on the half spectrum without weights; overwrites F."""
        if not self.wants_gradient:
            return None
        if self.weights is not None:
            F.mul_(self.weights[:, None])
        return self._inverse(F)

    def _inverse(self, F: Tensor) -> Tensor:
        """Return the unnormalized inverse transform; overwrites F."""
        axes, size = list(range(-self.loss.ndim, 0)), self.x0.shape[-self.loss.ndim :]
        x: Tensor
        if F.device.type == "cpu" and len(axes) > 1:  # in halves, because irfftn allocates two more spectra
            F = F.contiguous()
            for part in F.view(-1, *F.shape[2:]).chunk(2):
                torch.fft.ifftn(part, dim=axes[:-1], norm="forward", out=part)
            x = torch.fft.irfft(F, n=size[-1], norm="forward")
        else:
            x = torch.fft.irfftn(F, s=size, dim=axes, norm="forward")
        return x


@lru_cache
def least_amplitude(dtype: torch.dtype) -> float:
    """Return the amplitude below which the direction of a coefficient fades to 0: its square is almost denormal."""
    return 10.0 * math.sqrt(torch.finfo(dtype).tiny)


def _modulus(F: Tensor, careful: bool) -> Tensor:
    """Return |F|.

    On the CPU this is √(re² + im²), a third of the time of torch's complex abs, which overflows beyond 1e19 in float32;
    `careful` avoids that.
    """
    if careful or F.device.type != "cpu":
        return F.abs()
    re, im = torch.view_as_real(F).unbind(-1)
    return (re * re).addcmul_(im, im).sqrt_()


def _scale(F: Tensor, factor: Tensor) -> None:
    """Multiply F by real numbers in place, part by part, because mul_ would convert them to complex numbers."""
    for part in torch.view_as_real(F).unbind(-1):
        part.mul_(factor)


def _wrapped_phase(F: Tensor) -> Tensor:
    """Return the phase of F in (−π, π], 0 where F is 0."""
    # atan2 of two real tensors is faster than angle; + 0.0, because atan2(±0, −0) would be ±π.
    re, im = torch.view_as_real(F).unbind(-1)
    phase = im.contiguous()
    return torch.atan2(phase, re + 0.0, out=phase)
