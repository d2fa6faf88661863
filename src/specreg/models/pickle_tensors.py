"""Tensors and numbers of a public checkpoint's pickle: builders that check what they are given.

A tensor is a view of a storage, whose bytes are a torch file of the old format inside the pickle.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from specreg._checks import shown
from specreg.models.pickle_steps import CheckpointRefused, operations


@dataclass(eq=False)
class DType:
    """The parts of a NumPy dtype that a scalar needs."""

    code: str
    order: str = "<"


_STORAGES = {
    f"torch.{kind}Storage"
    for kind in ("Float", "Double", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool")
}


def parameter(data: Any, requires_grad: Any, hooks: Any) -> Tensor:
    """Return the tensor of a parameter."""
    if not isinstance(data, Tensor):
        raise TypeError(f"expected a tensor; got {shown(data)}")
    return data


def tensor(
    storage: Any, offset: Any, size: Any, stride: Any, requires_grad: Any, hooks: Any, metadata: Any = None
) -> Tensor:
    """Return a view of a storage; raises CheckpointRefused where it would exceed the storage or repeat numbers."""
    if not isinstance(storage, torch.TypedStorage):
        raise TypeError(f"expected a storage; got {shown(storage)}")
    numbers = (offset, *size, *stride)
    if len(size) != len(stride) or not all(type(n) is int and 0 <= n < 2**62 for n in numbers):
        raise TypeError(f"expected whole sizes and strides; got {', '.join(map(shown, numbers))}"[:200])
    untyped = storage._untyped_storage
    available = untyped.nbytes() // storage.dtype.itemsize
    count = reach = 1
    for n, step in zip(size, stride, strict=True):
        count *= n
        reach += (n - 1) * step
    if count and (count > available or offset + reach > available):
        raise CheckpointRefused(f"a tensor {list(size)} reaches beyond its {available} stored numbers")
    return torch.empty(0, dtype=storage.dtype).set_(untyped, offset, size, stride) if count else torch.empty(size)


def storage(content: Any) -> Any:
    """Return the storage in an inner torch file of the old format, which is checked before torch reads it."""
    if not isinstance(content, bytes):
        raise TypeError(f"expected bytes; got {shown(content)}")
    if content[:2] == b"PK":
        raise CheckpointRefused("refused an inner torch file in zip form; such checkpoints have the old form")
    try:
        _look_through_storage(io.BytesIO(content), len(content))
        found = torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")
    except CheckpointRefused as refusal:
        raise CheckpointRefused(f"in an inner torch file: {refusal}") from None
    except Exception as error:
        raise CheckpointRefused(f"an inner torch file cannot be read ({str(error).splitlines()[0]})") from None
    if not isinstance(found, torch.TypedStorage):
        raise CheckpointRefused(f"an inner torch file holds {shown(found)}; expected a storage")
    return found


def _look_through_storage(content: BinaryIO, size: int) -> None:
    """Check names, instructions and claimed length of an old torch file: five small pickles, then numbers."""
    for part in range(5):
        for name, argument in operations(content):
            if name in ("GLOBAL", "INST") and (named := str(argument).replace(" ", ".", 1)) not in _STORAGES:
                known = ", ".join(sorted(_STORAGES))
                raise CheckpointRefused(f"refused {named[:200]!r}; the only names in such a file are {known}")
            if name not in _INNER:
                raise CheckpointRefused(f"refused the pickle instruction {name}")
            if part == 3 and isinstance(argument, int) and argument > size:
                raise CheckpointRefused(f"claims {argument} numbers in {size} bytes")


def dtype(code: Any, align: Any, copy: Any) -> DType:
    """Return a dtype of numbers."""
    if code not in ("f8", "f4", "f2", "i8", "i4", "i2", "i1", "u1", "b1"):
        raise TypeError(f"expected a numeric dtype; got {shown(code)}")
    return DType(code)


def scalar(dtype: Any, content: Any) -> float | int | bool:
    """Return the number in the bytes of a NumPy scalar."""
    if not isinstance(dtype, DType) or not isinstance(content, bytes):
        raise TypeError(f"expected a dtype and bytes; got {shown(dtype)} and {shown(content)}")
    value: float | int | bool = np.frombuffer(content, np.dtype(dtype.order + dtype.code), count=1).item()
    return value


_INNER = {"PROTO", "STOP", "MARK", "NONE", "NEWTRUE", "NEWFALSE", "EMPTY_DICT", "EMPTY_LIST", "EMPTY_TUPLE", "TUPLE",
          "TUPLE1", "TUPLE2", "TUPLE3", "SETITEM", "SETITEMS", "APPEND", "APPENDS", "BINPUT", "LONG_BINPUT", "BINGET",
          "LONG_BINGET", "GLOBAL", "BINPERSID", "BININT", "BININT1", "BININT2", "LONG1", "BINUNICODE"}  # fmt: skip
