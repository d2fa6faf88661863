"""Where the time of `amplitude` goes on a CPU, beside what cannot be had for less.

    python -m benchmarks.parts [--shape 16,3,32,32] [--threads 1] [--seconds 10] [--compile-time]

All parts take turns in one process; a figure is the median over rounds. Needs Numba, whose kernels are among the parts.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

import specreg
from benchmarks.measure import interleaved_seconds
from specreg.losses.fourier_l1 import PHASE_GRADIENT_LIMIT, least_amplitude
from specreg.losses.kernels import fourier

FIRST_CALL = """
import time, torch, specreg
loss = specreg.losses.build({name!r})
began = time.perf_counter()
for shape in ((2, 1, 8, 8), (16, 3, 64, 64)):
    x0 = torch.randn(shape)
    loss((x0 + 1).requires_grad_(), x0)
print(time.perf_counter() - began)
"""


class _Nothing(torch.autograd.Function):
    """An autograd.Function with what a loss has: two tensors in, a value a sample out, a gradient saved."""

    @staticmethod
    def forward(ctx: Any, x0_hat: Tensor, x0: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
        ctx.save_for_backward(gradient)
        return value.detach()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return ctx.saved_tensors[0], None, None, None


def parts(shape: tuple[int, ...]) -> dict[str, Callable[[], object]]:
    """What is timed, by name, for images of `shape`."""
    generator = torch.Generator().manual_seed(0)
    x0 = torch.randn(shape, generator=generator)
    x0_hat = (x0 + 0.3 * torch.randn(shape, generator=generator)).requires_grad_()
    fixed, value, gradient = x0_hat.detach(), torch.randn(shape[0]), torch.empty_like(x0)
    leaf, spectrum = value.clone().requires_grad_(), torch.fft.rfft2(x0)
    loss = specreg.losses.build("amplitude")

    def step(what: Callable[[], Tensor]) -> Callable[[], None]:
        def run() -> None:
            x0_hat.grad = leaf.grad = None
            what().mean().backward()

        return run

    def transforms() -> None:
        for x in (x0, fixed, gradient):
            torch.fft.rfft2(x)

    def evaluate() -> object:
        return fourier.evaluate(
            fixed,
            x0,
            None,
            coupling=None,
            wants_gradient=True,
            scale=1.0,
            least_amplitude=least_amplitude(torch.float32),
            phase_gradient_limit=PHASE_GRADIENT_LIMIT,
        )

    def kernels() -> None:
        real = fourier._TRANSFORMS[2]
        fourier._TRANSFORMS[2] = lambda x: spectrum.clone()
        try:
            evaluate()
        finally:
            fourier._TRANSFORMS[2] = real

    def copies() -> None:
        for _ in range(3):
            spectrum.clone()

    return {
        "amplitude, a whole step": step(lambda: loss(x0_hat, x0)),
        "mean() of a leaf and its backward pass": step(lambda: leaf),
        "the same of an autograd.Function of nothing": step(lambda: _Nothing.apply(x0_hat, x0, value, gradient)),
        "the gradient times the values'": lambda: (value * 2.0).view(-1, 1, 1, 1) * gradient,
        "value and gradient, without autograd": evaluate,
        "three rfft2": transforms,
        "one rfft2": lambda: torch.fft.rfft2(x0),
        "one irfft2": lambda: torch.fft.irfft2(spectrum, s=shape[-2:], norm="forward"),
        "kernels, and copies for transforms": kernels,
        "three such copies": copies,
    }


def first_call(name: str) -> tuple[float, float]:
    """Seconds of a loss's first calls, small and large, in a fresh process: with nothing compiled, and compiled."""
    with tempfile.TemporaryDirectory() as cache:
        command = [sys.executable, "-c", FIRST_CALL.format(name=name)]
        env = {**os.environ, "NUMBA_CACHE_DIR": cache}
        runs = [subprocess.run(command, env=env, capture_output=True, text=True, check=True) for _ in range(2)]
    cold, warm = (float(run.stdout) for run in runs)
    return cold, warm


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.parts", description=__doc__.splitlines()[0])
    parser.add_argument("--shape", default="16,3,32,32", help="of the batch: B,C,H,W")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of torch and of kernels")
    parser.add_argument("--compile-time", action="store_true", help="time first calls instead")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    console = Console()
    if options.compile_time:
        table = Table("loss", "nothing compiled, s", "compiled, s", title="First calls", title_justify="left", box=None)
        for name in ("amplitude", "amplitude_phase", "haar"):
            table.add_row(name, *(f"{seconds:.1f}" for seconds in first_call(name)))
        console.print(table)
        return
    shape = tuple(int(n) for n in options.shape.split(","))
    seconds = interleaved_seconds(parts(shape), device="cpu", seconds=options.seconds, rounds=(7, 1000))
    title = f"{list(shape)}, CPU, {torch.get_num_threads()} threads, torch {torch.__version__}"
    table = Table("part", "µs", title=title, title_justify="left", box=None)
    for name, values in seconds.items():
        table.add_row(name, f"{1e6 * float(np.median(values)):.0f}")
    console.print(table)


if __name__ == "__main__":
    main()
