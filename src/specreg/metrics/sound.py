"""Scores of generated clips beside reference clips: every metric that can run here, and why the others cannot."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from specreg.metrics.clip_features import ClipFeatures, ClipRows, Rows, Weights, analyse, merge
from specreg.metrics.embeddings import embedding_statistics
from specreg.metrics.frechet import frechet_distance
from specreg.metrics.info import MetricInfo
from specreg.metrics.ndb import ndb

__all__ = [
    "SOUND_METRICS",
    "ClipFeatures",
    "SoundScores",
    "Weights",
    "analyse",
    "merge",
    "score",
    "score_truth",
    "summarize",
    "summarize_truth",
]

SOUND_METRICS = {
    "pesq": MetricInfo(
        "PESQ", "", "higher", 3, "wide band at 16 kHz, 1 to 4.64; mean over clips, beside their own recording"
    ),
    "mr_stft": MetricInfo("MR-STFT", "", "lower", 3, "auraloss's multi-resolution STFT distance at its defaults"),
    "lsd_db": MetricInfo(
        "log-spectral distance",
        "dB",
        "lower",
        2,
        "RMS over frequencies of the difference in log power, mean over frames",
    ),
    "ndb": MetricInfo(
        "NDB", "", "lower", 3, "share of the k-means bins of real log-mel frames that clips fill differently (5% level)"
    ),
    "ndb_js": MetricInfo(
        "bins' JS divergence", "nats", "lower", 4, "Jensen-Shannon divergence of the same bins' histograms"
    ),
    "fad": MetricInfo("FAD", "", "lower", 3, "Frechet distance of VGGish embeddings (Kilgour et al. 2019)"),
    "frechet_resemblyzer": MetricInfo(
        "Frechet, Resemblyzer", "", "lower", 4, "Frechet distance of Resemblyzer's speaker embeddings; not FAD"
    ),
    "utmos": MetricInfo("UTMOS", "", "higher", 3, "opinion score predicted by UTMOS, 1 to 5", absolute=True),
    "distill_mos": MetricInfo(
        "DistillMOS", "", "higher", 3, "opinion score predicted by DistillMOS, 1 to 5", absolute=True
    ),
}
"""Metrics by their names in results, in the order of the paper's table."""

BINS = 100
FRAMES_A_BIN = 10
"""NDB has `BINS` bins, or fewer, so that each holds about this many real frames."""


class SoundScores(NamedTuple):
    """The metrics that could be measured, and why the others could not."""

    values: dict[str, float]  # by the names of SOUND_METRICS
    missing: dict[str, str]  # metric to reason
    failures: dict[str, dict[str, str]]  # metric to the clips without a value, each with its reason


def score(
    outputs: Mapping[str, Tensor],
    references: Mapping[str, Tensor],
    sample_rate: int,
    log_mel: Callable[[Tensor], Tensor],
    *,
    weights: Weights | None = None,
    paired: bool = True,
    device: torch.device | str = "cpu",
    tolerance: int = 0,
) -> SoundScores:
    """Return the scores of clips `[T]` by name beside the recordings of the same names.

    Arguments are those of `analyse`; several processes call `analyse`, `merge` and `summarize` instead.
    """
    features = analyse(
        outputs, references, sample_rate, log_mel, weights=weights, paired=paired, device=device, tolerance=tolerance
    )
    return summarize(features)


def score_truth(
    references: Mapping[str, Tensor],
    sample_rate: int,
    *,
    weights: Weights | None = None,
    device: torch.device | str = "cpu",
) -> dict[str, float]:
    """Return the scores of real clips `[T]`: see `summarize_truth`."""
    return summarize_truth(analyse(references, {}, sample_rate, None, weights=weights, paired=False, device=device))


def summarize(features: ClipFeatures) -> SoundScores:
    """Return the scores of analysed clips; neither the clips' order nor how they were shared out matters."""
    scores = SoundScores({}, {}, {})
    for key, found in features.scores.items():
        if found.missing is not None:
            scores.missing[key] = found.missing
        elif found.mean is None:
            first = next((found.failures[name] for name in sorted(found.failures)), "no clips")
            scores.missing[key] = f"no clip has a value; the first: {first}"
        else:
            scores.values[key] = found.mean
        if found.failures:
            scores.failures[key] = {name: found.failures[name] for name in sorted(found.failures)}
    for key, rows in features.rows.items():
        try:
            _check_usable(rows.references, features.reference_faults)
            scores.values.update(_bins(rows) if key == "ndb" else {key: _distance(rows)})
        except (ImportError, ValueError) as error:
            scores.missing.update(dict.fromkeys(("ndb", "ndb_js") if key == "ndb" else (key,), str(error)))
    ordered = {name: scores.values[name] for name in SOUND_METRICS if name in scores.values}
    return scores._replace(values=ordered)


def summarize_truth(features: ClipFeatures) -> dict[str, float]:
    """Return the scores of real clips, analysed as outputs without references.

    They are the opinion scores and, as "floor: METRIC", the distances between the clips of even and of odd place in the
    sorted list of names: how small a distance between equally distributed clips gets.
    """
    found = {key: each.mean for key, each in features.scores.items() if each.missing is None and each.mean is not None}
    for key, rows in features.rows.items():
        names = sorted(rows.outputs)
        even, odd = ({name: rows.outputs[name] for name in names[k::2]} for k in (0, 1))
        try:
            _check_usable(rows.outputs, features.output_faults)
            found[f"floor: {key}"] = _distance(ClipRows(even, odd, rows.missing))
        except ValueError:
            continue  # the scores of the outputs say why
    return found


def _check_usable(real: Rows, faults: Mapping[str, str]) -> None:
    """Raise ValueError where no real clip can be scored: what is as constant as they are would be perfect."""
    if real and real.keys() <= faults.keys():
        first = min(real)
        raise ValueError(f"no recording can be scored against; the first, {first}: {faults[first]}")


def _distance(rows: ClipRows) -> float:
    """Return the Frechet distance between the rows of two sets of clips, at least 0."""
    if rows.missing is not None:
        raise ValueError(rows.missing)
    return frechet_distance(embedding_statistics(rows.outputs), embedding_statistics(rows.references))


def _bins(rows: ClipRows) -> dict[str, float]:
    """Return NDB and the Jensen-Shannon divergence of its bins, by the names of SOUND_METRICS."""
    if rows.missing is not None:
        raise ValueError(rows.missing)
    made, real = (_stacked(each) for each in (rows.outputs, rows.references))
    found = ndb(made, real, bins=max(2, min(BINS, len(real) // FRAMES_A_BIN)))
    return {"ndb": found.share, "ndb_js": found.js_divergence}


def _stacked(rows: Rows) -> np.ndarray[tuple[int, ...], np.dtype[np.floating]]:
    if not rows:
        raise ValueError("NDB needs generated and real clips; got none of one kind")
    return np.concatenate([rows[name] for name in sorted(rows)])
