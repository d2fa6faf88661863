"""The n-dimensional discrete wavelet transform, equal to PyWavelets' coefficient by coefficient.

`wavelet_steps` holds the filters and one step along one axis, `wavelet_stages` the transform that the losses use.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from itertools import product
from typing import NamedTuple

import pywt
from torch import Tensor

from specreg import _checks
from specreg._compile import traced_as_constant
from specreg.transforms.wavelet_steps import MODES as MODES
from specreg.transforms.wavelet_steps import Mode as Mode
from specreg.transforms.wavelet_steps import analyze_axis, filter_bank, margins


class WaveletCoefficients(NamedTuple):
    """Wavelet coefficients of a signal, finest level first.

    approx:  `[B, C, *coarsest]`, the low-pass band of the coarsest level.
    details: one dict per level, `details[0]` the finest. Keys as in PyWavelets, one letter per axis, `a` low-pass
             and `d` high-pass: `d` in 1-D; `ad`, `da`, `dd` in 2-D; seven in 3-D.
    shape:   sizes of the transformed axes of the signal.
    """

    approx: Tensor
    details: tuple[dict[str, Tensor], ...]
    shape: tuple[int, ...]


@traced_as_constant
def max_levels(shape: Sequence[int], wavelet: str) -> int:
    """Return the deepest level with coefficients free of boundary effects along every axis, or 1 if none.

    `shape` holds the sizes of the transformed axes. Equals `max(1, pywt.dwtn_max_level(shape, wavelet))`.
    """
    length = filter_bank(wavelet).length
    return max(1, min(_deepest(size, length) for size in shape))


@lru_cache(maxsize=1024)
def _deepest(size: int, length: int) -> int:
    return int(pywt.dwt_max_level(size, length))


def wavedecn(
    x: Tensor,
    wavelet: str,
    *,
    levels: int | None = None,
    mode: Mode = "periodization",
    ndim: int | None = None,
) -> WaveletCoefficients:
    """Return the wavelet coefficients of `x` over its trailing `ndim` axes, detached from autograd.

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
    x = x.detach().to(_checks.compute_dtype("x", x))
    _checks.choice("mode", mode, MODES)
    bank = filter_bank(wavelet)
    shape = tuple(x.shape[-ndim:])
    levels = max_levels(shape, wavelet) if levels is None else levels
    if levels < 1:
        raise ValueError(f"levels must be at least 1; got {levels}")

    details = []
    for _ in range(levels):
        for axis in range(-1, -ndim - 1, -1):  # each puts its band axis in front: the first one ends up first
            x = analyze_axis(x, axis, bank, mode)
        x, *high = x.flatten(0, ndim - 1).unbind()
        details.append(dict(zip(band_keys(ndim), high, strict=True)))
    return WaveletCoefficients(x, tuple(details), shape)


@traced_as_constant
def band_keys(ndim: int) -> tuple[str, ...]:
    """Return the names of the detail bands in the order of their index: 'd', or 'ad', 'da', 'dd', …"""
    return tuple("".join(letters) for letters in product("ad", repeat=ndim))[1:]


@lru_cache(maxsize=256)
def coefficient_count(shape: tuple[int, ...], wavelet: str, *, levels: int, mode: Mode, ndim: int) -> int:
    """Return the number of coefficients that `wavedecn` returns for one sample of `shape`, `(C, *space)`."""
    length = filter_bank(wavelet).length
    lead, space = math.prod(shape[:-ndim]), shape[-ndim:]
    count = 0
    for _ in range(levels):
        space = tuple(margins(n, length, mode)[2] for n in space)
        count += (2**ndim - 1) * math.prod(space)
    return lead * (count + math.prod(space))
