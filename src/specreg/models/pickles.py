"""Read the public EDM checkpoints, which are pickles, without running anything that they hold.

A pickle is a program for a small stack machine. Python's own machine imports whatever the program names and calls it;
the one here has only the instructions and the nine names that those checkpoints use, replaces each name by a harmless
builder below, and refuses every other name. The text of `module_src`, which the official loader executes, is dropped
unread. Nothing is built before the whole program has been checked once.

A snapshot of training also has the loss object under "loss_fn", of whatever class its user trained with. Objects with
other names are therefore read as `Stranger`s, which are nothing but a name: what they are made of is dropped, and
nothing is called. Anywhere but under "loss_fn" a stranger is refused.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from specreg import _checks
from specreg._files import mistaken_for_data, said
from specreg.models import pickle_tensors
from specreg.models.pickle_steps import CheckpointRefused, NoPickle, operations
from specreg.models.pickle_tensors import DType

MAX_BYTES = 8 << 30

LOSS = "loss_fn"
"""Key under which a snapshot has its loss, the only part that may hold strangers."""


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
class Stranger:
    """An object that such checkpoints do not have, without what it is made of."""

    name: str  # that the pickle may not use
    fault: str | None = None  # for known names, what is wrong

    def __str__(self) -> str:
        return self.name


_MARK = object()


def read_pickle(path: Path) -> Any:
    """Return the contents of the pickle in `path`: plain values, tensors, `Record`s for objects, a loss as it may be.

    Raises CheckpointRefused, which names the fault, for anything outside the format of the public checkpoints.
    """
    size = path.stat().st_size
    if not 0 < size <= MAX_BYTES:
        raise CheckpointRefused(f"{path}: expected 1 to {MAX_BYTES} bytes; got {size}")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        try:
            _look_through(content)
            content.seek(0)
            found = _Machine().run(content)
            _refuse_strangers(found)
            return found
        except CheckpointRefused as refusal:
            mistaken = mistaken_for_data(path) if isinstance(refusal, NoPickle) else None
            raise CheckpointRefused(f"{path}: {mistaken or refusal}") from None


def _look_through(content: Any) -> None:
    """Raise CheckpointRefused for a forbidden instruction."""
    strange: str | None = None
    for name, argument in operations(content):
        if name in ("GLOBAL", "INST") and (found := str(argument).replace(" ", ".", 1)) not in _BUILDERS:
            strange = strange or found
        if name not in _INSTRUCTIONS:
            if strange is not None:
                raise _refused(Stranger(strange))
            said = f" {_called(argument)}" if argument is not None else ""
            raise CheckpointRefused(f"refused the pickle instruction {name}{said}, which no such checkpoint has")


SECOND_GENERATION = (
    "is a network of EDM2, the generation after EDM, whose layers preserve magnitudes; expected one of EDM's, of class "
    "EDMPrecond, VPPrecond, VEPrecond or iDDPMPrecond"
)
_SECOND_GENERATION_NAMES = ("dnnlib.util.EasyDict",)
"""Names that EDM2's files use and EDM's do not."""


def _refuse_strangers(content: Any) -> None:
    """Raise CheckpointRefused that names a stranger anywhere but under `LOSS`."""
    seen: set[int] = set()
    waiting = [content]
    if isinstance(content, dict):
        waiting = [part for key, value in content.items() for part in ((key, value) if key != LOSS else ())]
    while waiting:
        value = waiting.pop()
        if isinstance(value, Stranger):
            raise _refused(value)
        if id(value) in seen:
            continue
        seen.add(id(value))
        waiting.extend(_parts(value))


def _parts(value: Any) -> Iterable[Any]:
    if isinstance(value, Record):
        return value.state.values()
    if isinstance(value, dict):
        return [*value, *value.values()]
    return value if isinstance(value, (list, tuple, set, frozenset)) else ()


def _refused(stranger: Stranger) -> CheckpointRefused:
    if stranger.name in _SECOND_GENERATION_NAMES:
        return CheckpointRefused(SECOND_GENERATION)
    if stranger.fault is not None:
        return CheckpointRefused(stranger.fault)
    known = ", ".join(_BUILDERS)
    return CheckpointRefused(f"refused {stranger.name[:200]!r}; the only names that such a checkpoint uses are {known}")


class _Machine:
    """The stack machine that runs a pickle."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self, content: Any) -> Any:
        """Return the single value that the program leaves on the stack."""
        for name, argument in operations(content):
            if name == "STOP":
                break
            try:
                _INSTRUCTIONS[name](self, argument)
            except CheckpointRefused:
                raise
            except Exception as error:
                raise CheckpointRefused(f"the pickle instruction {name} has wrong operands ({said(error)})") from None
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
        target = self._top((dict, Stranger))
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            if isinstance(target, dict):
                target[_hashable(key, "a key")] = value

    def append(self, values: list[Any]) -> None:
        """Extend the list on top of the stack."""
        if isinstance(target := self._top((list, Stranger)), list):
            target.extend(values)

    def add(self, values: list[Any]) -> None:
        """Extend the set on top of the stack."""
        if isinstance(target := self._top((set, Stranger)), set):
            target.update(_hashable(value, "a member of a set") for value in values)

    def name(self) -> None:
        """Run STACK_GLOBAL: push a name whose two parts are on the stack."""
        name, module = self.pop(str), self.pop(str)
        self.named(f"{module} {name}")

    def named(self, text: str) -> None:
        """Run GLOBAL: push the name in `text`, "module name"."""
        module, _, name = text.partition(" ")
        found = _Name(module, name)
        self.push(found if str(found) in _BUILDERS else Stranger(str(found)))

    def reduce(self) -> None:
        """Run REDUCE: call one of the builders; what a stranger makes, or is made of one, is a stranger."""
        arguments, function = self.pop(tuple), self.pop()
        if strange := [value for value in (function, *arguments) if isinstance(value, Stranger)]:
            return self.push(Stranger(strange[0].name, strange[0].fault))
        if not isinstance(function, _Name):
            raise CheckpointRefused(f"refused a call of {_called(function)}")
        try:
            self.push(_BUILDERS[str(function)](*arguments))
        except TypeError as error:
            self.push(Stranger(str(function), f"{function} was given what it never is ({said(error)})"))

    def new_object(self) -> None:
        """Run NEWOBJ: of known names only torch's ModuleDict uses it."""
        arguments, kind = self.pop(tuple), self.pop()
        if isinstance(kind, Stranger):
            return self.push(Stranger(kind.name))
        if kind != _MODULE_DICT or arguments:
            raise CheckpointRefused(f"refused a new object of {_called(kind)}")
        self.push(Record("ModuleDict", {}))

    def build(self) -> None:
        """Run BUILD: set the state of a ModuleDict or of a NumPy dtype; a stranger keeps none."""
        state, target = self.pop(), self._top((Record, DType, Stranger))
        if isinstance(target, Stranger):
            return
        if isinstance(target, DType) and isinstance(state, tuple) and state[1] in ("<", "|"):
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
    return str(value) if isinstance(value, _Name | Stranger) else _checks.shown(value)


def _hashable(value: Any, what: str) -> str | int | Stranger:
    """Return a key or member; one that is neither text nor a whole number is a stranger, refused outside a loss."""
    if type(value) in (str, int) or isinstance(value, Stranger):
        found: str | int | Stranger = value
        return found
    return Stranger(_called(value), f"refused {_called(value)} as {what}; expected a name")


def _persistent(meta: Any, *rest: Any) -> Record:
    if rest or not isinstance(meta, dict) or not isinstance(meta.get("state"), dict):
        raise TypeError("expected one dict with a state")
    if strange := [value for value in meta.values() if isinstance(value, Stranger)]:
        raise _refused(strange[0])  # the other parts of an object are dropped here
    kind, class_name = meta.get("type"), meta.get("class_name")
    if kind != "class" or not isinstance(class_name, str):
        raise TypeError(f"expected type 'class' and a class name; got {_called(kind)} and {_called(class_name)}")
    return Record(class_name, meta["state"])


def _ordered_dict() -> dict[str, Any]:
    return {}


_MODULE_DICT = _Name("torch.nn.modules.container", "ModuleDict")


def _module_dict(*arguments: Any) -> None:
    raise TypeError("it is never called")


_BUILDERS: dict[str, Callable[..., Any]] = {
    "torch_utils.persistence._reconstruct_persistent_obj": _persistent,
    "collections.OrderedDict": _ordered_dict,
    "torch._utils._rebuild_parameter": pickle_tensors.parameter,
    "torch._utils._rebuild_tensor_v2": pickle_tensors.tensor,
    "torch.storage._load_from_bytes": pickle_tensors.storage,
    "torch.nn.modules.container.ModuleDict": _module_dict,
    "numpy.dtype": pickle_tensors.dtype,
    "numpy._core.multiarray.scalar": pickle_tensors.scalar,
    "numpy.core.multiarray.scalar": pickle_tensors.scalar,  # numpy 1
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
