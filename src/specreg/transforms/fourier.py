"""Half spectra of real n-dimensional signals, and the weights that turn sums over them into full-spectrum sums.

F is the n-dimensional DFT over the trailing axes. Signals are real, so F[x](−k) is the conjugate of F[x](k) and half of
the last axis suffices; `bin_weights` counts the bins of the full spectrum that each bin of the half stands for.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Norm = Literal["ortho", "backward", "forward"]
NORMS = ("ortho", "backward", "forward")


def half_spectrum(x: Tensor, *, ndim: int, norm: Norm = "ortho") -> Tensor:
    """Return the DFT of real `x` `[..., *space]` over its last `ndim` axes: complex `[..., *space[:-1], N // 2 + 1]`.

    `norm` is torch.fft's: "ortho" keeps coefficients on the scale of the data at every size.
    """
    spectrum: Tensor = torch.fft.rfftn(x, dim=tuple(range(-ndim, 0)), norm=norm)
    return spectrum


def bin_weights(size: int, *, dtype: torch.dtype, device: torch.device | None = None) -> Tensor:
    """Return how many full-spectrum bins each half-spectrum bin of an axis of `size` stands for: `[size // 2 + 1]`.

    1 for the zero frequency and, at even sizes, for Nyquist; 2 for every bin between.
    """
    weights = torch.full((size // 2 + 1,), 2.0, dtype=dtype, device=device)
    weights[:1].fill_(1.0)  # setting an item would send the number to a GPU
    if size % 2 == 0:
        weights[-1:].fill_(1.0)
    return weights
