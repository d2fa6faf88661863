"""YAML as configs are written in it: numbers as people write them, and texts as they stand.

PyYAML follows YAML 1.1, where 1e4 is a text, 010 is eight and 1:30 is ninety; here the first is a number (YAML 1.2),
the second ten and the third a text. What a field takes as text or path is never read as a number, a date or a boolean.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePath
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel

_INT = re.compile(r"(?:[-+]?[0-9][0-9_]*|0o[0-7]+|0x[0-9a-fA-F]+)\Z")
_FLOAT = re.compile(
    r"(?:[-+]?(?:(?:[0-9][0-9_]*(?:\.[0-9_]*)?|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?|\.(?:inf|Inf|INF))"
    r"|\.(?:nan|NaN|NAN))\Z"
)
_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")


def _resolvers(inherited: Mapping[str, list[tuple[str, Any]]]) -> dict[str, list[tuple[str, Any]]]:
    """Return PyYAML's rules for plain scalars, by first character, with numbers as the module says."""
    rules = {first: [rule for rule in found if rule[0] not in _NUMBERS] for first, found in inherited.items()}
    for first in "-+.0123456789":
        rules[first] = [*zip(_NUMBERS, (_INT, _FLOAT), strict=True), *rules.get(first, [])]
    return rules


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers = _resolvers(yaml.SafeLoader.yaml_implicit_resolvers)

    def construct_yaml_int(self, node: Any) -> int:
        text = self.construct_scalar(node).replace("_", "")
        return int(text, 0) if text[:2] in ("0o", "0x") else int(text)


_Loader.add_constructor(_NUMBERS[0], _Loader.construct_yaml_int)


class _Dumper(yaml.SafeDumper):
    yaml_implicit_resolvers = _resolvers(yaml.SafeDumper.yaml_implicit_resolvers)


def load(text: str | bytes) -> Any:
    """Return the value of a YAML document; raises yaml.YAMLError."""
    return yaml.load(text, _Loader)


def load_as_written(text: str | bytes) -> Any:
    """Return the same tree with every scalar as the text that stands there; raises yaml.YAMLError."""
    return yaml.load(text, yaml.BaseLoader)


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
