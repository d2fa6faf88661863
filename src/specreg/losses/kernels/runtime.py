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
"""Values that are worth a thread of their own."""

_HOME = os.getpid()


def jit(function: Kernel) -> Kernel:
    """Compile a kernel when it is first called, and keep the machine code on disk where there is a place for it.

    Whether what is kept is still good is told by the kernel's file alone: whoever changes the options here has to throw
    it away, and a kernel calls none of another file. Only sums may be reordered: with fused multiply-adds |F| of equal
    spectra could differ, and a loss of equal samples would not be 0.
    """
    return _compile(function, parallel=False)


def parallel(function: Kernel) -> Kernel:
    """The same for a function that gives shares of a kernel's work to threads by `numba.prange`.

    One such loop a function: Numba may make one of two, and knows nothing of what the first leaves in memory.
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
    """Do steps `first` to before `last` of some work, on threads if `values` are worth it.

    Args:
        kernel: `kernel(work, step, share, shares)` does one share of a step.
        on_threads: `on_threads(work, first, last, shares)` does all shares of each step, step by step.
        work: what kernels take.
        steps: first and last.
        units: most shares that there can be.
        values: how much work it is.

    With OpenMP on Linux Numba's threads are torch's own; others would wait for cores on which torch's still spin.
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
        package.set_num_threads(team)  # as many as torch has: a team that changes in size ends and starts threads
        try:
            on_threads(work, *steps, shares)
        finally:
            package.set_num_threads(before)


@lru_cache(4)
def _threads(process: int) -> int:
    """Start Numba's threads. How many there are, 0 where several callers may not use them or the process was forked."""
    import numba

    package: Any = numba
    if process != _HOME:
        return 0
    wanted = torch.get_num_threads()
    try:
        package.get_num_threads()
        layer: str = package.threading_layer()
    except Exception:  # no layer, or not the one that was asked for
        return 0
    if torch.get_num_threads() != wanted:  # OpenMP was told Numba's number, and it is torch's OpenMP too
        torch.set_num_threads(wanted)
    most: int = package.config.NUMBA_NUM_THREADS
    return most if layer in ("omp", "tbb") else 0
