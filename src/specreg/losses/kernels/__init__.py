"""Numba kernels of some losses for float32 on a CPU: the same values and gradients in the fewest passes over memory.

On a CPU a chain of torch's operations reads memory once per operation, and on small batches the call costs more than
the work. A kernel runs the whole chain while the values are in the cache. Kernels are optional: without Numba
(`pip install "specreg[cpu]"`), under SPECREG_KERNELS=0 or NUMBA_DISABLE_JIT=1, and without this folder, torch's
operations compute the same losses. The losses reach this folder through `specreg.losses.optional.find_kernel` alone.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import lru_cache
from importlib import import_module
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

Kernel = Callable[..., tuple[Tensor, Tensor | None]]
"""The value of each sample `[b]` and the gradient `[b, r, *space]`, or None where none is wanted."""

_PLAIN = (Tensor, Parameter)


def find(name: str, *tensors: Tensor) -> Kernel | None:
    """Return `evaluate` of the module `name` of this folder, "fourier" or "haar", or None.

    None where Numba is not installed or switched off, and for `tensors` other than plain float32 ones on the CPU.
    """
    for x in tensors:
        if type(x) not in _PLAIN or x.dtype != torch.float32 or not x.is_cpu or x.is_neg():
            return None
    return _load(name)


@lru_cache
def _load(name: str) -> Kernel | None:
    if os.environ.get("SPECREG_KERNELS") == "0":
        return None
    try:
        import numba

        config: Any = numba.config
        disabled = bool(config.DISABLE_JIT)
    except Exception:  # whatever is wrong with an optional package, torch's operations do the work
        return None
    if disabled:
        return None
    kernel: Kernel = import_module(f"{__name__}.{name}").evaluate
    return kernel
