"""Functions that torch.compile evaluates while it traces, and constant tensors that it keeps."""

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
    """Return `function` marked so that torch.compile calls it while tracing and takes the result as a constant.

    For functions of sizes, names and devices alone. A tensor in the result must be the same tensor in all calls.
    """
    # The same as torch.compiler.assume_constant_result, whose import of the compiler takes a second.
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


def constant_tensors(maxsize: int) -> Callable[[Callable[P, Result]], Callable[P, Result]]:
    """Return a decorator that caches the tensor, or tuple of tensors, of a function of sizes, names and devices.

    Tensors are created outside inference mode, since autograd refuses to save inference tensors. Fake tensors, which
    the function returns while torch traces, are not cached.
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

        # The compiler names a constant after the code object that made it, and the names must differ.
        call.__code__ = call.__code__.replace(co_name=make.__name__)  # type: ignore[attr-defined]
        return traced_as_constant(call)

    return decorate


class _NotKept(Exception):
    def __init__(self, made: object):
        super().__init__()
        self.made: Any = made
