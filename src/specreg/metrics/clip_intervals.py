"""95% intervals of the scores of clips, by resampling whole clips: frames of one clip depend on each other."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from specreg import _intervals
from specreg.metrics.clip_features import ClipFeatures, ClipRows, Rows
from specreg.metrics.scores import ClipScores
from specreg.metrics.sound import summarize

DISTANCE_DRAWS = 20
"""Draws at most for distances between sets of clips, which cost seconds."""

_MEAN = "A mean over clips, unbiased at any number of them"
_DISTANCE = "Biased upward, the more the fewer clips there are: compare at equal numbers"

BIAS = {
    "pesq": _MEAN,
    "mr_stft": _MEAN,
    "lsd_db": _MEAN,
    "ndb": "Rises with the number of frames where clips differ: compare at equal numbers",
    "ndb_js": _DISTANCE,
    "fad": _DISTANCE,
    "frechet_resemblyzer": _DISTANCE,
    "utmos": _MEAN,
    "distill_mos": _MEAN,
}
"""What a small number of clips does to a metric."""


def intervals(
    features: ClipFeatures, metrics: Sequence[str], *, draws: int = 200, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """Return the 95% interval of each metric: its value ± 1.96 standard deviations over resampled sets of clips.

    Intervals are widened for few clips as Student's t does, and cut off at the ends of the metric's range.
    """
    random = np.random.default_rng(seed)
    values = summarize(features).values
    found = {}
    for name in metrics:
        if name in features.scores:
            each = features.scores[name].values
            scores = np.array([each[clip] for clip in sorted(each)])
            chosen = random.integers(len(scores), size=(draws, len(scores)))
            deviation = float(scores[chosen].mean(1).std(ddof=1))
            numbers = [len(scores)]
        else:
            key = "ndb" if name == "ndb_js" else name
            drawn = [_resampled(features, key, name, random) for _ in range(min(draws, DISTANCE_DRAWS))]
            deviation = float(np.std([value for value in drawn if value is not None], ddof=1))
            rows = features.rows[key]
            numbers = [len(rows.outputs), len(rows.references)]
        found[name] = _intervals.around(values[name], deviation, numbers, _RANGES.get(name, (-math.inf, math.inf)))
    return found


_RANGES = {
    "pesq": (1.0, 4.644),
    "mr_stft": (0.0, math.inf),
    "lsd_db": (0.0, math.inf),
    "ndb": (0.0, 1.0),
    "ndb_js": (0.0, math.log(2)),
    "fad": (0.0, math.inf),
    "frechet_resemblyzer": (0.0, math.inf),
}
"""Least and largest values; predicted opinion scores may lie beyond 1 to 5."""


def _resampled(features: ClipFeatures, key: str, name: str, random: np.random.Generator) -> float | None:
    rows = features.rows[key]
    drawn = ClipRows(_drawn(rows.outputs, random), _drawn(rows.references, random))
    scores: dict[str, ClipScores] = {}
    return summarize(ClipFeatures(scores, {key: drawn}, {}, {})).values.get(name)


def _drawn(rows: Rows, random: np.random.Generator) -> Rows:
    names = sorted(rows)
    return {f"{place:06d}": rows[names[i]] for place, i in enumerate(random.integers(len(names), size=len(names)))}
