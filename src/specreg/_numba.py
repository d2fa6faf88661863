"""Where Numba is at hand: whether its kernels take a tensor, how they are made, and threads to run them on.

On a CPU a chain of torch's calls reads memory once a call, and on small batches a call costs more than its work.
`losses.fourier_kernels` and `losses.haar_kernels` do the whole chain while the values are in the cache. They are
optional: without Numba (`pip install "specreg[cpu]"`), or with NUMBA_DISABLE_JIT=1, torch's calls do the same.
Kernels take NumPy views of tensors and release the GIL.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import pairwise
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn import Parameter

Kernel = TypeVar("Kernel", bound=Callable[..., Any])

WORK = 2**18
"""Values that are worth a thread of their own."""


def usable(*tensors: Tensor) -> bool:
    """Whether kernels take these: plain float32 tensors on the CPU, where Numba is installed."""
    plain = all(type(x) in (Tensor, Parameter) and x.dtype == torch.float32 and x.device.type == "cpu" for x in tensors)
    return plain and _numba()


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
    import numba

    compiler: Any = numba.njit  # typed in some of its versions
    options = {"nogil": True, "fastmath": {"reassoc"}, "error_model": "numpy"}
    kernel: Kernel
    try:
        kernel = compiler(cache=True, **options)(function)
    except RuntimeError:  # neither beside the kernel's file nor in the user's cache can anything be written
        kernel = compiler(**options)(function)
    return kernel


def on_threads(kernel: Callable[..., None], units: int, values: int, *args: Any) -> None:
    """`kernel(*args, start, stop)` for all units of work from 0 to `units`, on as many threads as torch would use."""
    threads = max(1, min(torch.get_num_threads(), values // WORK, units))
    edges = [units * i // threads for i in range(threads + 1)]
    others = []
    for a, b in pairwise(edges[1:]):
        try:
            others.append(_pool(os.getpid()).submit(kernel, *args, a, b))
        except RuntimeError:  # the interpreter is shutting down, and a thread is still training
            kernel(*args, a, b)
    kernel(*args, *edges[:2])
    for other in others:
        other.result()


@lru_cache(1)
def _pool(process: int) -> ThreadPoolExecutor:
    """Threads of this process: a forked one has none of its parent's."""
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="specreg")
