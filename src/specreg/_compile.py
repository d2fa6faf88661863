"""What torch.compile has to be told."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

Function = TypeVar("Function", bound=Callable[..., object])


def traced_as_constant(function: Function) -> Function:
    """Let torch.compile call `function` while it traces, and take what comes back for a constant of the graph.

    For functions of sizes, names and devices alone; tensors among their results stay one tensor for all calls.
    """
    # All that torch.compiler.assume_constant_result does; calling it would import the compiler, which takes a second.
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function
