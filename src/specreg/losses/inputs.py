"""Shared by all losses: checks and conversion of x0_hat and x0, evaluation of frequency weights, names of bands."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from specreg import _checks

Reduction = Literal["mean", "sum"]
REDUCTIONS = ("mean", "sum")
FrequencyWeight = Callable[[Tensor], Tensor]
"""Weight of each sample at each frequency: `[K]` in cycles per sample -> `[B, K]`, or `[1, K]` for all samples."""


def pair(x0_hat: Tensor, x0: Tensor, ndim: int | None, layout: str | None = None) -> tuple[Tensor, Tensor, int]:
    """Return x0_hat and x0 as `[B, C, *space]` in the dtype to compute in, and the number of axes to transform.

    x0 is detached. See `specreg._checks.image_like` for the shapes.

    Raises:
        TypeError: for tensors that are not real floats.
        ValueError: for shapes or devices that differ, and for empty tensors.
    """
    x0, ndim = _checks.image_like("x0", x0, ndim, layout)
    x0_hat, _ = _checks.image_like("x0_hat", x0_hat, ndim, layout)
    if x0_hat.shape != x0.shape:
        raise ValueError(f"x0_hat and x0 must have the same shape; got {list(x0_hat.shape)} and {list(x0.shape)}")
    if x0_hat.device != x0.device:
        raise ValueError(f"x0_hat and x0 must be on one device; got {x0_hat.device} and {x0.device}")
    dtypes = (_checks.compute_dtype("x0_hat", x0_hat), _checks.compute_dtype("x0", x0))
    dtype = torch.float64 if torch.float64 in dtypes else torch.float32
    x0_hat, x0 = (x if x.dtype == dtype else x.to(dtype) for x in (x0_hat, x0.detach()))
    return x0_hat, x0, ndim


def weights_at(frequency_weight: FrequencyWeight, frequency: Tensor, like: Tensor) -> Tensor:
    """Return the checked weights at `frequency` `[K]`: `[B or 1, K]`, detached, in the dtype of `like` `[B, …]`.

    Raises:
        ValueError: for weights of another shape.
    """
    weights = frequency_weight(frequency.to(like, copy=True)).detach().to(like)
    if weights.ndim != 2 or weights.shape[0] not in (1, len(like)) or weights.shape[1] != len(frequency):
        raise ValueError(
            f"frequency_weight must return [{len(like)} or 1, {len(frequency)}] for {len(frequency)} frequencies and "
            f"a batch of {len(like)}; got {list(weights.shape)}"
        )
    return weights


def frequency_band_names(bands: int) -> list[str]:
    """Return the names of `bands` equal-width bands of |frequency| up to Nyquist: their edges in cycles per sample."""
    edges = [f"{0.5 * k / bands:.4g}" for k in range(bands + 1)]
    return [f"{low}-{high}" for low, high in pairwise(edges)]


def refuse_non_finite(x0: Tensor) -> None:
    """Raise a ValueError that names the samples of `x0` `[B, …]` with NaN or infinity, if there are any."""
    bad = (~x0.isfinite()).flatten(1).any(1).nonzero().flatten().tolist()
    if bad:
        raise ValueError(f"x0 must be finite; it holds NaN or infinity in sample(s) {bad[:8]} of the batch")
