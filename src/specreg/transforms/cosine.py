"""The discrete cosine transform (type II, orthonormal) by FFT: the spectrum of data mirrored at their ends.

Along an axis of N samples coefficient k has the frequency k / 2N cycles per sample. Equal to `scipy.fft.dctn` with
`norm="ortho"`; differentiable by autograd.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from specreg._compile import constant_tensors


def dctn(x: Tensor, *, ndim: int) -> Tensor:
    """Return the orthonormal DCT-II of real `x` `[..., *space]` over its last `ndim` axes, of the same shape."""
    for axis in range(-ndim, 0):
        x = _along_last(x.transpose(axis, -1)).transpose(axis, -1)
    return x


def _along_last(x: Tensor) -> Tensor:
    """Return the DCT along the last axis by one complex FFT of N values (Makhoul 1980, doi 10.1109/TASSP.1980.1163351).

    The FFT is of the even samples followed by the odd ones backwards.
    """
    n = x.shape[-1]
    order, cosine, sine = _turns(n, x.dtype, x.device)
    spectrum = torch.view_as_real(torch.fft.fft(x.index_select(-1, order)))
    return spectrum[..., 0] * cosine + spectrum[..., 1] * sine


@constant_tensors(64)
def _turns(n: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Return the order of the samples, and cosine and sine of the quarter-sample shift times the normalization."""
    index = torch.arange(n)
    order = torch.cat((index[::2], index[1::2].flip(0)))
    angle = index.double() * (math.pi / (2 * n))
    scale = torch.full((n,), math.sqrt(2 / n), dtype=torch.float64)
    scale[:1] = math.sqrt(1 / n)
    cosine, sine = ((f(angle) * scale).to(dtype).to(device) for f in (torch.cos, torch.sin))
    return order.to(device), cosine, sine


def cosine_grid(shape: tuple[int, ...]) -> Tensor:
    """Return |f| in cycles per sample of each coefficient: float64 `[*shape]`, CPU."""
    axes = [torch.arange(n, dtype=torch.float64) / (2 * n) for n in shape]
    return torch.stack(torch.meshgrid(*axes, indexing="ij")).square().sum(0).sqrt()
