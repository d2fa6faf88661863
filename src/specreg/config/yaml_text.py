"""YAML as configs are written in it: numbers as people write them, and texts as they stand.

PyYAML follows YAML 1.1, where 1e4 is a text, 010 is eight, 1:30 is ninety and 2026-11-22 is a date; here the first is a
number (YAML 1.2), the second ten and the others texts. What a field takes as text or path is never read as a number or
a boolean. A document is bounded (see `_Bounded`): a few aliases of aliases would otherwise fill any memory.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import PurePath
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel
from yaml.composer import Composer

from specreg import _checks

_INT = re.compile(r"[-+]?[0-9][0-9_]*\Z")
_FLOAT = re.compile(
    r"(?:[-+]?(?:(?:[0-9][0-9_]*(?:\.[0-9_]*)?|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?|\.(?:inf|Inf|INF))"
    r"|\.(?:nan|NaN|NAN))\Z"
)
_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
_DATE = "tag:yaml.org,2002:timestamp"
_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float", "str", "seq", "map", "merge")}
MOST_BYTES, MOST_VALUES, MOST_LEVELS = 1 << 20, 20_000, 50
"""Of one document, aliases counted as what they stand for. A config has some hundred values on five levels."""


def _resolvers(inherited: Mapping[str, list[tuple[str, Any]]], *left_out: str) -> dict[str, list[tuple[str, Any]]]:
    """Return PyYAML's rules for plain scalars, by first character, with numbers as the module says."""
    left_out = (*_NUMBERS, *left_out)
    rules = {first: [rule for rule in found if rule[0] not in left_out] for first, found in inherited.items()}
    for first in "-+.0123456789":
        rules[first] = [*zip(_NUMBERS, (_INT, _FLOAT), strict=True), *rules.get(first, [])]
    return rules


class _Bounded(Composer):
    """Composer of a document of bounded size and depth, without loops, odd tags and keys that are given twice."""

    peek_event: Any  # of the loader that this class is a part of

    def compose_document(self) -> Any:
        self._levels = 0
        self._sizes: dict[int, tuple[int, int]] = {}  # values and levels of each finished node, by its identity
        self._kept: list[yaml.Node] = []  # so that no identity is used twice
        return super().compose_document()

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        self._levels += 1
        if self._levels > MOST_LEVELS:  # before Python's own limit, which is no YAMLError
            raise _refused(f"expected at most {MOST_LEVELS} levels", event.start_mark)
        node: Any = super().compose_node(parent, index)
        self._levels -= 1
        if isinstance(event, yaml.AliasEvent):
            if id(node) not in self._sizes:
                raise _refused("an alias stands inside of what it stands for", event.start_mark)
        else:
            self._take(node)
        return node

    def _take(self, node: Any) -> None:
        """Check a finished node, and count its values."""
        if node.tag not in _TAGS and (node.tag != "!" or isinstance(node, yaml.CollectionNode)):
            raise _refused(f"expected plain values; got the tag {_checks.quoted(node.tag)}", node.start_mark)
        parts = node.value if isinstance(node, yaml.CollectionNode) else []
        if isinstance(node, yaml.MappingNode):
            keys = Counter(key.value for key, _ in parts if isinstance(key, yaml.ScalarNode) and key.value != "<<")
            if twice := [key for key, count in keys.most_common(1) if count > 1]:
                raise _refused(f"the key {_checks.quoted(twice[0])} is given twice", node.start_mark)
            parts = [part for pair in parts for part in pair]
        sizes = [self._sizes[id(part)] for part in parts]
        values, levels = 1 + sum(size[0] for size in sizes), 1 + max((size[1] for size in sizes), default=0)
        if values > MOST_VALUES or levels > MOST_LEVELS:
            most = f"{MOST_VALUES:,} values on {MOST_LEVELS} levels"
            raise _refused(f"expected at most {most}, counting aliases as what they stand for", node.start_mark)
        self._sizes[id(node)] = values, levels
        self._kept.append(node)


def _refused(what: str, mark: Any) -> yaml.YAMLError:
    return yaml.MarkedYAMLError(problem=what, problem_mark=mark)


class _Loader(_Bounded, yaml.SafeLoader):
    yaml_implicit_resolvers = _resolvers(yaml.SafeLoader.yaml_implicit_resolvers, _DATE)

    def number(self, node: Any) -> int | float:
        text = self.construct_scalar(node).replace("_", "")
        try:
            if node.tag == _NUMBERS[0]:
                return int(text)
            return float(re.sub(r"\.(inf|nan)\Z", r"\1", text, flags=re.IGNORECASE))
        except ValueError:
            raise _refused(f"expected a number; got {_checks.quoted(text)}", node.start_mark) from None

    def boolean(self, node: Any) -> bool:
        text = self.construct_scalar(node)
        if text.lower() not in self.bool_values:
            raise _refused(f"expected true or false; got {_checks.quoted(text)}", node.start_mark)
        return bool(self.bool_values[text.lower()])


for _tag in _NUMBERS:
    _Loader.add_constructor(_tag, _Loader.number)
_Loader.add_constructor("tag:yaml.org,2002:bool", _Loader.boolean)


class _AsWritten(_Bounded, yaml.BaseLoader):
    """Reads every scalar as the text that stands there."""


class _Dumper(yaml.SafeDumper):
    """Quotes dates: other readers of YAML know them."""

    yaml_implicit_resolvers = _resolvers(yaml.SafeDumper.yaml_implicit_resolvers)


def fault(error: Exception) -> str:
    """Return what is wrong with a YAML document on one line: PyYAML's message takes several, with a drawing."""
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        where = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
        return f"{', '.join(filter(None, (error.context, error.problem)))}{where}"
    return " ".join(str(error).split())


def load(text: str | bytes) -> Any:
    """Return the value of a YAML document; raises yaml.YAMLError."""
    return _load(text, _Loader)


def load_as_written(text: str | bytes) -> Any:
    """Return the same tree with every scalar as the text that stands there; raises yaml.YAMLError."""
    return _load(text, _AsWritten)


def _load(text: str | bytes, loader: Any) -> Any:
    if len(text) > MOST_BYTES:
        raise yaml.YAMLError(f"expected at most {MOST_BYTES:,} bytes; got {len(text):,}")
    return yaml.load(text, loader)


def dump(value: Any, *, ascii_only: bool = False) -> str:
    """Return a tree of plain values as YAML that `load` reads back; `ascii_only` escapes all other characters."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=not ascii_only)


def with_texts(value: Any, written: Any, annotation: Any) -> Any:
    """Return a loaded value in which fields that take text have what was written.

    Args:
        value: as `load` returns it.
        written: the same, as `load_as_written` returns it.
        annotation: the section's class, or the annotation of a field.
    """
    kinds = members(annotation)
    if isinstance(value, Mapping) and isinstance(written, Mapping):
        found = {str(key): item for key, item in written.items()}
        return {key: with_texts(item, found.get(str(key)), below(kinds, key)) for key, item in value.items()}
    if isinstance(value, list) and isinstance(written, list) and len(value) == len(written):
        item_kind = next((get_args(kind)[0] for kind in kinds if get_origin(kind) in (tuple, list)), Any)
        return [with_texts(item, text, item_kind) for item, text in zip(value, written, strict=True)]
    if value is None or not isinstance(written, str):
        return value
    choices = [choice for kind in kinds if get_origin(kind) is Literal for choice in get_args(kind)]
    return written if takes_text(kinds) or written in choices else value


def members(annotation: Any) -> list[Any]:
    """Return the kinds of value that an annotation allows, None left out: [Path] for `Path | None`."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return members(get_args(annotation)[0])
    if origin in (Union, UnionType):
        return [kind for option in get_args(annotation) for kind in members(option)]
    return [] if annotation is type(None) else [annotation]


def takes_text(kinds: list[Any]) -> bool:
    """Return whether all of some kinds of value are text."""
    return bool(kinds) and all(kind is str or takes_path([kind]) for kind in kinds)


def takes_path(kinds: list[Any]) -> bool:
    """Return whether all of some kinds of value are paths."""
    return bool(kinds) and all(isinstance(kind, type) and issubclass(kind, PurePath) for kind in kinds)


def field_kinds(section: type[BaseModel] | None, keys: list[str]) -> list[Any]:
    """Return the kinds of value that the field at `keys` of a section takes; none for an unknown field."""
    kinds: list[Any] = [section] if section is not None else []
    for key in keys:
        kinds = members(below(kinds, key))
    return kinds


def below(kinds: list[Any], key: Any) -> Any:
    """Return the annotation of what lies under a key of a section or mapping; Any where nothing is known of it."""
    for kind in kinds:
        if isinstance(kind, type) and issubclass(kind, BaseModel) and key in kind.model_fields:
            return kind.model_fields[key].annotation
        if get_origin(kind) is dict:
            return get_args(kind)[1]
    return Any
