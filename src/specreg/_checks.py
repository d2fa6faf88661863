"""Checks that all of specreg shares: choices, shapes, broadcasting. An error names the expected and the given value."""

from __future__ import annotations

import difflib
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import fields
from pathlib import PurePath
from typing import Any, NamedTuple

import torch
from torch import Tensor

from specreg._compile import traced_as_constant

SEEDS = 2**63
"""Seeds are below it: where numbers are signed, larger ones would overflow, or coincide as floats."""


def seed(value: int) -> int:
    """Return a seed; raises ValueError where it is negative or beyond 63 bits."""
    if not 0 <= value < SEEDS:
        raise ValueError(f"a seed must be a whole number from 0 to 2^63 - 1; got {quoted(value)}")
    return value


def choice(name: str, value: str, options: Iterable[str]) -> str:
    """Return `value` if it is one of `options`, else raise a ValueError that names them and the nearest one."""
    options = tuple(options)
    if value in options:
        return value
    raise ValueError(f"{name} must be one of {', '.join(options)}; got {value!r}{nearest(value, options)}")


def nearest(value: object, options: Iterable[str]) -> str:
    """Return the sentence " (did you mean 'x'?)" for the closest option, or nothing when none is close."""
    close = difflib.get_close_matches(str(value), list(options), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def quoted(value: object) -> str:
    """Return a value of the user for a message: text and paths in quotes as they stand, without escapes."""
    return f"'{value}'" if isinstance(value, (str, PurePath)) else repr(value)


def shown(value: object, most: int = 80) -> str:
    """Return a value from an untrusted file in a few characters: plain values as they are, others by their type.

    Containers are not printed: the text of lists that share items can grow exponentially.
    """
    if value is None or isinstance(value, (bool, float)) or (isinstance(value, int) and abs(value) < 10**30):
        return repr(value)
    if isinstance(value, (str, bytes)):
        return repr(value[:most]) + ("…" if len(value) > most else "")
    if isinstance(value, int):
        return f"an integer of {value.bit_length()} bits"
    return f"a {type(value).__name__}"


def few(values: Tensor, most: int = 3) -> str:
    """Return the first values of a `[B]` tensor for a message, three digits each."""
    listed = ", ".join(f"{value:.3g}" for value in values[:most].tolist())
    return f"[{listed}{', …' if len(values) > most else ''}]"


def build(kind: str, classes: Mapping[str, type], name: str, options: Mapping[str, Any]) -> Any:
    """Return an instance of the dataclass `classes[name]`; errors name the nearest known name or option."""
    chosen: Any = classes[choice(kind, name, classes)]
    known = [field.name for field in fields(chosen)]
    for option in options:
        if option not in known:
            raise ValueError(
                f"{kind} {name!r} has no option {option!r}{nearest(option, known)}; it has {', '.join(known) or 'none'}"
            )
    return chosen(**options)


def pieces(text: str, separator: str) -> list[str]:
    """Return the pieces of a text between separators that are not inside parentheses."""
    found, depth = [""], 0
    for letter in text:
        depth += (letter == "(") - (letter == ")")
        if letter == separator and depth == 0:
            found.append("")
        else:
            found[-1] += letter
    return found


def append_dims(x: Tensor, ndim: int) -> Tensor:
    """Return a view of per-sample scalars `[B]` (or `[1]`, or `[]`) as `[B, 1, …, 1]` with `ndim` axes in all.

    All per-sample values are broadcast by this function, so that a batch of B samples of width W = B is never scaled
    along the wrong axis.
    """
    if x.ndim > 1:
        raise ValueError(f"expected one value per sample, shape [B]; got {list(x.shape)}")
    return x.reshape(-1, *(1,) * (ndim - 1))


_WARNED: set[str] = set()
_OURS = (__name__.partition(".")[0], "torch")


def warn_once(topic: str, message: str) -> None:
    """Issue a UserWarning about `topic` once a process, attributed to the caller's code outside specreg and torch."""
    if topic in _WARNED:
        return
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in _OURS:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, UserWarning, stacklevel=level)
    _WARNED.add(topic)


def warn(message: str) -> None:
    """Issue a UserWarning once a process."""
    warn_once(message, message)


def compute_dtype(name: str, x: Tensor) -> torch.dtype:
    """Return the dtype that spectral work runs in: float64 for float64 input, float32 for other floats."""
    if not x.is_floating_point():
        raise TypeError(f"{name} must be a real floating-point tensor; got {x.dtype}")
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def alike(**tensors: object) -> None:
    """Raise unless the given tensors are floats of one shape on one device; None is left out, names are for messages.

    Raises:
        TypeError: for anything but real floating-point tensors.
        ValueError: for another shape or device than the first one's.
    """
    first: tuple[str, Tensor] | None = None
    for name, x in tensors.items():
        if x is None:
            continue
        if not isinstance(x, Tensor):
            inside = "; pass its .sample, the tensor" if isinstance(getattr(x, "sample", None), Tensor) else ""
            raise TypeError(f"{name} must be a torch.Tensor; got {type(x).__name__}{inside}")
        compute_dtype(name, x)
        if first is None:
            first = name, x
        elif x.shape != first[1].shape:
            raise ValueError(
                f"{first[0]} and {name} must have the same shape; got {list(first[1].shape)} and {list(x.shape)}"
            )
        elif x.device != first[1].device:
            raise ValueError(f"{first[0]} and {name} must be on one device; got {first[1].device} and {x.device}")


def can_read(values: Tensor) -> bool:
    """Return whether a check may read values: not on an accelerator, where it would wait, nor in a traced graph."""
    return values.device.type == "cpu" and not torch.compiler.is_compiling()


def widest_dtype(device: torch.device | str) -> torch.dtype:
    """Return float64, or float32 for a device that has no float64 (Apple's MPS)."""
    return torch.float32 if torch.device(device).type == "mps" else torch.float64


def in_float64(x: Tensor) -> Tensor:
    """Return `x` in float64, for results that need its precision: on its device, or on the CPU where that has none."""
    return x.double() if widest_dtype(x.device) == torch.float64 else x.cpu().double()


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """Return a context without autocast, also for devices that autocast does not support."""
    if _autocasts(device.type) and torch.is_autocast_enabled(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()


@traced_as_constant  # torch 2.4 cannot trace the question
def _autocasts(device_type: str) -> bool:
    return torch.amp.is_autocast_available(device_type)


def dimensions(ndim: int | None) -> int | None:
    """Return `ndim`, the number of trailing axes to transform; a ValueError where it can be none."""
    if ndim is not None and (type(ndim) is not int or not 1 <= ndim <= 3):
        raise ValueError(f"ndim must be 1, 2 or 3, or None for all spatial axes; got {ndim!r}")
    return ndim


SPACE = "tldhw"
"""Letters of a layout that stand for axes to transform: time, length, depth, height, width."""


def layout_letters(layout: str) -> str:
    """Return `layout` if it is one: `b`, at most one `c`, and one to three of `SPACE`, each once, in any order."""
    if not isinstance(layout, str):
        raise ValueError(f'layout must be a string, such as "btchw" or "blc", or None; got {layout!r}')
    space = [letter for letter in layout if letter in SPACE]
    known = set(layout) <= {"b", "c", *SPACE} and len(set(layout)) == len(layout)
    if not known or "b" not in layout or not 1 <= len(space) <= 3:
        raise ValueError(
            f"layout must name each axis by a letter: b for batch, c for channels, one to three of {', '.join(SPACE)} "
            f'for space and time, such as "btchw" or "blc"; got {layout!r}'
        )
    return layout


def arrange(name: str, x: Tensor, layout: str) -> Tensor:
    """Return `x` as `[B, C, *space]`, a view, where `layout` names the axes of `x`; spatial axes keep their order."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor; got {type(x).__name__}")
    if x.ndim != len(layout_letters(layout)):
        raise ValueError(f"layout {layout!r} names {len(layout)} axes; {name} has {x.ndim}: {list(x.shape)}")
    order = [layout.index(letter) for letter in "bc" if letter in layout]
    order += [axis for axis, letter in enumerate(layout) if letter in SPACE]
    x = x.permute(order)
    return x if "c" in layout else x.unsqueeze(1)


def image_like(name: str, x: Tensor, ndim: int | None, layout: str | None = None) -> tuple[Tensor, int]:
    """Return `x` as `[B, C, *space]` and the number of trailing axes to transform.

    Shapes: `[B, T]` is read as `[B, 1, T]`; otherwise `[B, C, *space]` with one to three spatial axes. A `layout`
    names the axes of any other order, see `arrange`. `ndim` asks for fewer than all spatial axes, counted from the
    last one: 2 for every frame of a video on its own. Shapes that look like another order warn once.
    """
    if layout is not None:
        x = arrange(name, x, layout)
    if not isinstance(x, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor; got {type(x).__name__}")
    if not 2 <= x.ndim <= 5:
        raise ValueError(f"{name} must be [B, T] or [B, C, *space] with 1 to 3 spatial axes; got {list(x.shape)}")
    if x.numel() == 0:
        raise ValueError(f"{name} is empty: shape {list(x.shape)}")
    if layout is None and ndim is None and not torch.compiler.is_compiling():
        _warn_about_order(name, x.shape)
    x = x.unsqueeze(1) if x.ndim == 2 else x
    space = x.ndim - 2
    ndim = space if ndim is None else ndim
    if not 1 <= ndim <= space:
        raise ValueError(f"ndim must be between 1 and the {space} spatial axes of {name} {list(x.shape)}; got {ndim}")
    return x, ndim


class _Reading(NamedTuple):
    """How a shape without a layout is read, and the other order that it may have been meant in."""

    axes: str
    layout: str
    other: str
    suspicious: Callable[[torch.Size], bool]


_READINGS = {
    3: _Reading("[B, C, T]", "bct", 'tokens [B, L, C] are layout="blc" and images [B, H, W] layout="bhw"',
                lambda shape: shape[1] > 1 and shape[1] >= shape[2]),
    4: _Reading("[B, C, H, W]", "bchw", 'images [B, H, W, C] are layout="bhwc"',
                lambda shape: shape[3] <= 4 < min(shape[1:3])),
    5: _Reading("[B, C, T, H, W]", "bcthw", 'video [B, T, C, H, W] is layout="btchw"',
                lambda shape: shape[1] > 1 and shape[2] <= 4 and shape[2] < min(shape[3:])),
}  # fmt: skip


def _warn_about_order(name: str, shape: torch.Size) -> None:
    """Warn, once for each number of axes, where a shape looks as if its axes had another order."""
    reading = _READINGS.get(len(shape))
    if reading is not None and reading.suspicious(shape):
        warn_once(
            f"order of {len(shape)} axes",
            f"{name} of shape {list(shape)} is read as {reading.axes}; {reading.other}; "
            f'pass layout="{reading.layout}" if it is meant as it is read',
        )
