"""A stand-in for Apple's GPU on the CPU: tensors whose device says "mps", and which refuse float64 as that one does.

In the context of an `Apple`, whatever is made on or moved to "mps" is an `AppleTensor`, which holds a CPU tensor and
computes with it. float64 and complex128 on that device raise MPS's TypeError; tensors of two devices do not mix.
"""

from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_flatten, tree_map

MPS = torch.device("mps")
aten = torch.ops.aten
_COPIES = {aten._to_copy.default, aten.copy_.default}
_INDEXED = {aten.index.Tensor, aten.index_put_.default, aten._index_put_impl_.default}


class AppleTensor(torch.Tensor):
    """A tensor on the stand-in: autograd sees a CPU tensor, Python's `.device` says mps."""

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> "AppleTensor":
        if held.dtype in (torch.float64, torch.complex128):
            raise TypeError(
                "Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64. "
                "Please use float32 instead."
            )
        return torch.Tensor._make_wrapper_subclass(
            cls, held.size(), strides=held.stride(), storage_offset=held.storage_offset(), dtype=held.dtype
        )

    def __init__(self, held: torch.Tensor) -> None:
        self.held = held

    @property
    def device(self) -> torch.device:
        return MPS

    def __reduce_ex__(self, protocol: int) -> Any:
        return self.held.__reduce_ex__(protocol)

    def __repr__(self) -> str:
        return f"AppleTensor({self.held})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class Apple:
    """The context in which "mps" is the stand-in."""

    def __enter__(self) -> "Apple":
        self._overwrites = torch.__future__.get_overwrite_module_params_on_conversion()
        torch.__future__.set_overwrite_module_params_on_conversion(True)  # parameters that move are new ones
        self._modes = (_Functions(), _Operations())
        for mode in self._modes:
            mode.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        for mode in reversed(self._modes):
            mode.__exit__(*error)
        torch.__future__.set_overwrite_module_params_on_conversion(self._overwrites)


class _Functions(TorchFunctionMode):
    """Moves tensors from and to the stand-in, where C++ would look for a driver, or past Python's `.device`."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.Tensor.cpu:
            return _moved(args[0], torch.device("cpu"))
        if func is torch.Tensor.tolist:
            return _held(args[0]).tolist()
        if func in (torch.tensor, torch.as_tensor) and (device := kwargs.pop("device", None)) is not None:
            return _moved(func(*args, **kwargs), torch.device(device))
        if func is torch.Tensor.to:
            x, *rest = args
            if rest and isinstance(rest[0], torch.Tensor):
                rest = [rest[0].device, rest[0].dtype, *rest[1:]]
            copy = kwargs.pop("copy", False)
            device, dtype, _, memory_format = torch._C._nn._parse_to(*rest, **kwargs)
            moved = x.clone() if copy else x
            moved = moved if dtype is None else func(moved, dtype)  # where it is, before it moves
            moved = moved if device is None else _moved(moved, device)
            return moved if memory_format is None else moved.contiguous(memory_format=memory_format)
        return func(*args, **kwargs)


def _moved(x: torch.Tensor, device: torch.device) -> torch.Tensor:
    return x if x.device.type == device.type else _Move.apply(x, device)


class _Move(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, device: torch.device) -> torch.Tensor:
        ctx.source = x.device
        return _held(x).clone() if device.type == "cpu" else AppleTensor(x.clone())

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Any:
        return _moved(grad, ctx.source), None


class _Operations(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


def _held(value: Any) -> Any:
    return value.held if isinstance(value, AppleTensor) else value


def _run(func: Any, args: Any, kwargs: Any) -> Any:
    leaves, _ = tree_flatten((args, kwargs))
    tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
    ours = [tensor for tensor in tensors if isinstance(tensor, AppleTensor)]
    asked = kwargs.get("device")
    there = bool(ours) if asked is None else torch.device(asked).type == "mps"
    if asked is not None:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    if (
        ours
        and func not in _COPIES | _INDEXED
        and (strays := [t for t in tensors if not isinstance(t, AppleTensor) and t.dim()])
    ):
        raise RuntimeError(f"{func}: expected all tensors to be on one device; got mps and {strays[0].device}")
    found = func(*tree_map(_held, args), **tree_map(_held, kwargs))
    if not there:
        return found
    found = tree_map(lambda x: AppleTensor(x) if isinstance(x, torch.Tensor) else x, found)
    return return_and_correct_aliasing(func, args, kwargs, found) if ours else found
