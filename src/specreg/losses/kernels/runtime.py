"""Compiling kernels, and running them on threads. Kernels take NumPy views of tensors and release the GIL."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeVar

import torch

Kernel = TypeVar("Kernel", bound=Callable[..., Any])

WORK = 2**13
"""Number of values from which a further thread pays."""

_HOME = os.getpid()


def jit(function: Kernel) -> Kernel:
    """Return `function` compiled on its first call, with the machine code cached on disk where a folder is writable.

    Numba's cache depends on the kernel's file alone, so a kernel must not call kernels of other files, and whoever
    changes the options here has to delete the cache. The only relaxed rule of arithmetic is the order of sums: with
    fused multiply-adds |F| of equal spectra could differ, and the loss of equal samples would not be 0.
    """
    return _compile(function, parallel=False)


def parallel(function: Kernel) -> Kernel:
    """Return `function`, which divides a kernel's work among threads by `numba.prange`, compiled like `jit`.

    It must contain one such loop: Numba may fuse two, although the second depends on what the first wrote.
    """
    return _compile(function, parallel=True)


def _compile(function: Kernel, *, parallel: bool) -> Kernel:
    import numba

    _announce_compilation()
    compiler: Any = numba.njit  # typed in some of its versions
    options = {"nogil": True, "fastmath": {"reassoc"}, "error_model": "numpy", "parallel": parallel}
    kernel: Kernel
    try:
        kernel = compiler(cache=True, **options)(function)
    except RuntimeError:  # neither the folder of the kernel's file nor the user's cache is writable
        kernel = compiler(**options)(function)
    return kernel


@lru_cache(1)
def _announce_compilation() -> None:
    """Print one line on stderr when the first kernel is compiled; none where all machine code comes from the cache."""
    try:
        from numba.core import event
    except ImportError:  # not a documented part of Numba
        return

    class Announcement(event.Listener):
        silent = False

        def on_start(self, event: Any) -> None:
            function = event.data["dispatcher"].py_func
            if not self.silent and function.__module__.startswith(__package__):
                self.silent = True
                print(
                    "specreg: Numba compiles the losses' CPU kernels, about 10 s per loss, once per machine "
                    "(set SPECREG_KERNELS=0 to use torch's operations instead)",
                    file=sys.stderr,
                )

        def on_end(self, event: Any) -> None:
            pass

    register: Any = event.register  # typed in some of its versions
    register("numba:compile", Announcement())


def run(
    kernel: Callable[..., None],
    on_threads: Callable[..., None],
    work: Any,
    steps: tuple[int, int],
    units: int,
    values: int,
) -> None:
    """Run steps `first` to `last` − 1 of a kernel, on several threads if there are enough `values`.

    Args:
        kernel: `kernel(work, step, share, shares)` computes one share of a step.
        on_threads: `on_threads(work, first, last, shares)` computes all shares of each step, one step after another.
        work: arguments of the kernel.
        steps: first and last.
        units: largest possible number of shares.
        values: number of values that the kernel reads.

    With OpenMP on Linux Numba runs on torch's own threads. Other threads would wait for cores on which torch's spin.
    """
    team = torch.get_num_threads()
    shares = min(team, values // WORK, units)
    most = _threads(os.getpid()) if shares > 1 else 0
    if not most:
        for step in range(*steps):
            kernel(work, step, 0, 1)
    elif team >= most:
        on_threads(work, *steps, shares)
    else:
        import numba

        package: Any = numba  # typed in some of its versions
        before = package.get_num_threads()
        package.set_num_threads(team)  # like torch: a team of another size would stop and start threads
        try:
            on_threads(work, *steps, shares)
        finally:
            package.set_num_threads(before)


@lru_cache(4)
def _threads(process: int) -> int:
    """Start Numba's threads and return their number: 0 in a forked process and where callers cannot share them."""
    import numba

    package: Any = numba
    if process != _HOME:
        return 0
    wanted = torch.get_num_threads()
    try:
        package.get_num_threads()
        layer: str = package.threading_layer()
    except Exception:  # there is no threading layer, or not the requested one
        return 0
    if torch.get_num_threads() != wanted:  # Numba set the number of its OpenMP threads, which are torch's too
        torch.set_num_threads(wanted)
    most: int = package.config.NUMBA_NUM_THREADS
    return most if layer in ("omp", "tbb") else 0
