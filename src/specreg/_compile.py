"""What torch.compile has to be told."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

P = ParamSpec("P")
Result = TypeVar("Result")
Function = TypeVar("Function", bound=Callable[..., object])


def traced_as_constant(function: Function) -> Function:
    """Let torch.compile call `function` while it traces, and take what comes back for a constant of the graph.

    For functions of sizes, names and devices alone; tensors among their results stay one tensor for all calls.
    """
    # All that torch.compiler.assume_constant_result does; calling it would import the compiler, which takes a second.
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


def constant_tensors(maxsize: int) -> Callable[[Callable[P, Result]], Callable[P, Result]]:
    """Make each tensor, or tuple of tensors, of a function of sizes, names and devices once, and keep it.

    They are made outside inference mode, or autograd would refuse to save them. What is made inside a mode that fakes
    tensors is not kept: the next caller may want real ones.
    """

    def decorate(make: Callable[P, Result]) -> Callable[P, Result]:
        @lru_cache(maxsize)
        def kept(*args: Any, **kwargs: Any) -> Result:
            with torch.inference_mode(False):
                made = make(*args, **kwargs)
            if any(type(x) is not Tensor for x in (made if isinstance(made, tuple) else (made,))):
                raise _NotKept(made)
            return made

        @wraps(make)
        def call(*args: P.args, **kwargs: P.kwargs) -> Result:
            try:
                return kept(*args, **kwargs)  # type: ignore[arg-type]
            except _NotKept as passed:
                made: Result = passed.made
                return made

        # The compiler names a constant after the code that made it, and each name must be one thing.
        call.__code__ = call.__code__.replace(co_name=make.__name__)  # type: ignore[attr-defined]
        return traced_as_constant(call)

    return decorate


class _NotKept(Exception):
    def __init__(self, made: object):
        super().__init__()
        self.made: Any = made
