"""The arms of a comparison, the run of each cell, and their names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from specreg import modalities
from specreg.config import ArmName, Config, ConfigError, Section, SpectralConfig, parse

BASELINE = "none"
"""Name of the arm without a spectral term."""

CALIBRATED = "calibrated"
"""Name of the baseline's networks with their own gain applied, which takes no training: what a term must beat."""


class _Arms(Section):
    arms: dict[ArmName, SpectralConfig]


def resolve_arms(config: Config, names: Sequence[str]) -> dict[str, SpectralConfig | None]:
    """Return arms by name: "none", an arm that the config defines, or a loss; with "@λ", "@auto" or "@auto:RATIO".

    "calibrated" is the baseline with its own gain (see `specreg.calibrated`), which is not trained.
    A loss name takes everything but its options from the config's spectral section, and those too when the
    section is about the same loss.
    """
    for kept, meaning in ((BASELINE, "MSE alone"), (CALIBRATED, "the calibrated baseline")):
        if config.arms.get(kept) is not None:
            raise ConfigError(f"arms.{kept}: this name means {meaning}; expected another for an arm with a term")
    arms: dict[str, SpectralConfig | None] = {BASELINE: None}
    for name in names:
        name = re.sub(r"(?<=,)\s+", "", name.strip())  # between options in parentheses
        base, at, weight = name.partition("@")
        if name == BASELINE:
            continue
        if name == CALIBRATED:
            if not modalities.of(config).calibrates:
                raise ConfigError(f"arm {name!r}: networks of data.kind {config.data.kind} cannot be calibrated")
            arms[name] = None
            continue
        if name in config.arms:
            arms[name] = config.arms[name]
            continue
        if base == BASELINE:
            raise ConfigError(f"arm {name!r}: the baseline has no λ to set")
        if base in config.arms:
            arm = config.arms[base]
        else:
            section = (config.spectral or SpectralConfig()).model_dump()
            options = section["options"] if section["name"] == base else {}
            arm = _spectral({**section, "name": base, "options": options}, name)
        if at:
            if arm is None:
                raise ConfigError(f"arm {name!r}: the baseline has no λ to set")
            arm = _spectral({**arm.model_dump(), **_lambda(weight, name)}, name)
        arms[name] = arm
    if len(arms) < 2:
        raise ConfigError(f"expected at least one arm beside {BASELINE!r}; got {', '.join(names) or 'none'}")
    return arms


def _lambda(text: str, name: str) -> dict[str, Any]:
    """Return what the text after the @ of an arm sets: a number, auto, or auto:RATIO."""
    policy, colon, ratio = text.partition(":")
    try:
        if policy == "auto":
            return {"weight": "auto", **({"ratio": float(ratio)} if colon else {})}
        return {"weight": float(text)}
    except ValueError:
        raise ConfigError(f"arm {name!r}: expected a number after @ (or auto, or auto:RATIO); got {text!r}") from None


def _spectral(values: Mapping[str, Any], name: str) -> SpectralConfig:
    return parse({"arms": {name: dict(values)}}, _Arms, where=f"arm {name!r}").arms[name]


def with_yardstick(config: Config, arms: Mapping[str, SpectralConfig | None]) -> dict[str, SpectralConfig | None]:
    """Return arms with the calibrated baseline after the baseline, where the networks can be calibrated."""
    first = {BASELINE: None, CALIBRATED: None} if modalities.of(config).calibrates else {BASELINE: None}
    return {**first, **arms}


def label(spectral: SpectralConfig | None, arm: str = BASELINE) -> str:
    """Return an arm in a few words; its name matters only where it has no term."""
    if arm == CALIBRATED:
        return "baseline × its own gain (no training)"
    if spectral is None:
        return "baseline (no term)"
    said = [str(value) if isinstance(value, str) else f"{key} {value}" for key, value in spectral.options.items()]
    options = f" ({', '.join(said)})" if said else ""
    lam = f"auto ({spectral.ratio:g})" if spectral.weight == "auto" else f"{spectral.weight:g}"
    weights = [
        _with_options(name, options)
        for name, options in (
            (spectral.noise_weight, spectral.noise_options),
            (spectral.band_weight, spectral.band_options),
        )
        if name not in (None, "constant")
    ]
    ramp = [f"{spectral.ramp} warm-up {spectral.warmup}"] if spectral.warmup else []
    ramp += [f"cooldown {spectral.cooldown:g}"] if spectral.cooldown else []
    return ", ".join([f"{spectral.name}{options}", f"λ {lam}", *weights, *ramp])


def _with_options(name: str | None, options: Mapping[str, float]) -> str:
    said = ", ".join(f"{key} {value:g}" for key, value in options.items())
    return f"{name} ({said})" if said else str(name)


def cell_name(arm: str, seed: int) -> str:
    """Return the name of a cell's run and folder."""
    return f"{folder_name(arm)}-seed{seed}"


def folder_name(arm: str) -> str:
    """Return the name of an arm in characters that shells and file systems take as they stand."""
    return re.sub(r"[^A-Za-z0-9._@+-]+", "_", arm)


def cell_config(config: Config, arm: str, seed: int) -> Config:
    """Return the run of a cell: the comparison's config with the arm's term and the seed, which has its own latents."""
    first = config.sampling.seed + (seed - config.seed) * config.sampling.count
    return config.model_copy(
        update={
            "name": cell_name(arm, seed),
            "seed": seed,
            "spectral": config.arms[arm],
            "arms": {},
            "sampling": config.sampling.model_copy(update={"seed": first}),
        }
    )
