"""The n-dimensional discrete wavelet transform and its inverse, coefficient for coefficient PyWavelets'.

With h the L taps of an analysis filter, r those of a synthesis filter (L is even for every discrete wavelet
of PyWavelets) and x the extended signal, one step along one axis of N samples is

    y[k] = Σ_j h[j] x[2k + p - j],                   p = 1, or L/2 with periodization,
    x[n] = Σ_{bands} Σ_k r[n - 2k + q] y[k],         q = L - 2, or L/2 - 1 with periodization,

and gives M = ⌊(N + L - 1)/2⌋ coefficients a band, or ⌈N/2⌉ with periodization. Both are built from
`_analyze`, a downsampling correlation, and its adjoint `_synthesize`, each of which is the other's gradient.
They add one shifted slice a non-zero tap in place: for the short filters of a loss that is faster than a
convolution, keeps the tensor's own precision whatever autocast and TF32 say, and needs no case for Haar.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from itertools import product
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import pywt
import torch
import torch.nn.functional as F
from torch import Tensor

from specreg import _checks

Mode = Literal["periodization", "periodic", "zero", "symmetric", "reflect", "constant"]
"""How a signal continues beyond its ends, in PyWavelets' names; only `periodization` adds no coefficients."""


class WaveletCoefficients(NamedTuple):
    """Wavelet coefficients of a signal, finest level first.

    approx:  `[B, C, *coarsest]`, the low-pass band of the coarsest level.
    details: one dict a level, `details[0]` the finest. Keys as in PyWavelets, a letter an axis, `a` low-pass
             and `d` high-pass: `d` in 1-D; `ad`, `da`, `dd` in 2-D; seven in 3-D.
    shape:   sizes of the transformed axes of the signal, to which the inverse trims.
    """

    approx: Tensor
    details: tuple[dict[str, Tensor], ...]
    shape: tuple[int, ...]


def max_levels(shape: Sequence[int], wavelet: str) -> int:
    """Return the deepest level with coefficients free of boundary effects along every axis, or 1 if none.

    `shape` holds the sizes of the transformed axes. Equals `max(1, pywt.dwtn_max_level(shape, wavelet))`.
    """
    length = _filter_bank(wavelet).length
    return max(1, min(int(pywt.dwt_max_level(size, length)) for size in shape))


def wavedecn(
    x: Tensor,
    wavelet: str,
    *,
    levels: int | None = None,
    mode: Mode = "periodization",
    ndim: int | None = None,
) -> WaveletCoefficients:
    """Transform the trailing `ndim` axes of `x`; differentiable, any number of times.

    Args:
        x: `[B, C, *space]` with one to three spatial axes, or `[B, T]` read as `[B, 1, T]`; any real floating
            dtype. Half precision is raised to float32.
        wavelet: a discrete wavelet of PyWavelets, such as `haar`, `db4` or `bior1.3`.
        levels: number of levels, at least 1; by default `max_levels` of the transformed sizes. More are
            allowed, down to sizes of 1 and beyond.
        mode: how the signal continues beyond its ends.
        ndim: number of trailing axes to transform; by default all after batch and channel.

    Raises:
        TypeError: `x` is not a real floating-point tensor.
        ValueError: an unknown wavelet or mode, `levels` below 1, an empty `x`, one with too many axes, or an
            axis of size 1 with mode `reflect` (where PyWavelets refuses too).
    """
    x, ndim = _checks.image_like("x", x, ndim)
    x = x.to(_checks.compute_dtype("x", x))
    _checks.choice("mode", mode, get_args(Mode))
    bank = _filter_bank(wavelet)
    shape = tuple(x.shape[-ndim:])
    levels = max_levels(shape, wavelet) if levels is None else levels
    if levels < 1:
        raise ValueError(f"levels must be at least 1; got {levels}")

    details = []
    for _ in range(levels):
        for axis in range(-1, -ndim - 1, -1):  # each puts its band axis in front: the first one ends up first
            x = _analyze_axis(x, axis, bank, mode)
        x, *high = x.flatten(0, ndim - 1).unbind()
        details.append(dict(zip(_band_keys(ndim), high, strict=True)))
    return WaveletCoefficients(x, tuple(details), shape)


def waverecn(coefficients: WaveletCoefficients, wavelet: str, *, mode: Mode = "periodization") -> Tensor:
    """Return the signal `[B, C, *space]` of `coefficients` that `wavedecn` made with this wavelet and mode.

    Odd sizes come back exactly: every level is trimmed to the size that it was made from.

    Raises:
        ValueError: an unknown wavelet or mode, a missing band, or sizes that do not fit the wavelet and mode.
    """
    _checks.choice("mode", mode, get_args(Mode))
    bank = _filter_bank(wavelet)
    x, details, shape = coefficients
    ndim, keys = len(shape), _band_keys(len(shape))
    for level in range(len(details), 0, -1):
        bands = details[level - 1]
        if set(bands) != set(keys):
            got = ", ".join(bands) or "none"
            raise ValueError(f"level {level} must have the bands {', '.join(keys)}; got {got}")
        target = shape if level == 1 else details[level - 2][keys[0]].shape[-ndim:]
        x = torch.stack([x, *(bands[key] for key in keys)]).reshape(*(2,) * ndim, *x.shape)
        for axis in range(-ndim, 0):
            x = _synthesize_axis(x, axis, bank, mode, target[axis])
    return x


def _band_keys(ndim: int) -> list[str]:
    """Return the names of the detail bands in the order of their index: 'd', or 'ad', 'da', 'dd', …"""
    return ["".join(letters) for letters in product("ad", repeat=ndim)][1:]


# --- filters ------------------------------------------------------------------------------------------------

Taps = tuple[tuple[tuple[int, float], ...], ...]
"""For each of the two bands, (position, value) of every non-zero tap."""


class _FilterBank(NamedTuple):
    length: int
    analysis: Taps  # reversed, so that analysis is a correlation
    synthesis: Taps


@cache
def _filter_bank(name: str) -> _FilterBank:
    names = pywt.wavelist(kind="discrete")
    if name not in names:
        near = _checks.nearest(str(name).lower(), names)
        raise ValueError(
            "wavelet must be a discrete wavelet of PyWavelets, such as haar, db4, sym8, coif2 or bior1.3; "
            f"got {name!r}{near}"
        )
    w = pywt.Wavelet(name)

    def taps(*filters: Sequence[float]) -> Taps:
        return tuple(tuple((j, float(h)) for j, h in enumerate(f) if h != 0) for f in filters)

    return _FilterBank(w.dec_len, taps(w.dec_lo[::-1], w.dec_hi[::-1]), taps(w.rec_lo, w.rec_hi))


# --- one axis -----------------------------------------------------------------------------------------------


def _analyze_axis(x: Tensor, axis: int, bank: _FilterBank, mode: Mode) -> Tensor:
    """Map `[..., N, ...]` to `[2, ..., M, ...]`: the low- and the high-pass band along `axis` (negative)."""
    n, length = x.shape[axis], bank.length
    if mode == "periodization":
        left, count = length // 2 - 1, (n + 1) // 2
    else:
        left, count = length - 2, (n + length - 1) // 2
    if mode == "reflect" and n == 1:
        raise ValueError("mode 'reflect' needs at least 2 samples along every axis at every level; got 1")
    lead, tail = x.shape[:axis], x.shape[axis:][1:]
    x = _extend(x.reshape(lead.numel(), n, tail.numel()), left, 2 * (count - 1) + length - left - n, mode)
    return _analyze(x, bank.analysis, count).reshape(2, *lead, count, *tail)


def _synthesize_axis(y: Tensor, axis: int, bank: _FilterBank, mode: Mode, n: int) -> Tensor:
    """Map the bands `[2, ..., M, ...]` along `axis` (negative) back to `[..., N, ...]` of size `n`."""
    count, length = y.shape[axis], bank.length
    lead, tail = y.shape[1:axis], y.shape[axis:][1:]
    outer = lead.numel()
    y = y.reshape(2 * outer, count, tail.numel())
    if mode == "periodization":
        wrap = length // 4  # coefficients from beyond each end that reach into the signal
        y = _extend(y, wrap, wrap, "periodic")
        full, start = 2 * count, length // 2 - 1 + 2 * wrap
    else:
        full, start = 2 * count - length + 2, length - 2
    if n not in (full - 1, full):
        raise ValueError(
            f"{count} coefficients do not reconstruct {n} samples with a filter of length {length} and mode "
            f"{mode!r}: expected the wavelet and mode that the coefficients were made with"
        )
    size = 2 * (y.shape[1] - 1) + length
    x = _synthesize(y.reshape(2, outer, *y.shape[1:]), bank.synthesis, size)
    return x.narrow(1, start, n).reshape(*lead, n, *tail)


def _extend(x: Tensor, left: int, right: int, mode: Mode) -> Tensor:
    """Continue `[outer, N, inner]` beyond both ends of its middle axis, however far."""
    if left == right == 0:
        return x
    if mode == "zero":
        return F.pad(x, (0, 0, left, right))
    before, after = _edges(x.shape[1], left, right, mode, x.device)
    parts = [x.index_select(1, before)] if left else []
    parts += [x, x.index_select(1, after)] if right else [x]
    return torch.cat(parts, 1)


@lru_cache(maxsize=1024)
def _edges(n: int, left: int, right: int, mode: Mode, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the indices in 0…n-1 that stand for the `left` samples before 0 and the `right` from n on."""
    i = np.concatenate([np.arange(-left, 0), np.arange(n, n + right)], dtype=np.int64)
    if mode == "periodization":  # an odd signal first repeats its last sample
        i = np.minimum(i % (n + n % 2), n - 1)
    elif mode == "periodic":
        i = i % n
    elif mode == "symmetric":  # c b a | a b c | c b a
        i = np.minimum(i % (2 * n), -(i + 1) % (2 * n))
    elif mode == "reflect":  # c b | a b c | b a
        i = np.minimum(i % (2 * n - 2), -i % (2 * n - 2))
    else:
        i = i.clip(0, n - 1)
    with torch.inference_mode(False):  # autograd refuses to save a cached inference tensor
        index = torch.from_numpy(i).to(device)
        return index[:left], index[left:]


# --- the linear step and its adjoint ------------------------------------------------------------------------


def _analyze(x: Tensor, taps: Taps, count: int) -> Tensor:
    """y[b, o, k, i] = Σ_j taps[b][j] x[o, 2k + j, i]: `[outer, S, inner]` to `[2, outer, count, inner]`."""
    apply: Callable[..., Tensor] = _Analyze.apply  # whether it is typed depends on torch's version
    return apply(x, taps, count)


def _synthesize(y: Tensor, taps: Taps, size: int) -> Tensor:
    """x[o, n, i] = Σ_{b, k} taps[b][n - 2k] y[b, o, k, i]: `[2, outer, M, inner]` to `[outer, size, …]`."""
    apply: Callable[..., Tensor] = _Synthesize.apply
    return apply(y, taps, size)


class _Analyze(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, taps: Taps, count: int) -> Tensor:
        y = x.new_zeros(2, x.shape[0], count, x.shape[2])
        for band, pairs in enumerate(taps):
            for j, tap in pairs:
                y[band].add_(x[:, j : j + 2 * count - 1 : 2], alpha=tap)
        return y

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Taps, int], output: Tensor) -> None:
        ctx.taps, ctx.size = inputs[1], inputs[0].shape[1]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return _synthesize(grads[0], ctx.taps, ctx.size), None, None


class _Synthesize(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(y: Tensor, taps: Taps, size: int) -> Tensor:
        count = y.shape[2]
        x = y.new_zeros(y.shape[1], size, y.shape[3])
        for band, pairs in enumerate(taps):
            for j, tap in pairs:
                x[:, j : j + 2 * count - 1 : 2].add_(y[band], alpha=tap)
        return x

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Taps, int], output: Tensor) -> None:
        ctx.taps, ctx.count = inputs[1], inputs[0].shape[2]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return _analyze(grads[0], ctx.taps, ctx.count), None, None
