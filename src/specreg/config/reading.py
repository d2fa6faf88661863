"""Reading a config from a tree of values, a YAML file and `section.key=value` overrides; writing it as YAML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from specreg import _checks
from specreg.config.sections import Config, ConfigError, Section

S = TypeVar("S", bound=Section)


def with_overrides(values: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Return a copy of the tree `values` with `section.key=value` overrides applied; their values are YAML.

    Raises ConfigError for an override that is not of this form.
    """
    tree = _copy(values)
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals:
            raise ConfigError(f"expected key=value, such as training.steps=500; got {override!r}")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"{key}: {text!r} is not a YAML value: {error}") from None
        _assign(tree, key.split("."), value)
    return tree


def parse(tree: Mapping[str, Any], section: type[S], *, where: str = "config") -> S:
    """Validate a tree of values as a section, such as a whole `Config`.

    Raises ConfigError with one sentence for each bad field: where it is, what was expected, what came.
    """
    try:
        return section.model_validate(tree)
    except ValidationError as error:
        raise ConfigError("\n".join(_sentence(where, section, problem) for problem in error.errors())) from None


def read_yaml(path: Path) -> dict[str, Any]:
    """Read the tree of values that a YAML file holds; raises ConfigError, naming the file, for anything else."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: is not YAML: {error}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected a mapping of sections; got {type(values).__name__}")
    return values


def dump(config: Config) -> str:
    """Return a config as YAML, every field shown."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _copy(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _copy(value) if isinstance(value, Mapping) else value for key, value in values.items()}


def _assign(tree: dict[str, Any], keys: list[str], value: Any) -> None:
    for key in keys[:-1]:
        if not isinstance(tree.get(key), dict):
            tree[key] = {}
        tree = tree[key]
    tree[keys[-1]] = value


def _sentence(where: str, section: type[Section], problem: Any) -> str:
    location = [str(part) for part in problem["loc"]]
    field = ".".join(location)
    if problem["type"] == "extra_forbidden":
        known = list(_section(section, location[:-1]).model_fields)
        return f"{where}: no such key {field!r}{_checks.nearest(location[-1], known)}; known: {', '.join(known)}"
    message = problem["msg"].removeprefix("Value error, ")
    if not location or "; got " in message:
        return f"{where}: {field}{': ' if field else ''}{message}"
    return f"{where}: {field}: {message[0].lower() + message[1:]}; got {problem['input']!r}"


def _section(section: type[BaseModel], location: Sequence[str]) -> type[BaseModel]:
    """Return the class of the section at `location`; names of arms count as one step."""
    for name in location:
        field = section.model_fields.get(name)
        if field is None:  # the name of an arm: its class is already found
            continue
        section = next(kind for kind in _classes(field.annotation) if issubclass(kind, BaseModel))
    return section


def _classes(annotation: Any) -> list[type]:
    """Return the classes that an annotation such as `dict[str, Section | None]` names."""
    if isinstance(annotation, type) and not get_args(annotation):
        return [annotation]
    return [found for argument in get_args(annotation) for found in _classes(argument)]
