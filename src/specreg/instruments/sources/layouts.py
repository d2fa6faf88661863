"""Which axes of an array are samples, channels and space: named by the user, or clear from the shape."""

from __future__ import annotations

from specreg._checks import SPACE

FEW = 4
"""An axis of at most so many entries may be channels; longer ones are where they are shorter than all of space."""
_GUESSES = {"b": "samples", "c": "channels", "t": "time", "d": "depth", "h": "height", "w": "width"}


def is_layout(text: str) -> bool:
    """Return whether a text names axes: `b` for samples first, if at all, `c` once at most, 1 to 3 of space."""
    letters = text.removeprefix("b")
    space = [letter for letter in letters if letter in SPACE]
    return bool(text) and set(letters) <= {"c", *SPACE} and len(set(letters)) == len(letters) and 1 <= len(space) <= 3


def checked_layout(layout: str, shape: tuple[int, ...], where: str) -> str:
    """Return a layout that the user named; raises ValueError where it has another number of axes than the array."""
    if len(layout) != len(shape):
        raise ValueError(f"{where}: the axes {layout!r} are {len(layout)}; the array has {len(shape)}: {list(shape)}")
    return layout


def layout_of(shape: tuple[int, ...], where: str, *, one_sample: bool, tiled: bool, latents: bool = False) -> str:
    """Return the axes of an array as letters, such as "bchw".

    Args:
        shape: of the array.
        where: path of the array, for messages.
        one_sample: whether the array is one file of many, which more often hold one sample each than many.
        tiled: whether it is to be cut into tiles, so that two axes are height and width and not samples and time.
        latents: whether four axes that fit nothing else are `[N, C, H, W]`.

    Raises:
        ValueError: no layout fits the shape, or several do.
    """
    choices = _choices(shape, one_sample=one_sample, tiled=tiled)
    if len(choices) > 1 and latents and "bchw" in choices:
        return "bchw"
    if len(choices) == 1:
        return choices[0]
    if not choices:
        raise ValueError(f"{where}: expected an array of 1 to 5 axes; got shape {list(shape)}")
    meanings = " or ".join(f"[{', '.join(_GUESSES[letter] for letter in choice)}]" for choice in choices)
    raise ValueError(
        f"{where}: the axes of shape {list(shape)} may be {meanings}; name them behind a colon, such as "
        f"{where}:{choices[0]}"
    )


def _choices(shape: tuple[int, ...], *, one_sample: bool, tiled: bool) -> tuple[str, ...]:
    """Return the layouts that a shape may be meant in; one where it is clear."""
    match len(shape):
        case 1:
            return ("t",)
        case 2:
            return ("hw",) if one_sample or tiled else ("bt",)
        case 3 if one_sample or tiled:
            first, last = shape[0] <= FEW, shape[2] <= FEW
            if first and not last:
                return ("chw",) if one_sample else ("bhw",) if shape[0] < 3 else ("bhw", "chw")
            if last and not first:
                return ("hwc",)
            if shape[0] < min(shape[1:]) and one_sample and not first:
                return ("chw", "bhw")
            return ("bhw", "chw", "hwc") if first else ("bhw",)
        case 3:
            first, last = shape[1] <= FEW, shape[2] <= FEW
            if first and not last:
                return ("bct",)
            if last and not first:
                return ("btc",) if shape[2] < 3 else ("btc", "hwc")
            return ("bct", "btc", "bhw") if first else ("bhw",)
        case 4 | 5:
            return _with_channels(shape[1:], "dhw"[-len(shape) + 2 :])
    return ()


def _with_channels(sample: tuple[int, ...], space: str) -> tuple[str, ...]:
    """Return where the channels of a sample are: before or after space."""
    before, after = f"bc{space}", f"b{space}c"
    first, last = sample[0] <= FEW, sample[-1] <= FEW
    if first != last:
        return (before,) if first else (after,)
    if first:  # tiny samples: colours of a square
        left = sample[0] in (1, 3) and len(set(sample[1:])) == 1
        right = sample[-1] in (1, 3) and len(set(sample[:-1])) == 1
    else:
        left, right = sample[0] < min(sample[1:]), sample[-1] < min(sample[:-1])
    if left != right:
        return (before,) if left else (after,)
    return before, after
