"""Spectra of single samples: mean or plane removed, windowed, transformed, normalized so that white noise is flat.

A window lowers what leaks from strong low frequencies into weak high ones where data are not periodic, which pictures
and clips are not. What is removed from the data beforehand (their mean, or a plane) lacks in the lowest coefficients of
white noise too; `response` is that expectation, and coefficients are divided by it.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from specreg import _checks
from specreg.instruments.grid import TRANSFORMS, Grid, Transform
from specreg.transforms import fourier
from specreg.transforms.windows import DETRENDS, WINDOWS, trends, window_over
from specreg.transforms.windows import Detrend as Detrend
from specreg.transforms.windows import Window as Window


def check(window: str, detrend: str, transform: str) -> None:
    """Raise ValueError for an unknown choice, or for a window with the DCT, whose mirrored data need none."""
    _checks.choice("window", window, WINDOWS)
    _checks.choice("detrend", detrend, DETRENDS)
    _checks.choice("transform", transform, TRANSFORMS)
    if transform == "dct" and window != "none":
        raise ValueError(f"the DCT mirrors the data at their ends and takes window='none'; got {window!r}")


def coefficients(x: Tensor, grid: Grid, window: Window, detrend: Detrend) -> Tensor:
    """Return orthonormal coefficients `[n, C, K]` of `x` `[n, C, *space]`: float64, complex for the DFT.

    That of the zero frequency is of the data as they are; the others are of the detrended and windowed data, divided
    by the square root of `response`.
    """
    ndim = len(grid.shape)
    x = x.double()
    flat = x.flatten(2)
    zero = flat.mean(-1) * math.sqrt(flat.shape[-1])
    if detrend != "none":
        basis = trends(grid.shape, detrend)
        x = (flat - (flat @ basis.T) @ basis).view_as(x)
    if window != "none":
        x = x * window_over(grid.shape, window)
    found = _transform(x, ndim, grid.transform).flatten(2)
    if window != "none" or detrend == "plane":
        found = found * _correction(grid.shape, grid.transform, window, detrend)
    found[..., 0] = zero
    return found


def _transform(x: Tensor, ndim: int, transform: Transform) -> Tensor:
    if transform == "dft":
        return fourier.half_spectrum(x, ndim=ndim)
    from scipy.fft import dctn

    return torch.from_numpy(dctn(x.numpy(), axes=tuple(range(-ndim, 0)), norm="ortho"))


def response(grid: Grid, window: Window, detrend: Detrend) -> Tensor:
    """Return the expected power `[K]` of each coefficient of white noise of unit variance, before the division.

    With a window w and an orthonormal basis q of what is removed, E|F_k|² = mean w² − Σ_q |F[w·q]_k|².
    """
    lost = torch.zeros(len(grid.number), dtype=torch.float64)
    if detrend != "none":
        windowed = trends(grid.shape, detrend).view(-1, *grid.shape) * window_over(grid.shape, window)
        spectra = _transform(windowed, len(grid.shape), grid.transform)
        lost = spectra.abs().square().sum(0).flatten()
    return 1 - lost


@lru_cache(maxsize=16)
def _correction(shape: tuple[int, ...], transform: Transform, window: Window, detrend: Detrend) -> Tensor:
    from specreg.instruments.grid import grid

    expected = response(grid(shape, None, transform), window, detrend)
    return torch.where(expected > 1e-6, expected.clamp_min(1e-6).rsqrt(), torch.zeros_like(expected))
