"""Which modality serves which `data.kind`: the only place that knows all of them."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from specreg import _checks
from specreg._memory import TooLarge, refuse_beyond
from specreg.config import Config, ConfigError, read_yaml, with_overrides
from specreg.config import parse as validate
from specreg.config.yaml_text import with_texts
from specreg.modalities.protocol import Modality

KINDS: dict[str, str | Modality] = {
    "checkerboard": "specreg.modalities.images",
    "dead_leaves": "specreg.modalities.images",
    "images": "specreg.modalities.images",
    "fields": "specreg.modalities.fields",
    "audio": "specreg.modalities.sound",
}
"""By `data.kind`, the modality, or the module that has it as `MODALITY`: modules are imported when first asked for."""

DEFAULT_KIND = "checkerboard"


def register(kind: str, modality: Modality) -> None:
    """Make a modality known under a `data.kind`; raises ValueError where the kind is taken by another."""
    if KINDS.setdefault(kind, modality) is not modality:
        raise ValueError(f"data.kind {kind!r} is taken; choose another name")


def find(kind: str) -> Modality:
    """Return the modality of a `data.kind`; raises ValueError for an unknown one."""
    found = KINDS[_checks.choice("data.kind", kind, KINDS)]
    if isinstance(found, str):
        modality: Modality = importlib.import_module(found).MODALITY
        return modality
    return found


def of(config: Config) -> Modality:
    """Return the modality of a run."""
    return find(config.data.kind)


def parse(
    values: Mapping[str, Any], overrides: Sequence[str] = (), *, where: str = "config", written: Any = None
) -> Config:
    """Build a run's config from nested values and `section.key=value` overrides, see `specreg.config.with_overrides`.

    `data.kind` decides which modality's config it is; without it, a run is about checkerboards. `written` is the text
    of the values where they come from a file. Raises ConfigError with one sentence for each bad field: where it is,
    what was expected, what came.
    """
    tree = with_overrides(values, [o for o in overrides if o.partition("=")[0] in ("data", "data.kind")])
    data = tree.get("data", {})
    kind = data.get("kind", DEFAULT_KIND) if isinstance(data, dict) else DEFAULT_KIND
    if not isinstance(kind, str):
        raise ConfigError(f"{where}: data.kind must be one of {', '.join(KINDS)}; got {kind!r}")
    try:
        config = find(kind).config
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from None
    tree = with_overrides(with_texts(values, written, config), overrides, config)
    return validate(tree, config, where=where)


def refuse_too_large(config: Config, *, processes: int | None = None) -> None:
    """Raise ConfigError where a run needs more memory than there is; without `processes`, where drawing samples does.

    Nothing is built for it.
    """
    try:
        refuse_beyond(of(config).needs(config, processes=processes))
    except TooLarge as error:
        raise ConfigError(str(error)) from None


def load(path: Path, overrides: Sequence[str] = ()) -> Config:
    """Read a run's config from a YAML file, as `parse` does."""
    values, written = read_yaml(path)
    return parse(values, overrides, where=str(path), written=written)
