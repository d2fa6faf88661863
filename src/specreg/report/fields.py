"""Fields in data units as pictures: the first variable, in colours that mean the same in every grid of a page."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from specreg.report.contents import Images, Samples

COLORS = "RdBu_r"  # diverging: white is the middle of the range
SPREAD = 99.8  # per cent of the values that the range holds


def span(sets: Sequence[Samples]) -> tuple[float, float]:
    """Return the range of values that colours stand for: of the first set of fields, symmetric where it has both signs.

    The first set is the real data where a page has them, so that a set with larger values looks saturated beside it.
    """
    first = np.asarray(sets[0][:64, 0], dtype=np.float64)
    first = first[np.isfinite(first)]
    if not first.size:
        return 0.0, 1.0
    low, high = np.percentile(first, [(100 - SPREAD) / 2, (100 + SPREAD) / 2])
    if low < 0 < high:
        low, high = -max(-low, high), max(-low, high)
    return float(low), float(high) if high > low else float(low) + 1.0


def pictures(samples: Samples, value_range: tuple[float, float], *, most: int = 64) -> Images:
    """Return the first `most` of `samples`, float [N, C, H, W], as uint8 [N, H, W, 3]; what is not finite is grey."""
    from matplotlib import colormaps

    low, high = value_range
    fields = np.asarray(samples[:most, 0], dtype=np.float64)
    known = np.isfinite(fields)
    shade = np.where(known, (fields - low) / (high - low), 0.5).clip(0, 1)
    rgb = colormaps[COLORS](shade)[..., :3]
    rgb[~known] = 0.5
    return np.asarray((rgb * 255).round(), dtype=np.uint8)
