"""Where Numba is at hand: whether its kernels take a tensor, how they are made, and on how many threads they run.

On a CPU a chain of torch's calls reads memory once a call, and on small batches a call costs more than its work.
`losses.fourier_kernels`, `losses.haar_kernels` and `transforms.hartley` do the whole chain while the values are in the
cache. They are optional: without Numba (`pip install "specreg[cpu]"`), or with NUMBA_DISABLE_JIT=1, torch's calls do
the same. Kernels take NumPy views of tensors and release the GIL.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn import Parameter

Kernel = TypeVar("Kernel", bound=Callable[..., Any])

WORK = 2**13
"""Values that are worth a thread of their own."""

_HOME = os.getpid()
_PLAIN = (Tensor, Parameter)


def usable(*tensors: Tensor) -> bool:
    """Whether kernels take these: plain float32 tensors on the CPU, where Numba is installed."""
    for x in tensors:
        if type(x) not in _PLAIN or x.dtype != torch.float32 or x.device.type != "cpu":
            return False
    return _numba()


@lru_cache(1)
def _numba() -> bool:
    try:
        import numba

        config: Any = numba.config
        return not config.DISABLE_JIT
    except Exception:  # whatever is wrong with an optional package, torch's calls are there
        return False


def jit(function: Kernel) -> Kernel:
    """Compile a kernel when it is first called, and keep the machine code on disk where there is a place for it.

    Whether what is kept is still good is told by the kernel's file alone: whoever changes the options here has to throw
    it away. Only sums may be reordered: with fused multiply-adds |F| of equal spectra could differ, and a loss of equal
    samples would not be 0.
    """
    return _compile(function, parallel=False)


def parallel(function: Kernel) -> Kernel:
    """The same for a function that runs a kernel by `numba.prange`, each of its turns on a thread."""
    return _compile(function, parallel=True)


def _compile(function: Kernel, *, parallel: bool) -> Kernel:
    import numba

    compiler: Any = numba.njit  # typed in some of its versions
    options = {"nogil": True, "fastmath": {"reassoc"}, "error_model": "numpy", "parallel": parallel}
    kernel: Kernel
    try:
        kernel = compiler(cache=True, **options)(function)
    except RuntimeError:  # neither beside the kernel's file nor in the user's cache can anything be written
        kernel = compiler(**options)(function)
    return kernel


def threads(units: int, values: int) -> int:
    """How many threads are to share `units` of work on `values` values: at most as many as torch would use.

    One for the first kernel of a process, which starts Numba's threads; for a forked process, which has none of its
    parent's; and where Numba's threading layer takes one caller at a time, or is none that is known to take more.
    With OpenMP on Linux the threads are torch's own, which otherwise would spin on the cores that others need.
    """
    most = min(torch.get_num_threads(), values // WORK, units)
    try:
        return most if most > 1 and os.getpid() == _HOME and _concurrent() else 1
    except ValueError:  # there is no layer before the first kernel
        return 1


@lru_cache(1)
def _concurrent() -> bool:
    import numba

    package: Any = numba
    layer: str = package.threading_layer()
    return layer in ("omp", "tbb")
