"""The three spectral L1 losses of arXiv 2603.02447 on a predicted clean sample, one value per sample.

Notation: F and F̂ are the DFTs of x0 and x0_hat, A = |F| and Â = |F̂| their amplitudes, Δφ the wrapped phase
difference; sums run over the full spectrum of all channels. Every loss takes tensors `[B, T]` or
`[B, C, *space]` in data units and any real float dtype, computes in float32 (float64 for float64) whatever
autocast says, and returns `[B]` in that dtype.

Tensors in another order of axes need `layout`, a string with a letter for each axis: `b` batch, `c` channels (may be
absent), and `t`, `l`, `d`, `h`, `w` for time, length, depth, height and width. All of the latter are transformed, in
their order in the string, or the last `ndim` of them: video `[B, T, C, H, W]` is `layout="btchw"`, with `ndim=2` frame
by frame; packed tokens `[B, L, C]` are `layout="blc"`.

`x0` is data: no gradient flows to it. The gradient with respect to `x0_hat` is finite and bounded for every input
whose transform does not overflow (in float32, values up to 1e30); where |·| has a kink its subgradient is 0. The
gradient has a closed form and is computed together with the value, so autograd saves that one tensor, and the losses
are differentiable once.

All raise TypeError for tensors that are not real floats, ValueError for shapes that differ, empty batches and,
on the CPU, an `x0` with NaN or infinity (on an accelerator that check would wait for the device; the loss itself is
non-finite there).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from specreg import _checks
from specreg._compile import constant_tensors, traced_as_constant
from specreg.losses.fourier_l1 import PHASE_GRADIENT_LIMIT as PHASE_GRADIENT_LIMIT
from specreg.losses.fourier_l1 import FourierL1
from specreg.losses.fused import fused
from specreg.losses.inputs import REDUCTIONS, FrequencyWeight, Reduction, pair, weights_at
from specreg.losses.wavelet_l1 import WaveletL1
from specreg.transforms import fourier
from specreg.transforms.fourier import Norm
from specreg.transforms.radial import band_mean, half_grid
from specreg.transforms.wavelet import MODES, Mode, band_keys, max_levels, wavedecn

Coupling = Literal["frequency", "norm", "projection"]
BandWeights = Sequence[float] | Mapping[tuple[int, str] | str, float]
COUPLINGS = ("frequency", "norm", "projection")


def amplitude(
    x0_hat: Tensor,
    x0: Tensor,
    *,
    ndim: int | None = None,
    layout: str | None = None,
    norm: Norm = "ortho",
    reduction: Reduction = "mean",
    frequency_weight: FrequencyWeight | None = None,
) -> Tensor:
    """Return ‖A − Â‖₁ (Eq. 14), `[B]`.

    Args:
        x0_hat: predicted clean samples, `[B, T]` or `[B, C, *space]`.
        x0: clean samples of the same shape.
        ndim: how many trailing axes to transform; all spatial ones when None.
        layout: names of the axes where they are not `[B, C, *space]`, such as "btchw" or "blc"; see the module.
        norm: scaling of the DFT, as in torch.fft.
        reduction: "mean" or "sum" over all coefficients of a sample. The same term takes a smaller λ with a sum:
            λ_sum = λ_mean / (C·∏space).
        frequency_weight: weight of each sample at each frequency, not negative. It multiplies coefficients and does not
            change the divisor of the mean. It gets no gradient.
    """
    return _fourier(x0_hat, x0, None, ndim, layout, norm, reduction, frequency_weight)


def amplitude_phase(
    x0_hat: Tensor,
    x0: Tensor,
    *,
    coupling: Coupling = "frequency",
    ndim: int | None = None,
    layout: str | None = None,
    norm: Norm = "ortho",
    reduction: Reduction = "mean",
    frequency_weight: FrequencyWeight | None = None,
) -> Tensor:
    """Return the loss of amplitudes and phases (Eq. 15), `[B]`.

    Args:
        x0_hat: predicted clean samples, `[B, T]` or `[B, C, *space]`.
        x0: clean samples of the same shape.
        coupling: how Eq. 15 joins its two factors.
            "frequency": Σ |A − Â|·(1 + |Δφ|), the product at each frequency, as the paper's prose describes it.
            "norm": ‖A − Â‖₁·(1 + ‖Δφ‖₁), the product of the two reduced norms, as printed.
            "projection": Σ |A − Â| + Â·(1 − cos Δφ). The two above are blind to phase wherever amplitudes
            agree (a shifted copy costs nothing); this one is zero only where phases agree too.
        ndim: how many trailing axes to transform; all spatial ones when None.
        layout: names of the axes where they are not `[B, C, *space]`, such as "btchw" or "blc"; see the module.
        norm: scaling of the DFT, as in torch.fft.
        reduction: "mean" or "sum" over all coefficients of a sample.
        frequency_weight: as in `amplitude`; with coupling "norm" it is inside both norms.

    The phase gradient of "frequency" and "norm" grows without bound as Â → 0 and is held at
    `PHASE_GRADIENT_LIMIT` times the amplitude's.
    """
    _checks.choice("coupling", coupling, COUPLINGS)
    return _fourier(x0_hat, x0, coupling, ndim, layout, norm, reduction, frequency_weight)


def wavelet(
    x0_hat: Tensor,
    x0: Tensor,
    *,
    wavelet: str = "haar",
    levels: int | None = None,
    mode: Mode = "periodization",
    band_weights: BandWeights | None = None,
    ndim: int | None = None,
    layout: str | None = None,
    reduction: Reduction = "mean",
    frequency_weight: FrequencyWeight | None = None,
) -> Tensor:
    """Return Σ_{s,ℓ} γ_{s,ℓ}·‖W^{s,ℓ} − Ŵ^{s,ℓ}‖₁ over all levels and bands with the approximation (Eq. 16, 24), `[B]`.

    Args:
        x0_hat: predicted clean samples, `[B, T]` or `[B, C, *space]`.
        x0: clean samples of the same shape.
        wavelet: a discrete PyWavelets wavelet.
        levels: depth s of the decomposition; the deepest useful one (at least 1) when None. At most as many as
            halve the shortest axis to 1.
        mode: boundary handling, as in PyWavelets.
        band_weights: γ. One number a level, finest first, the approximation counting with the coarsest level; or
            a mapping from (level, band), such as (1, "dd") or (3, "aa"), also written "1dd" and "3aa", to its
            number, with 1 for all others.
        ndim: how many trailing axes to transform; all spatial ones when None.
        layout: names of the axes where they are not `[B, C, *space]`, such as "btchw" or "blc"; see the module.
        reduction: "mean" or "sum" over all coefficients of a sample; γ does not change the divisor of the mean.
        frequency_weight: weight of each sample at the centre frequency of each band, multiplied with γ; no gradient.
    """
    _checks.choice("reduction", reduction, REDUCTIONS)
    _checks.choice("mode", mode, MODES)
    x0_hat, x0, ndim = pair(x0_hat, x0, ndim, layout)
    levels = depth(levels, x0.shape[-ndim:], wavelet)
    bands = _bands(levels, ndim)
    gammas = _gammas(band_weights, bands, levels)
    weights = None
    if frequency_weight is not None:
        weights = weights_at(frequency_weight, band_centres(bands, x0.device), x0)
    return fused(WaveletL1(wavelet, levels, mode, ndim, reduction, gammas), x0_hat, x0, weights)


def wavelet_bands(
    x0_hat: Tensor,
    x0: Tensor,
    *,
    wavelet: str,
    levels: int | None = None,
    mode: Mode = "periodization",
    ndim: int | None = None,
    layout: str | None = None,
) -> dict[str, Tensor]:
    """Return the mean |W − Ŵ| of each band, `{name: [B]}`: "1dd" is band dd of level 1, the finest."""
    x0_hat, x0, ndim = pair(x0_hat, x0, ndim, layout)
    levels = depth(levels, x0.shape[-ndim:], wavelet)
    with _checks.without_autocast(x0.device):
        approx, details, _ = wavedecn(x0_hat - x0, wavelet, levels=levels, mode=mode, ndim=ndim)
    coefficients = [w for detail in details for w in detail.values()] + [approx]
    return {name: w.abs().flatten(1).mean(1) for name, w in zip(_bands(levels, ndim), coefficients, strict=True)}


def depth(levels: int | None, space: Sequence[int], wavelet: str) -> int:
    """Return the levels of a wavelet loss on samples of a size; ValueError for fewer than 1 or more than are useful."""
    if levels is not None and levels < 1:
        raise ValueError(f"levels must be at least 1; got {levels}")
    if torch.compiler.is_compiling():  # the depth depends on the sizes, so symbolic ones become constants
        space = [len(range(n)) for n in space]
    deepest = max_levels(tuple(space), wavelet)  # refuses an unknown wavelet
    if levels is None:
        return deepest
    # Each level halves the axes. What is left of one of 1 sample is only repeated, larger by √2 at every level.
    most = max(1, _halvings(min(space)))
    if levels > most:
        shape = "×".join(map(str, space))
        raise ValueError(
            f"levels must be at most {most} for samples of {shape}, whose shortest axis is then 1; got {levels}"
        )
    return levels


@traced_as_constant  # torch 2.4 cannot trace bit_length
def _halvings(size: int) -> int:
    """Return after how many halvings, rounded up, an axis of this size has 1 sample."""
    return (size - 1).bit_length()


@traced_as_constant
def _bands(levels: int, ndim: int) -> tuple[str, ...]:
    """Return the names of the bands, finest level first, the approximation last."""
    details = [f"{level}{name}" for level in range(1, levels + 1) for name in band_keys(ndim)]
    return (*details, f"{levels}{'a' * ndim}")


@constant_tensors(64)
def band_centres(bands: tuple[str, ...], device: torch.device | None = None) -> Tensor:
    """Return the centre frequency of bands such as "1dd" or "3aa", cycles per sample, float32 `[bands]`; cached.

    Along one axis the details of level s cover 2^-(s+1) to 2^-s and the approximation of level s covers 0 to 2^-(s+1);
    the frequency of several axes is the root of the sum of squares.
    """
    centres = []
    for band in bands:
        axes = band.lstrip("0123456789")
        octave = 2.0 ** -int(band[: -len(axes)])
        centres.append(math.hypot(*(octave * (0.75 if axis == "d" else 0.25) for axis in axes)))
    return torch.tensor(centres, dtype=torch.float32, device=device)


def _gammas(band_weights: BandWeights | None, bands: Sequence[str], levels: int) -> tuple[float, ...]:
    """Return γ of each of `bands`."""
    if band_weights is None:
        return (1.0,) * len(bands)
    if isinstance(band_weights, Mapping):
        named = {key if isinstance(key, str) else f"{key[0]}{key[1]}": gamma for key, gamma in band_weights.items()}
        for name in named:
            if name not in bands:
                raise ValueError(f"band_weights names {name!r}; the bands of {levels} levels are {', '.join(bands)}")
        return tuple(float(named.get(name, 1.0)) for name in bands)
    if len(band_weights) != levels:
        raise ValueError(f"band_weights must have one number for each of {levels} levels; got {len(band_weights)}")
    return tuple(float(band_weights[int(name.rstrip("ad")) - 1]) for name in bands)


def amplitude_bands(
    x0_hat: Tensor,
    x0: Tensor,
    *,
    bands: int = 8,
    ndim: int | None = None,
    layout: str | None = None,
    norm: Norm = "ortho",
) -> Tensor:
    """Return the mean |A − Â| in `bands` equal bands of |frequency|, `[B, bands]`; the last reaches beyond Nyquist."""
    x0_hat, x0, ndim = pair(x0_hat, x0, ndim, layout)
    with _checks.without_autocast(x0.device):
        error = fourier.half_spectrum(x0_hat, ndim=ndim, norm=norm).abs()
        error = (error - fourier.half_spectrum(x0, ndim=ndim, norm=norm).abs()).abs()
        return band_mean(error, x0.shape[-ndim:], bands)


def _fourier(
    x0_hat: Tensor,
    x0: Tensor,
    coupling: Coupling | None,
    ndim: int | None,
    layout: str | None,
    norm: Norm,
    reduction: Reduction,
    frequency_weight: FrequencyWeight | None,
) -> Tensor:
    _checks.choice("norm", norm, fourier.NORMS)
    _checks.choice("reduction", reduction, REDUCTIONS)
    x0_hat, x0, ndim = pair(x0_hat, x0, ndim, layout)
    weights = None
    if frequency_weight is not None:
        shape = tuple(x0.shape[-ndim:])
        weights = weights_at(frequency_weight, half_grid(shape, x0.dtype, x0.device), x0)
        weights = weights.reshape(-1, *shape[:-1], shape[-1] // 2 + 1)
    return fused(FourierL1(coupling, ndim, norm, reduction), x0_hat, x0, weights)
