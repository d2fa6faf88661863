"""The three spectral L1 losses of arXiv 2603.02447 on a predicted clean sample, one value a sample.

Notation: F and F̂ are the DFTs of x0 and x0_hat, A = |F| and Â = |F̂| their amplitudes, Δφ the wrapped phase
difference; sums run over the full spectrum of all channels. Every loss takes tensors `[B, T]` or
`[B, C, *space]` in data units and any real float dtype, computes in float32 (float64 for float64) whatever
autocast says, and returns `[B]` in that dtype.

`x0` is data: no gradient flows to it. The gradient with respect to `x0_hat` is finite and bounded for every input
whose transform does not overflow (in float32, values up to 1e30); where |·| has a kink its subgradient is 0. For the
Fourier losses it is known in closed form, so it is computed beside the value and autograd keeps that one tensor; they
are differentiable once.

All raise TypeError for tensors that are not real floats, ValueError for shapes that differ, empty batches and,
on the CPU, an `x0` with NaN or infinity (on an accelerator that test would stall the queue: there the loss
itself is then non-finite).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from specreg import _checks
from specreg.transforms import fourier
from specreg.transforms.fourier import Norm
from specreg.transforms.radial import band_mean, half_grid
from specreg.transforms.wavelet import Mode, max_levels, wavedecn

Reduction = Literal["mean", "sum"]
Coupling = Literal["frequency", "norm", "projection"]
BandWeights = Sequence[float] | Mapping[tuple[int, str] | str, float]
FrequencyWeight = Callable[[Tensor], Tensor]
"""Weight of each sample at each of some frequencies: `[K]` in cycles per sample -> `[B, K]`, or `[1, K]` for all."""
REDUCTIONS = ("mean", "sum")
COUPLINGS = ("frequency", "norm", "projection")

# ∂φ̂/∂F̂ grows as 1/Â. The gradient of a phase factor is limited to this many times that of an amplitude.
PHASE_GRADIENT_LIMIT = 10.0


def amplitude(
    x0_hat: Tensor,
    x0: Tensor,
    *,
    ndim: int | None = None,
    norm: Norm = "ortho",
    reduction: Reduction = "mean",
    frequency_weight: FrequencyWeight | None = None,
) -> Tensor:
    """‖A − Â‖₁ (Eq. 14), `[B]`.

    Args:
        x0_hat: predicted clean samples, `[B, T]` or `[B, C, *space]`.
        x0: clean samples of the same shape.
        ndim: how many trailing axes to transform; all spatial ones when None.
        norm: scaling of the DFT, as in torch.fft.
        reduction: "mean" or "sum" over all coefficients of a sample. A sum grows with the sample, and the λ
            that goes with it shrinks: λ_sum = λ_mean / (C·∏space).
        frequency_weight: weight of each sample at each frequency, not negative; it weighs coefficients, not their
            count, and gets no gradient.
    """
    return _fourier(x0_hat, x0, None, ndim, norm, reduction, frequency_weight)


def amplitude_phase(
    x0_hat: Tensor,
    x0: Tensor,
    *,
    coupling: Coupling = "frequency",
    ndim: int | None = None,
    norm: Norm = "ortho",
    reduction: Reduction = "mean",
    frequency_weight: FrequencyWeight | None = None,
) -> Tensor:
    """Amplitude and phase together (Eq. 15), `[B]`.

    Args:
        x0_hat: predicted clean samples, `[B, T]` or `[B, C, *space]`.
        x0: clean samples of the same shape.
        coupling: how Eq. 15 joins its two factors.
            "frequency": Σ |A − Â|·(1 + |Δφ|), the product at each frequency, as the paper's prose describes it.
            "norm": ‖A − Â‖₁·(1 + ‖Δφ‖₁), the product of the two reduced norms, as printed.
            "projection": Σ |A − Â| + Â·(1 − cos Δφ). The two above are blind to phase wherever amplitudes
            agree (a shifted copy costs nothing); this one is zero only where phases agree too.
        ndim: how many trailing axes to transform; all spatial ones when None.
        norm: scaling of the DFT, as in torch.fft.
        reduction: "mean" or "sum" over all coefficients of a sample.
        frequency_weight: as in `amplitude`; with coupling "norm" it is inside both norms.

    The phase gradient of "frequency" and "norm" grows without bound as Â → 0 and is held at
    `PHASE_GRADIENT_LIMIT` times the amplitude's.
    """
    _checks.choice("coupling", coupling, COUPLINGS)
    return _fourier(x0_hat, x0, coupling, ndim, norm, reduction, frequency_weight)


def wavelet(
    x0_hat: Tensor,
    x0: Tensor,
    *,
    wavelet: str = "haar",
    levels: int | None = None,
    mode: Mode = "periodization",
    band_weights: BandWeights | None = None,
    ndim: int | None = None,
    reduction: Reduction = "mean",
    frequency_weight: FrequencyWeight | None = None,
) -> Tensor:
    """Σ_{s,ℓ} γ_{s,ℓ}·‖W^{s,ℓ} − Ŵ^{s,ℓ}‖₁ over all levels and bands, approximation included (Eq. 16, 24), `[B]`.

    Args:
        x0_hat: predicted clean samples, `[B, T]` or `[B, C, *space]`.
        x0: clean samples of the same shape.
        wavelet: a discrete PyWavelets wavelet.
        levels: depth s of the decomposition; the deepest useful one (at least 1) when None.
        mode: boundary handling, as in PyWavelets.
        band_weights: γ. One number a level, finest first, the approximation counting with the coarsest level; or
            a mapping from (level, band), such as (1, "dd") or (3, "aa"), also written "1dd" and "3aa", to its
            number, with 1 for all others.
        ndim: how many trailing axes to transform; all spatial ones when None.
        reduction: "mean" or "sum" over all coefficients of a sample (γ weighs the coefficients, not their count).
        frequency_weight: weight of each sample at each band's centre frequency, a factor beside γ; no gradient.
    """
    bands = wavelet_bands(x0_hat, x0, wavelet=wavelet, levels=levels, mode=mode, band_weights=band_weights, ndim=ndim)
    _checks.choice("reduction", reduction, REDUCTIONS)
    shares = torch.stack([band.gamma * band.l1 for band in bands.values()], dim=1)
    if frequency_weight is not None:
        shares = shares * _weights(frequency_weight, band_centres(tuple(bands), shares.device), shares)
    total = shares.sum(1)
    if reduction == "mean":
        total = total / sum(band.size for band in bands.values())
    return _finite(total, x0)


class Band(NamedTuple):
    """One wavelet band's share of the loss."""

    l1: Tensor  # [B], sum of |W − Ŵ|
    size: int  # coefficients a sample
    gamma: float


def wavelet_bands(
    x0_hat: Tensor,
    x0: Tensor,
    *,
    wavelet: str,
    levels: int | None = None,
    mode: Mode = "periodization",
    band_weights: BandWeights | None = None,
    ndim: int | None = None,
) -> dict[str, Band]:
    """The wavelet loss by band: "1dd" is band dd of level 1, the finest; the approximation is "a…a" of the last."""
    x0_hat, x0, ndim = _pair(x0_hat, x0, ndim)
    levels = max_levels(x0.shape[-ndim:], wavelet) if levels is None else levels
    with torch.autocast(x0.device.type, enabled=False):
        # W is linear: one transform of the difference serves for both.
        approx, details, _ = wavedecn(x0_hat - x0, wavelet, levels=levels, mode=mode, ndim=ndim)
        bands = {f"{level}{name}": w for level, detail in enumerate(details, 1) for name, w in detail.items()}
        bands[f"{levels}{'a' * ndim}"] = approx
        gamma = _gammas(band_weights, list(bands), levels)
        return {key: Band(w.abs().flatten(1).sum(1), w[0].numel(), gamma[key]) for key, w in bands.items()}


@lru_cache(maxsize=64)
def band_centres(bands: tuple[str, ...], device: torch.device | None = None) -> Tensor:
    """Centre frequency of wavelet bands such as "1dd" or "3aa", cycles per sample, float32 `[bands]`; cached.

    Along each axis details of level s fill 2^-(s+1) … 2^-s and the approximation what is below; several axes add as
    squares.
    """
    centres = []
    for band in bands:
        axes = band.lstrip("0123456789")
        octave = 2.0 ** -int(band[: -len(axes)])
        centres.append(math.hypot(*(octave * (0.75 if axis == "d" else 0.25) for axis in axes)))
    with torch.inference_mode(False):
        return torch.tensor(centres, device=device)


def _weights(frequency_weight: FrequencyWeight, frequency: Tensor, like: Tensor) -> Tensor:
    """The weights at `frequency` `[K]`, checked: `[B or 1, K]`, data in the dtype of `like` `[B, …]`."""
    weights = frequency_weight(frequency.to(like)).detach().to(like)
    if weights.ndim != 2 or weights.shape[0] not in (1, len(like)) or weights.shape[1] != len(frequency):
        raise ValueError(
            f"frequency_weight must return [{len(like)} or 1, {len(frequency)}] for {len(frequency)} frequencies and "
            f"a batch of {len(like)}; got {list(weights.shape)}"
        )
    return weights


def _gammas(band_weights: BandWeights | None, bands: Sequence[str], levels: int) -> dict[str, float]:
    if band_weights is None:
        return dict.fromkeys(bands, 1.0)
    if isinstance(band_weights, Mapping):
        named = {key if isinstance(key, str) else f"{key[0]}{key[1]}": gamma for key, gamma in band_weights.items()}
        for name in named:
            if name not in bands:
                raise ValueError(f"band_weights names {name!r}; the bands of {levels} levels are {', '.join(bands)}")
        return {name: float(named.get(name, 1.0)) for name in bands}
    if len(band_weights) != levels:
        raise ValueError(f"band_weights must have one number for each of {levels} levels; got {len(band_weights)}")
    return {name: float(band_weights[int(name.rstrip("ad")) - 1]) for name in bands}


def amplitude_bands(
    x0_hat: Tensor, x0: Tensor, *, bands: int = 8, ndim: int | None = None, norm: Norm = "ortho"
) -> Tensor:
    """Mean |A − Â| in `bands` equal bands of |frequency| up to Nyquist, corners in the last: `[B, bands]`."""
    x0_hat, x0, ndim = _pair(x0_hat, x0, ndim)
    with torch.autocast(x0.device.type, enabled=False):
        error = fourier.half_spectrum(x0_hat, ndim=ndim, norm=norm).abs()
        error = (error - fourier.half_spectrum(x0, ndim=ndim, norm=norm).abs()).abs()
        return band_mean(error, x0.shape[-ndim:], bands)


def _pair(x0_hat: Tensor, x0: Tensor, ndim: int | None) -> tuple[Tensor, Tensor, int]:
    """Both tensors as `[B, C, *space]` in the dtype to compute in, and the number of axes to transform."""
    x0, ndim = _checks.image_like("x0", x0, ndim)
    x0_hat, _ = _checks.image_like("x0_hat", x0_hat, ndim)
    if x0_hat.shape != x0.shape:
        raise ValueError(f"x0_hat and x0 must have the same shape; got {list(x0_hat.shape)} and {list(x0.shape)}")
    if x0_hat.device != x0.device:
        raise ValueError(f"x0_hat and x0 must be on one device; got {x0_hat.device} and {x0.device}")
    dtypes = (_checks.compute_dtype("x0_hat", x0_hat), _checks.compute_dtype("x0", x0))
    dtype = torch.float64 if torch.float64 in dtypes else torch.float32
    return x0_hat.to(dtype), x0.detach().to(dtype), ndim


def _finite(per_sample: Tensor, x0: Tensor) -> Tensor:
    """Blame a non-finite loss on x0 if it is at fault; a bad x0 always shows in the value; a good one costs nothing."""
    if per_sample.device.type != "cpu" or torch.compiler.is_compiling() or per_sample.isfinite().all():
        return per_sample
    bad = (~x0.isfinite()).flatten(1).any(1).nonzero().flatten().tolist()
    if bad:
        raise ValueError(f"x0 must be finite; it holds NaN or infinity in sample(s) {bad[:8]} of the batch")
    return per_sample


def _fourier(
    x0_hat: Tensor,
    x0: Tensor,
    coupling: Coupling | None,
    ndim: int | None,
    norm: Norm,
    reduction: Reduction,
    frequency_weight: FrequencyWeight | None,
) -> Tensor:
    _checks.choice("norm", norm, fourier.NORMS)
    _checks.choice("reduction", reduction, REDUCTIONS)
    x0_hat, x0, ndim = _pair(x0_hat, x0, ndim)
    with torch.autocast(x0.device.type, enabled=False):
        weights = None
        if frequency_weight is not None:
            shape = tuple(x0.shape[-ndim:])
            weights = _weights(frequency_weight, half_grid(shape, x0.dtype, x0.device), x0)
            weights = weights.reshape(-1, *(1,) * (x0.ndim - 1 - ndim), *shape[:-1], shape[-1] // 2 + 1)
        wants_gradient = torch.is_grad_enabled() and x0_hat.requires_grad
        apply: Callable[..., Tensor] = _FourierL1.apply  # whether it is typed depends on torch's version
        loss = apply(x0_hat, x0, weights, coupling, ndim, norm, reduction, wants_gradient)
    return _finite(loss, x0)


class _FourierL1(torch.autograd.Function):
    """The Fourier losses with their gradient in closed form, radial (along F̂) and tangential (along iF̂)."""

    @staticmethod
    def forward(
        ctx: Any,
        x0_hat: Tensor,
        x0: Tensor,
        weights: Tensor | None,
        coupling: Coupling | None,
        ndim: int,
        norm: Norm,
        reduction: Reduction,
        wants_gradient: bool,
    ) -> Tensor:
        F_hat = fourier.half_spectrum(x0_hat, ndim=ndim, norm=norm)
        F = fourier.half_spectrum(x0, ndim=ndim, norm=norm)
        bins = fourier.bin_weights(x0.shape[-1], dtype=x0.dtype, device=x0.device)
        if weights is not None:
            bins = bins * weights
        count = x0[0].numel()
        scale = 1.0 / count if reduction == "mean" else 1.0

        A_hat = F_hat.abs()
        excess = A_hat - F.abs()
        error = excess.abs()
        radial = excess.sign()
        if coupling is None:
            loss = scale * _total(bins * error)
        elif coupling == "projection":
            unit = torch.sgn(F)
            along = (F_hat * unit.conj()).real
            loss = scale * _total(bins * (error + torch.where(F == 0, 0.0, A_hat - along)))
        else:
            delta = fourier.phase_difference(F_hat, F)
            if coupling == "frequency":
                factor, lever = 1 + delta.abs(), error
                loss = scale * _total(bins * error * factor)
            else:
                mean_error = _total(bins * error) / count
                phase_norm = scale * _total(bins * delta.abs())
                loss = scale * count * mean_error * (1 + phase_norm)
                factor = _checks.append_dims(1 + phase_norm, error.ndim)
                lever = _checks.append_dims(mean_error, error.ndim)
        if not wants_gradient:
            return loss

        direction = torch.sgn(F_hat)
        if coupling is None:
            gradient = direction * radial
        elif coupling == "projection":
            gradient = torch.where(F == 0, direction * radial, direction * (radial + 1) - unit)
        else:
            slope = (lever / A_hat.clamp_min(torch.finfo(A_hat.dtype).tiny)).clamp_max(PHASE_GRADIENT_LIMIT)
            slope = slope * (scale * count if coupling == "norm" else 1.0)
            gradient = direction * torch.complex(radial * factor, slope * delta.sign())
        if weights is not None:
            gradient = gradient * weights
        gradient = fourier.half_spectrum_adjoint(gradient, shape=x0.shape, ndim=ndim, norm=norm)
        ctx.save_for_backward(gradient.mul_(scale))
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return _checks.append_dims(grad, gradient.ndim) * gradient, None, None, None, None, None, None, None


def _total(x: Tensor) -> Tensor:
    return x.flatten(1).sum(1)
