"""Tensors from files of unknown origin, torch's and safetensors: no code runs, and errors say what the file is."""

from __future__ import annotations

import pickle
import re
import struct
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.serialization import add_safe_globals, clear_safe_globals, get_safe_globals

from specreg._files import mistaken_for_data

_NUMBERS = ("f8", "f4", "f2", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "b1")


def load_plain(path: Path) -> Any:
    """Return the tensors and plain values in a torch file, on the CPU; NumPy's numbers become Python's.

    Raises FileNotFoundError for no file, and ValueError with one sentence that names the file and says what it is.
    """
    try:
        with _numpy_numbers(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what torch would warn of is refused below, in a sentence
            return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise
    except _FAULTS as error:
        why = mistaken_for_data(path) or _reason(str(error))
        raise ValueError(f"{path}: cannot be read as a torch file of tensors and plain values: it {why}") from None


def load_safetensors(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Return metadata and tensors of a safetensors file; errors as in `load_plain`."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise
    except (SafetensorError, OSError) as error:
        found = mistaken_for_data(path) if path.is_file() else None
        raise ValueError(f"{path}: cannot be read as safetensors: {f'it {found}' if found else error}") from None


def unusable(tensor: Tensor) -> str | None:
    """Return what keeps a tensor of a file from being a network's weights, such as "complex"; None for nothing."""
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_nested:
        return "sparse, quantized or nested"
    if tensor.is_meta:
        return "without content (on the meta device)"
    if not tensor.is_floating_point():
        return "complex" if tensor.is_complex() else f"of {tensor.dtype}"
    return None if bool(tensor.isfinite().all()) else "not finite"


# What torch.load raises for files that are damaged or hold something else.
_FAULTS = (
    pickle.UnpicklingError, RuntimeError, EOFError, LookupError, ValueError, TypeError, AttributeError, OverflowError,
    AssertionError, OSError, struct.error,
)  # fmt: skip


def _reason(message: str) -> str:
    """Return what torch's message says of the file, without its advice to switch safety off."""
    if name := re.search(r"GLOBAL ([\w.]+)", message):
        return (
            f"holds {name[1]}, which is neither, and reading it could run code; save the tensors alone, for example "
            "with torch.save(network.state_dict(), file)"
        )
    if "TorchScript" in message:
        return "is a TorchScript archive, which holds code; save the tensors alone with torch.save(…state_dict(), file)"
    return "is something else, or damaged or cut short; copy or download it again"


# Stand-ins for NumPy's names: nothing of NumPy's own unpickling is called.


class _DType:
    """The parts of a NumPy dtype that a number needs."""

    def __init__(self, code: str, align: object = False, copy: object = True) -> None:
        if code not in _NUMBERS:
            raise pickle.UnpicklingError("GLOBAL numpy.dtype of anything but numbers")
        self.code, self.order = code, "<"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        """Take the byte order, the second entry of NumPy's state."""
        if state[1] not in ("<", ">", "|", "="):
            raise pickle.UnpicklingError("GLOBAL numpy.dtype of anything but numbers")
        self.order = state[1]


def _number(dtype: _DType, content: bytes) -> float | int | bool:
    if not isinstance(dtype, _DType) or not isinstance(content, bytes):
        raise pickle.UnpicklingError("GLOBAL numpy.core.multiarray.scalar of anything but numbers")
    value: float | int | bool = np.frombuffer(content, np.dtype(dtype.order + dtype.code), count=1).item()
    return value


def _scalar_of(module: str) -> Callable[[_DType, bytes], float | int | bool]:
    """Return `_number` by the name that a version of NumPy has for it: torch knows what is safe by names."""

    def scalar(dtype: _DType, content: bytes) -> float | int | bool:
        return _number(dtype, content)

    scalar.__module__, scalar.__qualname__ = module, "scalar"
    return scalar


_DType.__module__, _DType.__name__, _DType.__qualname__ = "numpy", "dtype", "dtype"
_STAND_INS: list[Any] = [_DType, _scalar_of("numpy.core.multiarray"), _scalar_of("numpy._core.multiarray")]


@contextmanager
def _numpy_numbers() -> Iterator[None]:
    """Let torch's safe reader take NumPy's numbers too, while this lasts."""
    before = get_safe_globals()
    add_safe_globals(_STAND_INS)
    try:
        yield
    finally:
        clear_safe_globals()
        add_safe_globals(before)
