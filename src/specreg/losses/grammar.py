"""The names of losses: TRANSFORM:COMPARISON, each with options in parentheses, such as "fft:log_power".

    "fft:amplitude"    "dct:log_power"    "sht:amse"    "swt(db4):l1"    "patches(16, window=hann):focal(log=true)"

The first option may stand without its name. Options may be given apart from the name too, to either part.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, NamedTuple

from specreg import _checks
from specreg.losses.band_comparisons import AMSE, BinnedPower, LogPower
from specreg.losses.coefficients import Transform
from specreg.losses.compared import Compared
from specreg.losses.comparisons import AmplitudeAndPhase, AmplitudeL1, CoefficientL1, Comparison, Focal
from specreg.losses.modules import Amplitude, AmplitudePhase, SpectralLoss, Wavelet
from specreg.losses.spectra import Cosine, Fourier, Patches, ShortTime, Sphere
from specreg.losses.subbands import Decimated, Stationary

TRANSFORMS: dict[str, type[Transform]] = {
    kind.name: kind for kind in (Fourier, Cosine, Patches, ShortTime, Sphere, Decimated, Stationary)
}
COMPARISONS: dict[str, type[Comparison]] = {
    kind.name: kind for kind in (AmplitudeL1, AmplitudeAndPhase, CoefficientL1, LogPower, AMSE, BinnedPower, Focal)
}
FAST: dict[tuple[str, str], type[SpectralLoss]] = {
    ("fft", "amplitude"): Amplitude,
    ("fft", "amplitude_phase"): AmplitudePhase,
    ("dwt", "l1"): Wavelet,
}
"""The paper's losses have faster implementations, which are taken wherever they have the options."""
COMMON = ("ndim", "layout", "reduction", "weights", "frequency_weights")
SQUARES = ("l2", "mse", "squared", "squared_error")

_PART = re.compile(r"([A-Za-z][A-Za-z0-9_]*)\s*(?:\((.*)\))?")


class Part(NamedTuple):
    """A transform or a comparison as it is written."""

    name: str
    options: dict[str, Any]


def is_written(name: str) -> bool:
    """Return whether a name is of this grammar, and not a short one such as "haar" or "wavelet:db4"."""
    return len(_checks.pieces(name, ":")) > 1 and not name.startswith("wavelet:")


def build(name: str, **options: Any) -> SpectralLoss:
    """Return the loss of a name of this grammar, with options apart from it.

    Raises:
        ValueError: for unknown names, options and combinations, naming the nearest known one.
    """
    first, *rest = _checks.pieces(name, ":")
    if len(rest) != 1:
        raise ValueError(f'a loss is written TRANSFORM:COMPARISON, such as "fft:log_power"; got {name!r}')
    transform = _part(first, TRANSFORMS, "transform", name)
    compared = rest[0].partition("(")[0].strip()
    if compared in SQUARES:
        raise ValueError(
            "by Parseval a squared error on orthonormal coefficients is the squared error of the samples, so it adds "
            f"nothing to the base loss; got {name!r}: take l1, or focal for weighted squares"
        )
    comparison = _part(rest[0], COMPARISONS, "comparison", name)
    fast = FAST.get((transform.name, comparison.name))
    if fast is not None:
        given = {**transform.options, **comparison.options, **options}
        if set(given) <= set(_options(fast)):
            return fast(**given)
    common: dict[str, Any] = {}
    for option, value in options.items():
        homes = [
            part.options
            for part, kinds in ((transform, TRANSFORMS), (comparison, COMPARISONS))
            if option in _options(kinds[part.name])
        ]
        if option in COMMON:
            homes.append(common)
        if not homes:
            known = [
                *_options(TRANSFORMS[transform.name]),
                *_options(COMPARISONS[comparison.name]),
                *COMMON,
                *([name for name in _options(fast) if name not in COMMON] if fast else []),
            ]
            raise ValueError(
                f"loss {name!r} has no option {option!r}{_checks.nearest(option, known)}; "
                f"it has {', '.join(dict.fromkeys(known))}"
            )
        for home in homes:
            home[option] = value
    return Compared(_made(TRANSFORMS, transform), _made(COMPARISONS, comparison), **common)


def _options(kind: type) -> list[str]:
    if issubclass(kind, SpectralLoss):
        import inspect

        return list(inspect.signature(kind).parameters)
    return [field.name for field in fields(kind)]  # type: ignore[arg-type]


def _made(kinds: Mapping[str, type], part: Part) -> Any:
    options = {key: tuple(value) if isinstance(value, list) else value for key, value in part.options.items()}
    return kinds[part.name](**options)


def _part(text: str, kinds: Mapping[str, type], what: str, whole: str) -> Part:
    """Return a transform or comparison with the options that stand in its parentheses."""
    match = _PART.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"expected a {what} such as {next(iter(kinds))}(option=value); got {text!r} in {whole!r}")
    name, inside = match[1], match[2]
    if name not in kinds:
        hint = _checks.nearest(name, kinds)
        raise ValueError(f"{what} must be one of {', '.join(kinds)}; got {name!r} in {whole!r}{hint}")
    defaults = {field.name: field.default for field in fields(kinds[name])}
    known = list(defaults)
    options: dict[str, Any] = {}
    positional: list[Any] = []
    for piece in _checks.pieces(inside or "", ","):
        if not piece.strip():
            continue
        key, equals, value = piece.partition("=")
        if not equals:
            positional.append(_value(key, defaults[known[0]] if known else None))
            continue
        if (key := key.strip()) not in known:
            raise ValueError(
                f"{name!r} has no option {key!r}{_checks.nearest(key, known)}; it has {', '.join(known) or 'none'}"
            )
        options[key] = _value(value, defaults[key])
    if positional:
        if not known or known[0] in options or (len(positional) > 1 and known[0] != "sizes"):
            raise ValueError(f"{name!r} takes one option without a name at most; got {inside!r} in {whole!r}")
        options[known[0]] = tuple(positional) if known[0] == "sizes" else positional[0]
    return Part(name, options)


def _value(text: str, default: Any) -> Any:
    """Return a number, true, false, null or text; "none" is text where an option's default is that."""
    text = text.strip()
    if text == default:
        return text
    words = {"true": True, "false": False, "none": None, "null": None}
    if text.lower() in words:
        return words[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
