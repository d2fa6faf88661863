"""Windows and trends: what is done to data that are not periodic before a Fourier transform."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Literal, get_args

import torch
from torch import Tensor

Window = Literal["hann", "tukey", "none"]
WINDOWS = get_args(Window)
Detrend = Literal["mean", "plane", "none"]
DETRENDS = get_args(Detrend)


def window_of(size: int, window: Window) -> Tensor:
    """Return the window of an axis, `[size]` float64, of mean square 1.

    `hann` is sin² from end to end; `tukey` is flat in the middle half and falls as sin² in the outer quarters.
    """
    place = (torch.arange(size, dtype=torch.float64) + 0.5) / size
    if window == "none":
        values = torch.ones_like(place)
    elif window == "hann":
        values = (math.pi * place).sin().square()
    else:
        values = (2 * math.pi * torch.minimum(place, 1 - place).clamp_max(0.25)).sin().square()
    return values / values.square().mean().sqrt()


@lru_cache(maxsize=16)
def window_over(shape: tuple[int, ...], window: Window) -> Tensor:
    """Return the product of the windows of all axes, `[*shape]` float64."""
    axes = torch.meshgrid(*(window_of(size, window) for size in shape), indexing="ij")
    product: Tensor = torch.stack(axes).prod(0)
    return product


@lru_cache(maxsize=16)
def trends(shape: tuple[int, ...], detrend: Detrend) -> Tensor:
    """Return an orthonormal basis `[q, numel]` of the constants, and for `plane` of the linear functions too."""
    rows = [torch.ones(shape, dtype=torch.float64)]
    if detrend == "plane":
        centred = [torch.arange(n, dtype=torch.float64) - (n - 1) / 2 for n in shape]
        rows += [row for row in torch.meshgrid(*centred, indexing="ij") if row.any()]
    basis = torch.stack(rows).flatten(1)
    norms: Tensor = basis.norm(dim=1, keepdim=True)
    return basis / norms
