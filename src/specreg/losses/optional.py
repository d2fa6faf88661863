"""The one function through which the losses reach the optional kernels in `specreg.losses.kernels`."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Literal

from torch import Tensor

Kernel = Callable[..., tuple[Tensor, Tensor | None]]


def find_kernel(name: Literal["fourier", "haar"], *tensors: Tensor) -> Kernel | None:
    """Return the kernel of a loss for these tensors, or None where torch's operations have to compute it."""
    return _find()(name, *tensors)


@lru_cache(1)
def _find() -> Callable[..., Kernel | None]:
    try:
        from specreg.losses.kernels import find
    except ImportError:  # the folder was left out
        return lambda name, *tensors: None
    return find
