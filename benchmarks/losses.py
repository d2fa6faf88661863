"""Every loss against every peer: time and memory of value and gradient, in one table.

    python -m benchmarks [--cases images,audio] [--device cuda --dtype bfloat16 --compile] [--json FILE] [--scaling]

All contenders of a case take turns in one process, so a noisy machine is noisy for all of them; a figure is the median
over rounds of the ratio within a round. Peers come with `pip install "specreg[bench]"`; what fails to import or does
not take the data is listed; what takes no half precision gets float32 copies, which it has to make. Memory is in
inputs of float32. On a GPU the table adds kernel launches and the share of the bandwidth of a copy.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.contenders import CASES, CONTENDERS, FLOORS, Case
from benchmarks.measure import interleaved_seconds, kernel_launches, median_ratio, peak_bytes
from specreg.losses.optional import find_kernel

REFERENCES = ("FFT floor", "MSE", "amplitude, plain", "amplitude_phase, plain")


class Goal(NamedTuple):
    """`ours` takes at most `limit` times as long as `theirs`, in cases that `where` is true of."""

    ours: str
    theirs: str
    limit: float
    where: Callable[[Case], bool] = lambda case: True


def _large(case: Case) -> bool:
    return case.ndim == 2 and case.shape[-1] >= 512


def _small(case: Case) -> bool:
    return not _large(case)


GOALS = [
    Goal("amplitude", "amplitude, plain", 1 / 2),
    Goal("amplitude", "focal-frequency-loss", 1 / 3.5),
    Goal("amplitude", "FFT floor", 1.5, _large),
    Goal("amplitude", "FFT floor", 2.5, _small),
    Goal("amplitude_phase", "amplitude_phase, plain", 1 / 2.5),
    Goal("amplitude_phase", "FFT floor", 2.0, _large),
    Goal("haar", "haar, ptwt", 1 / 2.5),
    Goal("haar", "haar, pytorch_wavelets", 1 / 6),
    Goal("haar", "MSE", 3.0, _large),
    Goal("bior1.3", "bior1.3, ptwt", 1 / 2),
]
GPU_GOALS = [Goal(name, "FFT floor", 1.5) for name in ("amplitude", "amplitude_phase")]
MEMORY_GOALS = {"amplitude": 3.0, "haar": 3.0, "bior1.3": 3.0, "amplitude_phase": 4.0}


class Steps(NamedTuple):
    """What can be run for a case, and why the rest cannot."""

    run: dict[str, Callable[[], None]]
    failed: dict[str, str]
    size: int  # bytes of one input in float32, in which losses work


def prepare(case: Case, *, device: str, dtype: torch.dtype, compiled: bool, only: set[str] | None = None) -> Steps:
    """Make every contender's step for a case, each run once."""
    torch.compiler.reset()  # or Dynamo would give up on the contenders of later cases
    generator = torch.Generator().manual_seed(0)
    x0 = torch.randn(case.shape, generator=generator)
    x0_hat = (x0 + 0.3 * torch.randn(case.shape, generator=generator)).to(device, dtype).requires_grad_()
    x0 = x0.to(device, dtype)
    steps: dict[str, Callable[[], None]] = {}
    failed = {}
    for name, make in CONTENDERS.items():
        if only and name not in only:
            continue
        try:
            step = make(case)
            step = torch.compile(step) if compiled and name not in FLOORS else step

            def run(step: Any = step) -> None:
                x0_hat.grad = None
                value = step(x0_hat, x0)
                if value is not None:
                    value.backward()

            run()
        except Exception as error:  # any peer may fail in its own way; the table says how
            failed[name] = f"{type(error).__name__}: {str(error).splitlines()[0][:90]}"
        else:
            steps[name] = run
    return Steps(steps, failed, 4 * x0.numel())


def measure_case(case: Case, options: argparse.Namespace) -> dict[str, Any]:
    """Everything the table shows of one case."""
    dtype = getattr(torch, options.dtype)
    steps = prepare(case, device=options.device, dtype=dtype, compiled=options.compile)
    seconds = interleaved_seconds(steps.run, seconds=options.seconds, device=options.device)
    rows = {}
    for name, step in steps.run.items():
        ratios = {other: median_ratio(seconds[name], seconds[other]) for other in seconds if other != name}
        rows[name] = {
            "ms": 1e3 * float(np.median(seconds[name])),
            "memory": peak_bytes(step, device=options.device) / steps.size,
            "launches": kernel_launches(step, device=options.device),
            # A loss has to read both inputs and write a gradient; "copy" reads two tensors and writes two.
            "bandwidth": (1 if name == "copy" else 0.75) * float(np.median(seconds["copy"] / seconds[name])),
            "ratios": ratios,
        }
    return {"name": case.name, "shape": case.shape, "rounds": len(next(iter(seconds.values()))), "rows": rows,
            "failed": steps.failed}  # fmt: skip


def goal_lines(case: Case, rows: dict[str, Any], options: argparse.Namespace) -> list[str]:
    """Each goal that concerns a case: reached, or not, and by what figure."""
    lines = []
    for goal in GPU_GOALS if options.device == "cuda" else GOALS:
        if goal.where(case) and goal.ours in rows and goal.theirs in rows:
            ratio = rows[goal.ours]["ratios"][goal.theirs][0]
            said = "reached" if ratio <= goal.limit else "MISSED"
            wanted, got = (f"×{x:.2f}" if x >= 1 else f"1/{1 / x:.1f}" for x in (goal.limit, ratio))
            lines.append(f"{said}  {goal.ours} against {goal.theirs}: {got} (goal {wanted})")
    for name, limit in MEMORY_GOALS.items():
        if name in rows and options.dtype == "float32":
            said = "reached" if round(rows[name]["memory"], 1) <= limit else "MISSED"
            lines.append(f"{said}  {name}: {rows[name]['memory']:.1f} × input in memory (goal {limit:.0f})")
    return lines


def show(console: Console, found: dict[str, Any]) -> None:
    """One case as a table."""
    rows = found["rows"]
    gpu = any(row["launches"] for row in rows.values())
    references = [name for name in REFERENCES if name in rows]
    title = f"{found['name']}  {list(found['shape'])}, {found['rounds']} rounds"
    columns = ["", "ms", "memory, × input", *(f"/ {name}" for name in references)]
    columns += ["of copy bandwidth", "launches"] if gpu else []
    table = Table(*columns, title=title, title_justify="left", box=None)
    for name, row in rows.items():
        against = [f"{row['ratios'][other][0]:.2f}" if other in row["ratios"] else "" for other in references]
        extra = [f"{100 * row['bandwidth']:.0f}%", str(row["launches"])] if gpu else []
        table.add_row(name, f"{row['ms']:.3f}", f"{row['memory']:.1f}", *against, *extra)
    console.print(table)
    for name, why in found["failed"].items():
        console.print(f"  not run: {name} ({why})", style="dim")


def scaling(options: argparse.Namespace, console: Console) -> list[dict[str, Any]]:
    """Nanoseconds a pixel of value and gradient from 32² to 4096², at a constant number of pixels where that fits."""
    names = {"amplitude", "amplitude_phase", "haar", "bior1.3", "MSE", "FFT floor"}
    table = Table("side", "batch", *sorted(names), title="ns a pixel", title_justify="left", box=None)
    records = []
    for power in range(5, 13):
        side = 2**power
        case = Case(f"{side}²", (max(1, 2**20 // side**2), 1, side, side))
        dtype = getattr(torch, options.dtype)
        steps = prepare(case, device=options.device, dtype=dtype, compiled=options.compile, only=names)
        seconds = interleaved_seconds(steps.run, seconds=options.seconds, device=options.device)
        pixels = case.shape[0] * side**2
        row = {name: 1e9 * float(np.median(seconds[name])) / pixels for name in sorted(names)}
        table.add_row(str(side), str(case.shape[0]), *(f"{row[name]:.2f}" for name in sorted(names)))
        records.append({"side": side, "batch": case.shape[0], **row})
    console.print(table)
    return records


def main() -> None:
    """Measure, print, and write the numbers where asked."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument("--cases", default="", help="comma-separated parts of case names; all when left out")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--compile", action="store_true", help="every contender under torch.compile")
    parser.add_argument("--seconds", type=float, default=4.0, help="about how long to measure a case")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of torch on the CPU")
    parser.add_argument("--scaling", action="store_true", help="time a pixel against size instead of the table")
    parser.add_argument("--json", type=Path, help="write the numbers here too")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.filterwarnings("ignore")  # peers' deprecations
    console = Console(width=None if Console().is_terminal else 150)

    where = torch.cuda.get_device_name() if options.device == "cuda" else f"CPU, {options.threads} threads"
    record: dict[str, Any] = {
        "where": where,
        "machine": platform.machine(),
        "torch": torch.__version__,
        "kernels": f"Numba {version('numba')}"
        if options.device == "cpu" and find_kernel("fourier", torch.empty(0))
        else "torch",
        "dtype": options.dtype,
        "compiled": options.compile,
        "date": datetime.date.today().isoformat(),
    }
    console.print(", ".join(f"{key} {value}" for key, value in record.items()), style="bold")
    if options.scaling:
        record["scaling"] = scaling(options, console)
    else:
        record["cases"], goals = [], []
        for case in CASES:
            if options.cases and not any(part.strip() in case.name for part in options.cases.split(",")):
                continue
            found = measure_case(case, options)
            show(console, found)
            record["cases"].append(found)
            goals += [f"{case.name}: {line}" for line in goal_lines(case, found["rows"], options)]
        console.print("\nGoals", style="bold")
        for line in goals:
            console.print(line, style="red" if "MISSED" in line else "")
        record["goals"] = goals
    if options.json:
        options.json.write_text(json.dumps(record, indent=1))
