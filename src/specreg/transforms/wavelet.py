"""The n-dimensional discrete wavelet transform and its inverse, coefficient for coefficient PyWavelets'.

With h the L taps of an analysis filter, r those of a synthesis filter (L is even for every discrete wavelet
of PyWavelets) and x the extended signal, one step along one axis of N samples is

    y[k] = Σ_j h[j] x[2k + p - j],                   p = 1, or L/2 with periodization,
    x[n] = Σ_{bands} Σ_k r[n - 2k + q] y[k],         q = L - 2, or L/2 - 1 with periodization,

and gives M = ⌊(N + L - 1)/2⌋ coefficients a band, or ⌈N/2⌉ with periodization. Both are built from
`_analyze`, a downsampling correlation, and its adjoint `_synthesize`, each of which is the other's gradient.
They add one shifted slice a non-zero tap: for the short filters of a loss that is faster than a convolution,
keeps the tensor's own precision whatever autocast and TF32 say, and needs no case for Haar (the Haar loss has one).

A loss that knows its gradient needs neither autograd nor normalized coefficients: `level` and `level_adjoint` are one
level and its transpose, with filters divided by their largest taps and the factors handed back.
"""

from __future__ import annotations

import math
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
from specreg._compile import constant_tensors, traced_as_constant

Mode = Literal["periodization", "periodic", "zero", "symmetric", "reflect", "constant"]
"""How a signal continues beyond its ends, in PyWavelets' names; only `periodization` adds no coefficients."""
MODES = get_args(Mode)


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


@traced_as_constant
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
    _checks.choice("mode", mode, MODES)
    bank = _filter_bank(wavelet)
    shape = tuple(x.shape[-ndim:])
    levels = max_levels(shape, wavelet) if levels is None else levels
    if levels < 1:
        raise ValueError(f"levels must be at least 1; got {levels}")

    details = []
    for _ in range(levels):
        for axis in range(-1, -ndim - 1, -1):  # each puts its band axis in front: the first one ends up first
            x = _analyze_axis(x, axis, bank, mode, _analyze)
        x, *high = x.flatten(0, ndim - 1).unbind()
        details.append(dict(zip(band_keys(ndim), high, strict=True)))
    return WaveletCoefficients(x, tuple(details), shape)


def waverecn(coefficients: WaveletCoefficients, wavelet: str, *, mode: Mode = "periodization") -> Tensor:
    """Return the signal `[B, C, *space]` of `coefficients` that `wavedecn` made with this wavelet and mode.

    Odd sizes come back exactly: every level is trimmed to the size that it was made from.

    Raises:
        ValueError: an unknown wavelet or mode, a missing band, or sizes that do not fit the wavelet and mode.
    """
    _checks.choice("mode", mode, MODES)
    bank = _filter_bank(wavelet)
    x, details, shape = coefficients
    ndim, keys = len(shape), band_keys(len(shape))
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


def band_keys(ndim: int) -> list[str]:
    """Return the names of the detail bands in the order of their index: 'd', or 'ad', 'da', 'dd', …"""
    return ["".join(letters) for letters in product("ad", repeat=ndim)][1:]


def level(x: Tensor, wavelet: str, *, mode: Mode, ndim: int) -> Tensor:
    """One level of the transform without gradient: `[B, C, *space]` to `[2^ndim, B, C, *coarse]`, low-pass band first.

    Band k is to be multiplied by `level_factors(wavelet, ndim)[k]`.
    """
    bank = _filter_bank(wavelet, divided=True)
    for axis in range(-1, -ndim - 1, -1):
        x = _analyze_axis(x, axis, bank, mode, _correlate)
    return x.flatten(0, ndim - 1)


def level_adjoint(y: Tensor, wavelet: str, *, mode: Mode, shape: Sequence[int]) -> Tensor:
    """The transpose of `level` on axes of sizes `shape`: `[2^ndim, B, C, *coarse]` to `[B, C, *shape]`."""
    bank, ndim = _filter_bank(wavelet, divided=True), len(shape)
    y = y.reshape(*(2,) * ndim, *y.shape[1:])
    for axis, n in zip(range(-ndim, 0), shape, strict=True):
        y = _analyze_axis_adjoint(y, axis, bank, mode, n)
    return y


def level_factors(wavelet: str, ndim: int) -> tuple[float, ...]:
    """What the bands of `level` lack, in their order."""
    low, high = _filter_bank(wavelet, divided=True).factors
    return tuple(math.prod(choice) for choice in product((low, high), repeat=ndim))


@lru_cache(maxsize=256)
def coefficient_count(shape: tuple[int, ...], wavelet: str, *, levels: int, mode: Mode, ndim: int) -> int:
    """How many coefficients `wavedecn` makes of one sample of `shape`, `(C, *space)`."""
    length = _filter_bank(wavelet).length
    lead, space = math.prod(shape[:-ndim]), shape[-ndim:]
    count = 0
    for _ in range(levels):
        space = tuple(_margins(n, length, mode)[2] for n in space)
        count += (2**ndim - 1) * math.prod(space)
    return lead * (count + math.prod(space))


# --- filters ------------------------------------------------------------------------------------------------

Taps = tuple[tuple[tuple[int, float], ...], ...]
"""For each of the two bands, (position, value) of every non-zero tap."""


class _FilterBank(NamedTuple):
    length: int
    analysis: Taps  # reversed, so that analysis is a correlation
    synthesis: Taps
    factors: tuple[float, float]  # what the taps were divided by


@cache
def _filter_bank(name: str, *, divided: bool = False) -> _FilterBank:
    """The filters of a wavelet; `divided` by their largest tap, which then comes first and costs no multiplication."""
    names = pywt.wavelist(kind="discrete")
    if name not in names:
        near = _checks.nearest(str(name).lower(), names)
        raise ValueError(
            "wavelet must be a discrete wavelet of PyWavelets, such as haar, db4, sym8, coif2 or bior1.3; "
            f"got {name!r}{near}"
        )
    w = pywt.Wavelet(name)
    filters = (w.dec_lo[::-1], w.dec_hi[::-1], w.rec_lo, w.rec_hi)
    factors = [max(f, key=abs) if divided else 1.0 for f in filters]
    taps = [
        tuple(sorted(((j, h / factor) for j, h in enumerate(f) if h != 0), key=lambda tap: divided and tap[1] != 1.0))
        for f, factor in zip(filters, factors, strict=True)
    ]
    return _FilterBank(w.dec_len, (taps[0], taps[1]), (taps[2], taps[3]), (factors[0], factors[1]))


# --- one axis -----------------------------------------------------------------------------------------------


def _analyze_axis(
    x: Tensor, axis: int, bank: _FilterBank, mode: Mode, correlate: Callable[[Tensor, Taps, int], Tensor]
) -> Tensor:
    """Map `[..., N, ...]` to `[2, ..., M, ...]`: the low- and the high-pass band along `axis` (negative)."""
    left, right, count = _margins(x.shape[axis], bank.length, mode)
    lead, tail = x.shape[:axis], x.shape[axis:][1:]
    x = _extend(x.reshape(lead.numel(), x.shape[axis], tail.numel()), left, right, mode)
    return correlate(x, bank.analysis, count).reshape(2, *lead, count, *tail)


def _analyze_axis_adjoint(y: Tensor, axis: int, bank: _FilterBank, mode: Mode, n: int) -> Tensor:
    """The transpose of `_analyze_axis`: `[2, ..., M, ...]` to `[..., N, ...]`."""
    left, right, count = _margins(n, bank.length, mode)
    lead, tail = y.shape[1:axis], y.shape[axis:][1:]
    y = y.reshape(2, lead.numel(), count, tail.numel())
    x = _spread(y, bank.analysis, left + n + right)
    core = x.narrow(1, left, n)
    if mode != "zero" and left + right:
        before, after = _edges(n, left, right, mode, x.device)
        core = core.contiguous()
        core.index_add_(1, before, x[:, :left]).index_add_(1, after, x[:, left + n :])
    return core.reshape(*lead, n, *tail)


def _margins(n: int, length: int, mode: Mode) -> tuple[int, int, int]:
    """By how much a signal of `n` is extended on either side, and how many coefficients a band that makes."""
    if mode == "periodization":
        left, count = length // 2 - 1, (n + 1) // 2
    else:
        left, count = length - 2, (n + length - 1) // 2
    if mode == "reflect" and n == 1:
        raise ValueError("mode 'reflect' needs at least 2 samples along every axis at every level; got 1")
    return left, 2 * (count - 1) + length - left - n, count


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


@constant_tensors(1024)
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


def _correlate(x: Tensor, taps: Taps, count: int) -> Tensor:
    """What `_analyze` computes."""
    phases = [x[:, p::2] for p in (0, 1)]
    if x.shape[2] == 1 and sum(map(len, taps)) > 4:  # many taps along the last axis: deinterleave once
        phases = [phase.contiguous() for phase in phases]
    y = x.new_empty(2, x.shape[0], count, x.shape[2])
    for band, pairs in zip(y, taps, strict=True):
        _weighted_sum([(phases[j % 2][:, j // 2 : j // 2 + count], tap) for j, tap in pairs], out=band)
    return y


def _spread(y: Tensor, taps: Taps, size: int) -> Tensor:
    """What `_synthesize` computes."""
    count = y.shape[2]
    x = y.new_empty(y.shape[1], size, y.shape[3])
    for p in (0, 1):
        phase = x[:, p::2]
        pairs = [(j // 2, band, tap) for band, pairs in zip(y, taps, strict=True) for j, tap in pairs if j % 2 == p]
        if {start for start, _, _ in pairs} == {0} and phase.shape[1] == count:
            _weighted_sum([(band, tap) for _, band, tap in pairs], out=phase)
            continue
        total = torch.zeros_like(phase, memory_format=torch.contiguous_format) if y.shape[3] == 1 else phase.zero_()
        for start, band, tap in pairs:
            total[:, start : start + count].add_(band, alpha=tap)
        if total is not phase:
            phase.copy_(total)
    return x


def _weighted_sum(parts: Sequence[tuple[Tensor, float]], *, out: Tensor) -> None:
    """Σ weight · tensor into `out`, a pass over memory saved where the first weight is 1."""
    (first, weight), *rest = parts
    if weight == 1.0 and rest:
        (second, alpha), *rest = rest
        torch.add(first, second, alpha=alpha, out=out)
    else:
        torch.mul(first, weight, out=out)
    for tensor, alpha in rest:
        out.add_(tensor, alpha=alpha)


class _Analyze(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, taps: Taps, count: int) -> Tensor:
        return _correlate(x, taps, count)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Taps, int], output: Tensor) -> None:
        ctx.taps, ctx.size = inputs[1], inputs[0].shape[1]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return _synthesize(grads[0], ctx.taps, ctx.size), None, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int, ...], x: Tensor, taps: Taps, count: int) -> tuple[Tensor, int]:
        y = _analyze(x.movedim(in_dims[0], 0).flatten(0, 1), taps, count)
        return y.reshape(2, info.batch_size, -1, *y.shape[2:]), 1


class _Synthesize(torch.autograd.Function):
    @staticmethod
    def forward(y: Tensor, taps: Taps, size: int) -> Tensor:
        return _spread(y, taps, size)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Taps, int], output: Tensor) -> None:
        ctx.taps, ctx.count = inputs[1], inputs[0].shape[2]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return _analyze(grads[0], ctx.taps, ctx.count), None, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int, ...], y: Tensor, taps: Taps, size: int) -> tuple[Tensor, int]:
        x = _synthesize(y.movedim(in_dims[0], 1).flatten(1, 2), taps, size)
        return x.reshape(info.batch_size, -1, *x.shape[1:]), 0
