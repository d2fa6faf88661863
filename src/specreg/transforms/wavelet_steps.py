"""One step of a wavelet transform along one axis, its transpose, and the filters of a wavelet.

With h the L taps of an analysis filter (L is even for every discrete wavelet of PyWavelets) and x the extended signal,
one step along an axis of N samples is

    y[k] = Σ_j h[j] x[2k + p - j],                   p = 1, or L/2 with periodization,

and gives M = ⌊(N + L - 1)/2⌋ coefficients per band, or ⌈N/2⌉ with periodization. It adds one shifted slice per non-zero
tap: for the short filters of a loss that is faster than a convolution, and it keeps the tensor's own precision whatever
autocast and TF32 say. Autograd does not see these steps; the losses apply the transpose themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Literal, NamedTuple, get_args

import numpy as np
import pywt
import torch
import torch.nn.functional as F
from torch import Tensor

from specreg import _checks
from specreg._compile import constant_tensors

Mode = Literal["periodization", "periodic", "zero", "symmetric", "reflect", "constant"]
"""How a signal continues beyond its ends, in PyWavelets' names; only `periodization` adds no coefficients."""
MODES = get_args(Mode)


# --- filters ------------------------------------------------------------------------------------------------

Taps = tuple[tuple[tuple[int, float], ...], ...]
"""For each of the two bands, (position, value) of every non-zero tap."""


class FilterBank(NamedTuple):
    """Filters of a wavelet as taps."""

    length: int
    analysis: Taps  # reversed, so that analysis is a correlation
    factors: tuple[float, float]  # the numbers that the taps were divided by


@cache
def filter_bank(name: str, *, divided: bool = False) -> FilterBank:
    """Return the filters of a wavelet, `divided` by their largest tap, which then comes first and costs no product."""
    names = pywt.wavelist(kind="discrete")
    if name not in names:
        near = _checks.nearest(str(name).lower(), names)
        raise ValueError(
            "wavelet must be a discrete wavelet of PyWavelets, such as haar, db4, sym8, coif2 or bior1.3; "
            f"got {name!r}{near}"
        )
    w = pywt.Wavelet(name)
    filters = (w.dec_lo[::-1], w.dec_hi[::-1])
    factors = [max(f, key=abs) if divided else 1.0 for f in filters]
    taps = [
        tuple(sorted(((j, h / factor) for j, h in enumerate(f) if h != 0), key=lambda tap: divided and tap[1] != 1.0))
        for f, factor in zip(filters, factors, strict=True)
    ]
    return FilterBank(w.dec_len, (taps[0], taps[1]), (factors[0], factors[1]))


# --- one axis -----------------------------------------------------------------------------------------------


def analyze_axis(x: Tensor, axis: int, bank: FilterBank, mode: Mode) -> Tensor:
    """Map `[..., N, ...]` to `[2, ..., M, ...]`: the low- and the high-pass band along `axis` (negative)."""
    n = x.shape[axis]
    left, right, count = margins(n, bank.length, mode)
    lead, tail = x.shape[:axis], x.shape[axis:][1:]
    along_memory = x.stride(axis) == 1
    x = x.reshape(lead.numel(), n, tail.numel())
    if along_memory and sum(map(len, bank.analysis)) > 4:  # extend each phase by itself: one copy less
        before, after = _beyond(x, left, right, mode)
        phases = [torch.cat((before[:, p::2], x[:, (p - left) % 2 :: 2], after[:, (p - left - n) % 2 :: 2]), 1)
                  for p in (0, 1)]  # fmt: skip
    else:
        x = _extend(x, left, right, mode)
        phases = [x[:, p::2] for p in (0, 1)]
        if x.shape[2] == 1 and sum(map(len, bank.analysis)) > 4:  # many taps along the last axis: deinterleave once
            phases = [phase.contiguous() for phase in phases]
    return _correlate(phases, bank.analysis, count).reshape(2, *lead, count, *tail)


def analyze_axis_adjoint(y: Tensor, axis: int, bank: FilterBank, mode: Mode, n: int) -> Tensor:
    """Apply the transpose of `analyze_axis`: `[2, ..., M, ...]` to `[..., N, ...]`."""
    left, right, count = margins(n, bank.length, mode)
    lead, tail = y.shape[1:axis], y.shape[axis:][1:]
    y = y.reshape(2, lead.numel(), count, tail.numel())
    x = _spread(y, bank.analysis, left + n + right)
    core = x.narrow(1, left, n)
    if mode != "zero" and left + right:
        before, after = edges(n, left, right, mode, x.device)
        core = core.contiguous()
        core.index_add_(1, before, x[:, :left]).index_add_(1, after, x[:, left + n :])
    return core.reshape(*lead, n, *tail)


def margins(n: int, length: int, mode: Mode) -> tuple[int, int, int]:
    """Return how far `n` samples are extended on the left and on the right, and the number of coefficients per band."""
    if mode == "periodization":
        left, count = length // 2 - 1, (n + 1) // 2
    else:
        left, count = length - 2, (n + length - 1) // 2
    if mode == "reflect" and n == 1:
        raise ValueError("mode 'reflect' needs at least 2 samples along every axis at every level; got 1")
    return left, 2 * (count - 1) + length - left - n, count


def _extend(x: Tensor, left: int, right: int, mode: Mode) -> Tensor:
    """Continue `[outer, N, inner]` beyond both ends of its middle axis, however far."""
    if left == right == 0:
        return x
    if mode == "zero":
        return F.pad(x, (0, 0, left, right))
    before, after = _beyond(x, left, right, mode)
    return torch.cat((before, x, after), 1)


def _beyond(x: Tensor, left: int, right: int, mode: Mode) -> tuple[Tensor, Tensor]:
    """Return the continuation of `[outer, N, inner]` before and after its middle axis."""
    if mode == "zero":
        return tuple(x.new_zeros(x.shape[0], k, x.shape[2]) for k in (left, right))  # type: ignore[return-value]
    before, after = edges(x.shape[1], left, right, mode, x.device)
    return x.index_select(1, before), x.index_select(1, after)


@constant_tensors(1024)
def edges(n: int, left: int, right: int, mode: Mode, device: torch.device) -> tuple[Tensor, Tensor]:
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


# --- the linear step and its transpose ------------------------------------------------------------------------


def _correlate(phases: Sequence[Tensor], taps: Taps, count: int) -> Tensor:
    """y[b, o, k, i] = Σ_j taps[b][j] x[o, 2k + j, i], `[2, outer, count, inner]`, of the even and odd samples of x."""
    x = phases[0]
    y = x.new_empty(2, x.shape[0], count, x.shape[2])
    for band, pairs in zip(y, taps, strict=True):
        _weighted_sum([(phases[j % 2][:, j // 2 : j // 2 + count], tap) for j, tap in pairs], out=band)
    return y


def _spread(y: Tensor, taps: Taps, size: int) -> Tensor:
    """x[o, n, i] = Σ_{b, k} taps[b][n - 2k] y[b, o, k, i], the transpose of `_correlate`: `[outer, size, inner]`."""
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
        del total  # frees its memory before the next one is allocated
    return x


def _weighted_sum(parts: Sequence[tuple[Tensor, float]], *, out: Tensor) -> None:
    """Write Σ weight · tensor to `out`, with one pass over memory less where the first weight is 1."""
    (first, weight), *rest = parts
    if weight == 1.0 and rest:
        (second, alpha), *rest = rest
        torch.add(first, second, alpha=alpha, out=out)
    else:
        torch.mul(first, weight, out=out)
    for tensor, alpha in rest:
        out.add_(tensor, alpha=alpha)
