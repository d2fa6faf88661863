"""Every metric of generated clips beside their reference clips, from whatever is installed; the rest says why not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from specreg.metrics.audio import Pair, pair_clips, vocoding_scores
from specreg.metrics.embeddings import AudioExtractor, Resemblyzer, embedding_statistics
from specreg.metrics.frechet import GaussianStatistics, frechet_distance
from specreg.metrics.info import MetricInfo
from specreg.metrics.mos import UTMOS, DistillMOS, MOSPredictor, mean_opinion_scores
from specreg.metrics.ndb import ndb
from specreg.metrics.scores import Unavailable
from specreg.metrics.vggish import WEIGHTS, VGGish

METRICS = {
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
"""By the names that results have them under, in the order of the paper's table where it has them."""

_VOCODING = {"PESQ": "pesq", "MR-STFT": "mr_stft", "LSD": "lsd_db"}
BINS = 100
FRAMES_A_BIN = 10
"""NDB has `BINS` bins, or fewer so that each has about this many real frames."""


class SoundScores(NamedTuple):
    """What could be measured, and why the rest could not."""

    values: dict[str, float]  # by the names of METRICS
    missing: dict[str, str]  # metric to reason
    failures: dict[str, dict[str, str]]  # metric to clips without a value, each with its reason


class Weights(NamedTuple):
    """Files that metrics need; None where the user has none."""

    vggish: Path | None = None
    utmos: Path | None = None  # checkout
    utmos_weights: Path | None = None


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
    """Score clips `[T]` by name beside the recordings of the same names.

    Args:
        outputs: generated clips in [-1, 1].
        references: real ones.
        sample_rate: of both, Hz.
        log_mel: `[T]` to `[bands, frames]`, for NDB.
        weights: files that FAD and UTMOS need.
        paired: whether an output is meant to be its reference, as a vocoder's is; else no metric of pairs runs.
        device: where embeddings and predictors run.
        tolerance: samples by which lengths of a pair may differ.
    """
    scores = SoundScores({}, {}, {})
    if paired:
        _score_pairs(scores, pair_clips(outputs, references, tolerance=tolerance), sample_rate)
    else:
        scores.missing.update(dict.fromkeys(_VOCODING.values(), "compares a vocoder's clips with their recordings"))
    _score_bins(scores, outputs, references, log_mel)
    weights = weights or Weights()
    for name, build in _extractors(weights, device).items():
        try:
            scores.values[name] = frechet(build(), outputs, references, sample_rate)
        except (Unavailable, ValueError) as error:
            scores.missing[name] = str(error)
    _score_opinions(scores, outputs, sample_rate, weights, device)
    order = [name for name in METRICS if name in scores.values]
    return scores._replace(values={name: scores.values[name] for name in order})


def score_truth(
    references: Mapping[str, Tensor],
    sample_rate: int,
    *,
    weights: Weights | None = None,
    device: torch.device | str = "cpu",
) -> dict[str, float]:
    """What real clips score: opinion scores, and "floor: " distances of one half of them to the other."""
    weights, scores = weights or Weights(), SoundScores({}, {}, {})
    _score_opinions(scores, references, sample_rate, weights, device)
    found = dict(scores.values)
    even, odd = ({name: references[name] for name in sorted(references)[k::2]} for k in (0, 1))
    for name, build in _extractors(weights, device).items():
        try:
            found[f"floor: {name}"] = frechet(build(), even, odd, sample_rate)
        except (Unavailable, ValueError):
            continue  # the scores of the outputs say why
    return found


def frechet(
    extractor: AudioExtractor, outputs: Mapping[str, Tensor], references: Mapping[str, Tensor], sample_rate: int
) -> float:
    """Frechet distance between the embeddings of two sets of clips `[T]`, at least 0."""
    found = [embedding_statistics(extractor, clips, sample_rate) for clips in (outputs, references)]
    gaussians = [GaussianStatistics(each.mean, each.covariance, each.windows) for each in found]
    return frechet_distance(*gaussians)


def _score_pairs(scores: SoundScores, pairs: Mapping[str, Pair], sample_rate: int) -> None:
    for name, found in vocoding_scores(pairs, sample_rate).items():
        key = _VOCODING[name]
        if found.missing is not None:
            scores.missing[key] = found.missing
        elif found.mean is None:
            scores.missing[key] = f"no clip has a value; the first: {next(iter(found.failures.values()), 'no clips')}"
        else:
            scores.values[key] = found.mean
        if found.failures:
            scores.failures[key] = dict(found.failures)


def _score_bins(
    scores: SoundScores,
    outputs: Mapping[str, Tensor],
    references: Mapping[str, Tensor],
    log_mel: Callable[[Tensor], Tensor],
) -> None:
    real, made = (torch.cat([log_mel(clip).T for clip in clips.values()]).numpy() for clips in (references, outputs))
    try:
        found = ndb(made, real, bins=max(2, min(BINS, len(real) // FRAMES_A_BIN)))
    except (ImportError, ValueError) as error:
        scores.missing.update(ndb=str(error), ndb_js=str(error))
        return
    scores.values.update(ndb=found.share, ndb_js=found.js_divergence)


def _extractors(weights: Weights, device: torch.device | str) -> dict[str, Callable[[], AudioExtractor]]:
    def vggish() -> AudioExtractor:
        if weights.vggish is None:
            raise Unavailable(f"FAD needs {WEIGHTS}: set metrics.vggish; got nothing")
        return VGGish(weights.vggish, device=device)

    return {"fad": vggish, "frechet_resemblyzer": lambda: Resemblyzer(device=device)}


def _score_opinions(
    scores: SoundScores,
    clips: Mapping[str, Tensor],
    sample_rate: int,
    weights: Weights,
    device: torch.device | str,
) -> None:
    def utmos() -> MOSPredictor:
        if weights.utmos is None or weights.utmos_weights is None:
            raise Unavailable(
                "UTMOS needs a checkout of github.com/tarepan/SpeechMOS and its weights: set metrics.utmos and "
                "metrics.utmos_weights; got nothing"
            )
        return UTMOS(weights.utmos, weights.utmos_weights, device=device)

    predictors: dict[str, Callable[[], MOSPredictor]] = {
        "utmos": utmos,
        "distill_mos": lambda: DistillMOS(device=device),
    }
    for key, build in predictors.items():
        try:
            found = mean_opinion_scores(build(), clips, sample_rate)
        except Unavailable as error:
            scores.missing[key] = str(error)
            continue
        if found.mean is None:
            scores.missing[key] = found.missing or "no clip has a value"
        else:
            scores.values[key] = found.mean
        if found.failures:
            scores.failures[key] = dict(found.failures)
