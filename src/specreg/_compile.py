"""What torch.compile has to be told."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

Function = TypeVar("Function", bound=Callable[..., object])


def traced_as_constant(function: Function) -> Function:
    """Let torch.compile call `function` while it traces, and take what comes back for a constant of the graph.

    For functions of sizes, names and devices alone; tensors among their results stay one tensor for all calls.
    """
    torch.compiler.assume_constant_result(function)
    return function
