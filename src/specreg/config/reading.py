"""Reading a config from a tree of values, a YAML file and `section.key=value` overrides; writing it as YAML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from specreg import _checks
from specreg._files import read_regular
from specreg.config import yaml_text
from specreg.config.sections import Config, ConfigError, Section

S = TypeVar("S", bound=Section)


def with_overrides(
    values: Mapping[str, Any], overrides: Sequence[str], section: type[Section] | None = None
) -> dict[str, Any]:
    """Return a copy of the tree `values` with `section.key=value` overrides applied.

    Values are YAML, except where `section`, the class of the config, says that a field takes a path or text: those are
    taken as they stand (text may be quoted), and null or nothing means no value where a path may be absent. Raises
    ConfigError for an override that is not of this form.
    """
    tree = _copy(values)
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals:
            raise ConfigError(f"expected key=value, such as training.steps=500; got {_checks.quoted(override)}")
        _assign(tree, key.split("."), _value(key, text, section))
    return tree


def _value(key: str, text: str, section: type[Section] | None) -> Any:
    """Return the value of an override."""
    kinds = yaml_text.field_kinds(section, key.split("."))
    if yaml_text.takes_text(kinds):
        optional = section is not None and _may_be_none(section, key.split("."))
        if optional and text in ("null", ""):
            return None
        if yaml_text.takes_path(kinds) or text[:1] not in ("'", '"'):
            return text
    try:
        value, written = yaml_text.load(text), yaml_text.load_as_written(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{key}: {_checks.quoted(text)} is not a YAML value: {yaml_text.fault(error)}") from None
    return yaml_text.with_texts(value, written, Union[tuple(kinds)] if kinds else Any)  # noqa: UP007


def _may_be_none(section: type[Section], keys: Sequence[str]) -> bool:
    field = _section(section, keys[:-1]).model_fields.get(keys[-1])
    return field is not None and type(None) in get_args(field.annotation)


def parse(tree: Mapping[str, Any], section: type[S], *, where: str = "config") -> S:
    """Validate a tree of values as a section, such as a whole `Config`.

    Raises ConfigError with one sentence for each bad field: where it is, what was expected, what came.
    """
    try:
        return section.model_validate(tree)
    except ValidationError as error:
        raise ConfigError("\n".join(_sentences(where, section, error.errors()))) from None


MOST_SENTENCES = 10
"""Bad fields that are named; a list of numbers may have thousands."""


class YamlFile(NamedTuple):
    """The tree of values in a YAML file, and the same tree with every scalar as it is written."""

    values: dict[str, Any]
    written: Any


def read_yaml(path: Path) -> YamlFile:
    """Read a YAML file that holds a tree of values; raises ConfigError, naming the file, for anything else."""
    try:
        # UTF-8, or UTF-16 with its mark, as PowerShell writes it
        content = read_regular(path, most=yaml_text.MOST_BYTES)
        values, written = yaml_text.load(content), yaml_text.load_as_written(content)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: is not YAML: {yaml_text.fault(error)}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected a mapping of sections; got {type(values).__name__}")
    return YamlFile(values, written)


def dump(config: Config, *, ascii_only: bool = False) -> str:
    """Return a config as YAML, every field shown; `ascii_only` escapes all other characters."""
    return yaml_text.dump(config.model_dump(mode="json"), ascii_only=ascii_only)


def _copy(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _copy(value) if isinstance(value, Mapping) else value for key, value in values.items()}


def _assign(tree: dict[str, Any], keys: list[str], value: Any) -> None:
    for key in keys[:-1]:
        if not isinstance(tree.get(key), dict):
            tree[key] = {}
        tree = tree[key]
    tree[keys[-1]] = value


def _sentences(where: str, section: type[Section], problems: Sequence[Any]) -> list[str]:
    """Return one sentence for each field: pydantic has a problem for each kind of value that a field may hold."""
    by_field: dict[tuple[str, ...], list[Any]] = {}
    for problem in problems:
        by_field.setdefault(_location(section, problem["loc"]), []).append(problem)
    sentences = [_sentence(where, section, *one) for one in islice(by_field.items(), MOST_SENTENCES)]
    more = len(by_field) - len(sentences)
    rest = f"{where}: {more} more {'field is' if more == 1 else 'fields are'} wrong"
    return [*sentences, rest] if more else sentences


def _location(section: type[Section], parts: Sequence[Any]) -> tuple[str, ...]:
    """Return where a problem is, without the kind of value that pydantic puts after a field that has several."""
    kinds: list[Any] = [section]
    kept = []
    for part in parts:
        sections = any(isinstance(kind, type) and issubclass(kind, BaseModel) for kind in kinds)
        if len(kinds) > 1 and not sections:
            kinds = []  # the choice is made: what follows are indices and keys
            continue
        kept.append(str(part))
        kinds = yaml_text.members(yaml_text.below(kinds, part))
    return tuple(kept)


def _sentence(where: str, section: type[Section], location: Sequence[str], problems: Sequence[Any]) -> str:
    field, problem = ".".join(location), problems[0]
    if problem["type"] == "extra_forbidden":
        known = list(_section(section, location[:-1]).model_fields)
        return f"{where}: no such key {field!r}{_checks.nearest(location[-1], known)}; known: {', '.join(known)}"
    messages = [_PLAIN.get(each["type"], each["msg"].removeprefix("Value error, ")) for each in problems]
    if not location or "; got " in messages[0]:
        return f"{where}: {field}{': ' if field else ''}{messages[0]}"
    said = ", or ".join(dict.fromkeys(message[0].lower() + message[1:] for message in messages))
    return f"{where}: {field}: {said}; got {_checks.quoted(problem['input'])}"


_PLAIN = {
    "model_type": "input should be a section of keys with values",
    "dict_type": "input should be keys with values",
    "tuple_type": "input should be a list",
}
"""Sentences for pydantic's, which speak of Python."""


def _section(section: type[BaseModel], location: Sequence[str]) -> type[BaseModel]:
    """Return the class of the section at `location`, in which a field of named sections, as arms are, is two steps."""
    steps = iter(location)
    for name in steps:
        annotation = section.model_fields[name].annotation
        section = next(kind for kind in _classes(annotation) if issubclass(kind, BaseModel))
        if get_origin(annotation) is dict:
            next(steps, None)
    return section


def _classes(annotation: Any) -> list[type]:
    """Return the classes that an annotation such as `dict[str, Section | None]` names."""
    if isinstance(annotation, type) and not get_args(annotation):
        return [annotation]
    return [found for argument in get_args(annotation) for found in _classes(argument)]
