"""Interleaved timing and peak memory of one step, on a CPU or a GPU."""

from __future__ import annotations

import math
import os
import random
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def settle_allocator() -> None:
    """Allocate and free a block as large as activations are: the C allocator then keeps pages, as it does in training.

    glibc returns memory to the system, and pays a page fault for every 4 kB to get it back, until it has seen blocks
    of such a size; in a fresh process small tensors would be timed with faults that no training run has.
    """
    torch.ones(8_000_000)


def interleaved_seconds(
    steps: Mapping[str, Callable[[], Any]], *, device: str, seconds: float = 4.0, rounds: tuple[int, int] = (7, 101)
) -> dict[str, np.ndarray]:
    """Seconds of each step in each round, `{name: [rounds]}`; every round runs all of them, so load is shared.

    Short steps are repeated within a round. About `seconds` in all, within the bounds of `rounds`.
    """
    settle_allocator()
    repeats = {}
    for name, step in steps.items():
        for _ in range(3):
            step()
        repeats[name] = max(1, math.ceil(2e-3 / _once(step, 1, device)))
    began = time.perf_counter()
    found: dict[str, list[float]] = {name: [] for name in steps}
    shuffle = random.Random(0)
    for n in range(rounds[1]):
        for name in shuffle.sample(list(steps), len(steps)):  # what runs before a step leaves its mark on it
            found[name].append(_once(steps[name], repeats[name], device))
        if n + 1 >= rounds[0] and time.perf_counter() - began > seconds:
            break
    return {name: np.array(values) for name, values in found.items()}


def _once(step: Callable[[], Any], repeats: int, device: str) -> float:
    """Mean seconds of `repeats` calls; on a GPU from an empty queue to an empty queue."""
    cuda = device == "cuda"
    if cuda:
        torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(repeats):
        step()
    if cuda:
        torch.cuda.synchronize()
    return (time.perf_counter() - began) / repeats


def median_ratio(ours: np.ndarray, theirs: np.ndarray) -> tuple[float, float, float]:
    """Median over rounds of ours / theirs, and the 95% interval of that median, from order statistics."""
    ratios = np.sort(np.divide(ours, theirs))
    n = len(ratios)
    half = 1.96 * math.sqrt(n) / 2  # the binomial's normal limit
    low, high = max(0, math.floor(n / 2 - half)), min(n - 1, math.ceil(n / 2 + half))
    return float(np.median(ratios)), float(ratios[low]), float(ratios[high])


def peak_bytes(step: Callable[[], Any], *, device: str) -> int:
    """Most bytes that torch held during one call beyond what it held before (libraries' own workspace left out).

    The most of three calls: on a CPU the profiler sometimes loses what it was told.
    """
    return max(_peak_bytes(step, device) for _ in range(3))


def _peak_bytes(step: Callable[[], Any], device: str) -> int:
    step()
    if device == "cuda":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        step()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with (
        _quiet(),
        torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile,
    ):
        step()
    held = peak = 0
    events: Any = profile.profiler.kineto_results.events()  # type: ignore[union-attr]
    for event in sorted((e for e in events if e.name() == "[memory]"), key=lambda e: e.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the profiler's own remarks, which do not go through Python, off the terminal."""
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def kernel_launches(step: Callable[[], Any], *, device: str) -> int | None:
    """Kernels that one call starts on the GPU; None on a CPU."""
    if device != "cuda":
        return None
    step()
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        step()
        torch.cuda.synchronize()
    return sum(event.device_type == torch.autograd.DeviceType.CUDA for event in profile.events() or ())
