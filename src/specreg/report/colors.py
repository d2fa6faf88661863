"""One colour an arm, the same in every figure and table: a hue a loss, darker the larger its λ."""

from __future__ import annotations

from typing import Any

# Okabe and Ito's palette, safe for colour-blind readers; truth is black, the baseline always vermillion.
INK, MUTED = "#1c1c1a", "#66665f"
BASELINE_COLOR = "#D55E00"
ARM_COLORS = ("#0072B2", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#7A5195", "#8C6D31")
HUES = ("#0072B2", "#C2569A", "#009E73", "#E0A000", "#7A5195", "#7B7F86")  # apart in hue, as shades of them need
TINT, SHADE = 0.58, 0.5  # share of white and of black in the colours of a loss's smallest and largest λ


def arm_colors(comparison: dict[str, Any]) -> dict[str, str]:
    """Return arm name -> "#rrggbb". Arms "amplitude@0.1" and "amplitude@1" are one loss, and shades of one hue.

    Without such arms the palette is ARM_COLORS, in order. Losses beyond the palette share a hue with an earlier one.
    """
    baseline = comparison.get("baseline")
    arms = {str(arm["name"]): arm for arm in comparison["arms"] if arm["name"] != baseline}
    losses = list(dict.fromkeys(map(_loss, arms)))
    palette = ARM_COLORS if len(arms) == len(losses) <= len(ARM_COLORS) else HUES
    groups: dict[str, list[str]] = {}
    for name in arms:
        groups.setdefault(palette[losses.index(_loss(name)) % len(palette)], []).append(name)
    colors = {str(baseline): BASELINE_COLOR}
    for hue, names in groups.items():
        names.sort(key=lambda name: _strength(arms[name]))
        colors |= zip(names, shades(hue, len(names)), strict=True)
    return colors


def shades(hue: str, count: int) -> list[str]:
    """Return `count` shades of the colour `hue`, from mixed with white to mixed with black; itself for one."""
    channels = [int(hue[i : i + 2], 16) for i in (1, 3, 5)]
    mixed = []
    for index in range(count):
        t = 2 * index / (count - 1) - 1 if count > 1 else 0.0  # from -1, lightest, to 1, darkest
        other, share = (255, -TINT * t) if t < 0 else (0, SHADE * t)
        mixed.append("#" + "".join(f"{round(c + (other - c) * share):02X}" for c in channels))
    return mixed


def _loss(name: str) -> str:
    return name.partition("@")[0]


def _strength(arm: dict[str, Any]) -> tuple[bool, float]:
    """Return what an arm's λ is sorted by: numbers first, then "auto" and "auto:RATIO"."""
    loss = arm.get("loss")
    text = str(arm["name"]).partition("@")[2] or str((loss if isinstance(loss, dict) else {}).get("weight", ""))
    policy, _, ratio = text.partition(":")
    auto = policy == "auto"
    try:
        return auto, float(ratio if auto else policy)
    except ValueError:
        return auto, 0.0
