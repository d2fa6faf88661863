"""Read the public EDM checkpoints, which are pickles, without running anything that they hold.

A pickle is a program for a small stack machine. Python's own machine imports whatever the program names and calls it;
the one here has only the instructions and the nine names that those checkpoints use, replaces each name by a harmless
builder below, and refuses every other name. The text of `module_src`, which the official loader executes, is dropped
unread. Nothing is built before the whole program has been checked once.
"""

from __future__ import annotations

import io
import mmap
import pickletools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from specreg import _checks
from specreg._files import mistaken_for_data

MAX_BYTES = 8 << 30
MAX_OPERATIONS = 5_000_000


class CheckpointRefused(ValueError):
    """A checkpoint file is damaged or holds something forbidden; the message names the file and the fault."""


class _NoPickle(CheckpointRefused):
    """The file does not consist of a pickle's instructions."""


@dataclass(eq=False)
class Record:
    """An object of the pickle as plain data: the name of its class and its `__dict__`."""

    class_name: str
    state: dict[str, Any]


@dataclass(frozen=True)
class _Name:
    """A name that the pickle may use; a builder is called in its place."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False)
class _DType:
    """The parts of a NumPy dtype that a scalar needs."""

    code: str
    order: str = "<"


_MARK = object()

_STORAGES = {
    f"torch.{kind}Storage"
    for kind in ("Float", "Double", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool")
}


def read_pickle(path: Path) -> Any:
    """Return the contents of the pickle in `path`: plain values, tensors, and `Record`s for objects.

    Raises CheckpointRefused, which names the fault, for anything outside the format of the public checkpoints.
    """
    size = path.stat().st_size
    if not 0 < size <= MAX_BYTES:
        raise CheckpointRefused(f"{path}: expected 1 to {MAX_BYTES} bytes; got {size}")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        try:
            _look_through(content)
            content.seek(0)
            return _Machine().run(content)
        except CheckpointRefused as refusal:
            found = mistaken_for_data(path) if isinstance(refusal, _NoPickle) else None
            raise CheckpointRefused(f"{path}: {found or refusal}") from None


def _operations(content: Any) -> Iterator[tuple[str, Any]]:
    """Yield the instructions and their arguments; raises CheckpointRefused for a damaged pickle."""
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(content)):
            if count >= MAX_OPERATIONS:
                raise CheckpointRefused(f"expected at most {MAX_OPERATIONS} instructions; got more")
            yield opcode.name, argument
    except CheckpointRefused:
        raise
    except Exception as error:  # genops reports damage as ValueError, UnicodeError, struct.error, OverflowError, ...
        raise _NoPickle(f"is not a whole pickle ({error})") from None


def _look_through(content: Any, names: set[str] | None = None) -> None:
    """Raise CheckpointRefused for a forbidden instruction, or a forbidden name that an instruction contains."""
    for name, argument in _operations(content):
        if name in ("GLOBAL", "INST"):
            _refuse_unless_allowed(str(argument).replace(" ", ".", 1), names)
        if name not in _INSTRUCTIONS:
            said = f" {_called(argument)}" if argument is not None else ""
            raise CheckpointRefused(f"refused the pickle instruction {name}{said}, which no such checkpoint has")


SECOND_GENERATION = (
    "is a network of EDM2, the generation after EDM, whose layers preserve magnitudes; expected one of EDM's, of class "
    "EDMPrecond, VPPrecond, VEPrecond or iDDPMPrecond"
)
_SECOND_GENERATION_NAMES = ("dnnlib.util.EasyDict",)
"""Names that EDM2's files use and EDM's do not."""


def _refuse_unless_allowed(name: str, allowed: set[str] | None = None) -> None:
    if allowed is None and name in _SECOND_GENERATION_NAMES:
        raise CheckpointRefused(SECOND_GENERATION)
    if name not in (_BUILDERS if allowed is None else allowed):
        known = ", ".join(_BUILDERS if allowed is None else sorted(allowed))
        raise CheckpointRefused(f"refused {name[:200]!r}; the only names that such a checkpoint uses are {known}")


class _Machine:
    """The stack machine that runs a pickle."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self, content: Any) -> Any:
        """Return the single value that the program leaves on the stack."""
        for name, argument in _operations(content):
            if name == "STOP":
                break
            try:
                _INSTRUCTIONS[name](self, argument)
            except CheckpointRefused:
                raise
            except Exception as error:
                raise CheckpointRefused(f"the pickle instruction {name} has wrong operands ({error})") from None
        if len(self.stack) != 1 or self.stack[0] is _MARK:
            raise CheckpointRefused("is not a whole pickle (it leaves no single value)")
        return self.stack[0]

    def pop(self, kind: type | tuple[type, ...] = object) -> Any:
        """Return the top of the stack; raises CheckpointRefused unless it is of `kind`."""
        value = self.stack.pop()
        if value is _MARK or not isinstance(value, kind):
            raise CheckpointRefused(f"refused a pickle that uses {_called(value)} where it cannot stand")
        return value

    def pop_mark(self) -> list[Any]:
        """Return all values above the last mark."""
        place = len(self.stack) - 1
        while self.stack[place] is not _MARK:
            place -= 1
            if place < 0:
                raise CheckpointRefused("is not a whole pickle (there is no mark)")
        values = self.stack[place + 1 :]
        del self.stack[place:]
        return values

    def push(self, value: Any) -> None:
        """Push a value on the stack."""
        self.stack.append(value)

    def get(self, index: int) -> None:
        """Push the memorized value with this index."""
        if index not in self.memo:
            raise CheckpointRefused(f"refused a pickle that recalls value {index}, which it never stored")
        self.push(self.memo[index])

    def put(self, index: int) -> None:
        """Memorize the top of the stack."""
        value = self.stack[-1]
        if value is _MARK:
            raise CheckpointRefused("refused a pickle that stores a mark")
        self.memo[index] = value

    def set_items(self, pairs: list[Any]) -> None:
        """Add keys and values to the dict on top of the stack."""
        target = self._top(dict)
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            if type(key) not in (str, int):
                raise CheckpointRefused(f"refused {_called(key)} as a key; expected a name")
            target[key] = value

    def append(self, values: list[Any]) -> None:
        """Extend the list on top of the stack."""
        self._top(list).extend(values)

    def add(self, values: list[Any]) -> None:
        """Extend the set on top of the stack."""
        if any(type(value) not in (str, int) for value in values):
            raise CheckpointRefused("refused a set of anything but names")
        self._top(set).update(values)

    def name(self) -> None:
        """Run STACK_GLOBAL: push a name whose two parts are on the stack."""
        name, module = self.pop(str), self.pop(str)
        self.named(f"{module} {name}")

    def named(self, text: str) -> None:
        """Run GLOBAL: push the name in `text`, "module name"."""
        module, _, name = text.partition(" ")
        _refuse_unless_allowed(f"{module}.{name}")
        self.push(_Name(module, name))

    def reduce(self) -> None:
        """Run REDUCE: call one of the builders."""
        arguments, function = self.pop(tuple), self.pop()
        if not isinstance(function, _Name):
            raise CheckpointRefused(f"refused a call of {_called(function)}")
        try:
            self.push(_BUILDERS[str(function)](*arguments))
        except TypeError as error:
            raise CheckpointRefused(f"{function} was given what it never is ({error})") from None

    def new_object(self) -> None:
        """Run NEWOBJ: only torch's ModuleDict uses it."""
        arguments, kind = self.pop(tuple), self.pop()
        if kind != _MODULE_DICT or arguments:
            raise CheckpointRefused(f"refused a new object of {_called(kind)}")
        self.push(Record("ModuleDict", {}))

    def build(self) -> None:
        """Run BUILD: set the state of a ModuleDict or of a NumPy dtype."""
        state, target = self.pop(), self._top((Record, _DType))
        if isinstance(target, _DType) and isinstance(state, tuple) and state[1] in ("<", "|"):
            target.order = state[1]
        elif isinstance(target, Record) and target.class_name == "ModuleDict" and isinstance(state, dict):
            target.state = state
        else:
            raise CheckpointRefused(f"refused a change of {_called(target)} to {_called(state)}")

    def _top(self, kind: type | tuple[type, ...]) -> Any:
        value = self.stack[-1]
        if value is _MARK or not isinstance(value, kind):
            raise CheckpointRefused(f"refused a pickle that changes {_called(value)}")
        return value


def _called(value: Any) -> str:
    """Return a short description of a value."""
    return str(value) if isinstance(value, _Name) else _checks.shown(value)


def _persistent(meta: Any, *rest: Any) -> Record:
    if rest or not isinstance(meta, dict) or not isinstance(meta.get("state"), dict):
        raise TypeError("expected one dict with a state")
    kind, class_name = meta.get("type"), meta.get("class_name")
    if kind != "class" or not isinstance(class_name, str):
        raise TypeError(f"expected type 'class' and a class name; got {_called(kind)} and {_called(class_name)}")
    return Record(class_name, meta["state"])


def _ordered_dict() -> dict[str, Any]:
    return {}


def _parameter(data: Any, requires_grad: Any, hooks: Any) -> Tensor:
    if not isinstance(data, Tensor):
        raise TypeError(f"expected a tensor; got {_called(data)}")
    return data


def _tensor(
    storage: Any, offset: Any, size: Any, stride: Any, requires_grad: Any, hooks: Any, metadata: Any = None
) -> Tensor:
    """Return a view of a storage; raises CheckpointRefused where it would exceed the storage or repeat numbers."""
    if not isinstance(storage, torch.TypedStorage):
        raise TypeError(f"expected a storage; got {_called(storage)}")
    numbers = (offset, *size, *stride)
    if len(size) != len(stride) or not all(type(n) is int and 0 <= n < 2**62 for n in numbers):
        raise TypeError(f"expected whole sizes and strides; got {', '.join(map(_called, numbers))}"[:200])
    untyped = storage._untyped_storage
    available = untyped.nbytes() // storage.dtype.itemsize
    count = reach = 1
    for n, step in zip(size, stride, strict=True):
        count *= n
        reach += (n - 1) * step
    if count and (count > available or offset + reach > available):
        raise CheckpointRefused(f"a tensor {list(size)} reaches beyond its {available} stored numbers")
    return torch.empty(0, dtype=storage.dtype).set_(untyped, offset, size, stride) if count else torch.empty(size)


def _storage(content: Any) -> Any:
    """Return the storage in an inner torch file of the old format, which is checked before torch reads it."""
    if not isinstance(content, bytes):
        raise TypeError(f"expected bytes; got {_called(content)}")
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
        raise CheckpointRefused(f"an inner torch file holds {_called(found)}; expected a storage")
    return found


def _look_through_storage(content: BinaryIO, size: int) -> None:
    """Check names, instructions and claimed length of an old torch file: five small pickles, then numbers."""
    for part in range(5):
        for name, argument in _operations(content):
            if name in ("GLOBAL", "INST"):
                _refuse_unless_allowed(str(argument).replace(" ", ".", 1), _STORAGES)
            if name not in _INNER:
                raise CheckpointRefused(f"refused the pickle instruction {name}")
            if part == 3 and isinstance(argument, int) and argument > size:
                raise CheckpointRefused(f"claims {argument} numbers in {size} bytes")


def _dtype(code: Any, align: Any, copy: Any) -> _DType:
    if code not in ("f8", "f4", "f2", "i8", "i4", "i2", "i1", "u1", "b1"):
        raise TypeError(f"expected a numeric dtype; got {_called(code)}")
    return _DType(code)


def _scalar(dtype: Any, content: Any) -> float | int | bool:
    if not isinstance(dtype, _DType) or not isinstance(content, bytes):
        raise TypeError(f"expected a dtype and bytes; got {_called(dtype)} and {_called(content)}")
    value: float | int | bool = np.frombuffer(content, np.dtype(dtype.order + dtype.code), count=1).item()
    return value


_MODULE_DICT = _Name("torch.nn.modules.container", "ModuleDict")


def _module_dict(*arguments: Any) -> None:
    raise TypeError("it is never called")


_BUILDERS: dict[str, Callable[..., Any]] = {
    "torch_utils.persistence._reconstruct_persistent_obj": _persistent,
    "collections.OrderedDict": _ordered_dict,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch.storage._load_from_bytes": _storage,
    "torch.nn.modules.container.ModuleDict": _module_dict,
    "numpy.dtype": _dtype,
    "numpy._core.multiarray.scalar": _scalar,
    "numpy.core.multiarray.scalar": _scalar,  # numpy 1
}


def _nothing(machine: _Machine, argument: Any) -> None:
    """Do nothing: PROTO and FRAME only describe the layout of the program."""


_PUSHES = ("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8",
           "SHORT_BINBYTES", "BINBYTES", "BINBYTES8")  # fmt: skip

_INSTRUCTIONS: dict[str, Callable[[_Machine, Any], None]] = {
    **dict.fromkeys(_PUSHES, _Machine.push),
    "PROTO": _nothing,
    "FRAME": _nothing,
    "STOP": _nothing,
    "MARK": lambda m, _: m.push(_MARK),
    "NONE": lambda m, _: m.push(None),
    "NEWTRUE": lambda m, _: m.push(True),
    "NEWFALSE": lambda m, _: m.push(False),
    "EMPTY_DICT": lambda m, _: m.push({}),
    "EMPTY_LIST": lambda m, _: m.push([]),
    "EMPTY_SET": lambda m, _: m.push(set()),
    "EMPTY_TUPLE": lambda m, _: m.push(()),
    "TUPLE": lambda m, _: m.push(tuple(m.pop_mark())),
    "TUPLE1": lambda m, _: m.push((m.pop(),)),
    "TUPLE2": lambda m, _: m.push((m.pop(), m.pop())[::-1]),
    "TUPLE3": lambda m, _: m.push((m.pop(), m.pop(), m.pop())[::-1]),
    "SETITEM": lambda m, _: m.set_items([m.pop(), m.pop()][::-1]),
    "SETITEMS": lambda m, _: m.set_items(m.pop_mark()),
    "APPEND": lambda m, _: m.append([m.pop()]),
    "APPENDS": lambda m, _: m.append(m.pop_mark()),
    "ADDITEMS": lambda m, _: m.add(m.pop_mark()),
    "MEMOIZE": lambda m, _: m.put(len(m.memo)),
    "BINPUT": lambda m, index: m.put(index),
    "LONG_BINPUT": lambda m, index: m.put(index),
    "BINGET": lambda m, index: m.get(index),
    "LONG_BINGET": lambda m, index: m.get(index),
    "GLOBAL": lambda m, text: m.named(text),
    "STACK_GLOBAL": lambda m, _: m.name(),
    "REDUCE": lambda m, _: m.reduce(),
    "NEWOBJ": lambda m, _: m.new_object(),
    "BUILD": lambda m, _: m.build(),
}

_INNER = {"PROTO", "STOP", "MARK", "NONE", "NEWTRUE", "NEWFALSE", "EMPTY_DICT", "EMPTY_LIST", "EMPTY_TUPLE", "TUPLE",
          "TUPLE1", "TUPLE2", "TUPLE3", "SETITEM", "SETITEMS", "APPEND", "APPENDS", "BINPUT", "LONG_BINPUT", "BINGET",
          "LONG_BINGET", "GLOBAL", "BINPERSID", "BININT", "BININT1", "BININT2", "LONG1", "BINUNICODE"}  # fmt: skip
