"""The processes of a launcher (`accelerate launch`, `torchrun`): which one this is, sharing work and its results."""

from __future__ import annotations

import os
import platform
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env

from specreg._signals import deadly

T = TypeVar("T")


def state() -> PartialState:
    """Return the process group, on the CPU if the launcher says so; the first call waits for the other processes.

    Signals to stop end that wait at once: where another process has died it would take minutes.
    """
    with nullcontext() if torch.distributed.is_initialized() else deadly():
        return PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"))


def share(count: int) -> range:
    """Return this process's share of `count` things: a contiguous range, as long as the others' or one longer."""
    processes, rank = state().num_processes, state().process_index
    return range(count * rank // processes, count * (rank + 1) // processes)


def gather(part: T) -> list[T]:
    """Return the parts of all processes in the order of their ranks; every process must call, with picklable parts."""
    processes = state().num_processes
    if processes == 1:
        return [part]
    parts: list[Any] = [None] * processes
    torch.distributed.all_gather_object(parts, part)
    return parts


@contextmanager
def together() -> Iterator[None]:
    """At the end of the block, wait for all processes and leave their group; not after an error.

    A process that ends while another still works may abort in the group's threads, and the launcher then stops all.
    """
    yield
    found = state()
    if found.num_processes > 1:
        found.wait_for_everyone()
        found.destroy_process_group()


def command_line() -> str:
    """Return the command that this process was started with."""
    return shlex.join(["specreg", *sys.argv[1:]])


def machine() -> str:
    """Return processor count, architecture and accelerator in words."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return f"{os.cpu_count()}-core {platform.machine()} CPU, {device}"
