"""Values of a config as they are meant: what pydantic would turn into a number, and text that cannot be written."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel

from specreg import _checks
from specreg.config import yaml_text


def check(value: Any, kinds: list[Any]) -> None:
    """Raise ValueError for true and '1' where a number is meant, 1 and 'yes' for true, and text that no file can hold.

    `kinds` are the kinds of value that the field takes (see `yaml_text.field_kinds`); lists and keys with values are
    looked through, except for sections, which check their own fields.
    """
    if any(isinstance(kind, type) and issubclass(kind, BaseModel) for kind in kinds):
        return
    if isinstance(value, str):
        check_text(value)
    if isinstance(value, (list, tuple)):
        inner = next((get_args(kind)[0] for kind in kinds if get_origin(kind) in (tuple, list)), Any)
        for item in value:
            check(item, yaml_text.members(inner))
    elif isinstance(value, Mapping):
        for key, item in value.items():
            check(key, [str])
            check(item, yaml_text.members(yaml_text.below(kinds, key)))
    elif bool not in kinds and any(kind in (int, float) for kind in (*kinds, *map(type, _choices(kinds)))):
        if isinstance(value, bool):
            raise ValueError(f"input should be a number; got {_checks.quoted(value)}")
        if _reads_as_number(value) and value not in _choices(kinds):
            raise ValueError(f"input should be a valid number, not text; got {_checks.quoted(value)}")
    elif bool in kinds and not isinstance(value, bool):
        raise ValueError(f"input should be true or false; got {_checks.quoted(value)}")


def check_text(text: str) -> None:
    """Raise ValueError for text with half of a surrogate pair: what bytes that are not UTF-8 become, for example."""
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise ValueError(f"input should be text in UTF-8; got {text!a}")


def check_path(path: str) -> None:
    """Raise ValueError for what no file can be called. Bytes that are not UTF-8 may be in a name."""
    try:
        fits = b"\0" not in os.fsencode(path)
    except UnicodeEncodeError:
        fits = False
    if not fits:
        raise ValueError(f"input should be a path; got {path!a}")


def check_finite(value: Any) -> None:
    """Raise ValueError for a number in a tree of plain values that is infinite, NaN, or too large for a float."""
    for item in value.values() if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else ():
        check_finite(item)
    if isinstance(value, (int, float)) and not -_LARGEST <= value <= _LARGEST:
        raise ValueError(f"expected finite numbers; got {_checks.quoted(value)}")


_LARGEST = math.ldexp(1.0, 1000)


def _choices(kinds: list[Any]) -> list[Any]:
    return [choice for kind in kinds if get_origin(kind) is Literal for choice in get_args(kind)]


def _reads_as_number(value: Any) -> bool:
    if not isinstance(value, str):
        return False
    try:
        float(value)
    except ValueError:
        return False
    return True
