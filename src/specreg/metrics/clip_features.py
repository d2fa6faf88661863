"""Measurements of sound clip by clip, which several processes can share out: `analyse` some clips each, then `merge`.

What comes out are plain values by metric and clip, so that it pickles; `sound.summarize` turns them into numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from specreg.metrics.audio import pair_clips, vocoding_scores
from specreg.metrics.embeddings import AudioExtractor, Resemblyzer, embed
from specreg.metrics.mos import UTMOS, DistillMOS, MOSPredictor, mean_opinion_scores
from specreg.metrics.scores import ClipScores, Unavailable
from specreg.metrics.vggish import WEIGHTS, VGGish

VOCODING = {"PESQ": "pesq", "MR-STFT": "mr_stft", "LSD": "lsd_db"}
"""Names that results have for the metrics of pairs."""

Rows = dict[str, NDArray[Any]]
"""Feature rows `[N, D]` of each clip, by the clip's name."""

UNPAIRED = "compares a vocoder's clips with their recordings"
"""Why metrics of pairs do not run where there are none."""

FULL_SCALE = 1 - 2**-15  # and beyond: the largest values of 16-bit sound
BEYOND = 2.0  # float clips may overshoot ±1, but not by more

T = TypeVar("T")


class Weights(NamedTuple):
    """Files that metrics need; None where the user has none."""

    vggish: Path | None = None
    utmos: Path | None = None  # folder of the checkout
    utmos_weights: Path | None = None


class ClipRows(NamedTuple):
    """Feature rows of two sets of clips, for a metric that compares their distributions."""

    outputs: Rows
    references: Rows
    missing: str | None = None  # why there are none: what to install or fetch, or the clip at fault


class ClipFeatures(NamedTuple):
    """Everything that the metrics of sound need to know about some clips."""

    scores: dict[str, ClipScores]  # by metric: those that are a mean over clips
    rows: dict[str, ClipRows]  # by metric: "fad" and "frechet_resemblyzer" (embeddings), "ndb" (log-mel frames)
    output_faults: dict[str, str]  # by clip, why it cannot be scored: see `fault`
    reference_faults: dict[str, str]  # by clip, why nothing can be scored against it


def analyse(
    outputs: Mapping[str, Tensor],
    references: Mapping[str, Tensor],
    sample_rate: int,
    log_mel: Callable[[Tensor], Tensor] | None,
    *,
    weights: Weights | None = None,
    paired: bool = True,
    unpaired: str = UNPAIRED,
    device: torch.device | str = "cpu",
    tolerance: int = 0,
) -> ClipFeatures:
    """Return the measurements of clips `[T]`, each by its name; there may be none.

    Args:
        outputs: generated clips in [-1, 1].
        references: real clips; where `paired`, those with the outputs' names.
        sample_rate: of all clips, Hz.
        log_mel: from `[T]` to `[bands, frames]`, for NDB; None to leave NDB out.
        weights: files that FAD and UTMOS need.
        paired: whether an output should equal its reference, as a vocoder's should; else metrics of pairs do not run.
        unpaired: why these do not run, where not `paired`.
        device: where embeddings and predictors run.
        tolerance: samples by which the lengths of a pair may differ.

    Opinion scores of clips that are constant or saturated, and metrics of pairs with such a recording, are failures.

    Raises:
        ValueError: outputs and references do not pair up, or clips are far beyond [-1, 1].
    """
    weights = weights or Weights()
    bad_outputs, bad_references = _faults(outputs), _faults(references)
    if paired:
        pairs = pair_clips(outputs, references, tolerance=tolerance)
        found = vocoding_scores(_without(pairs, bad_references), sample_rate)
        failures = {name: f"the recording cannot be scored against: {why}" for name, why in bad_references.items()}
        scores = {VOCODING[name]: _failed(each, failures) for name, each in found.items()}
    else:
        scores = {key: ClipScores(name, "", missing=unpaired) for name, key in VOCODING.items()}
    rows = {}
    if log_mel is not None:
        rows["ndb"] = ClipRows(_frames(outputs, log_mel), _frames(references, log_mel))
    for key, build in _extractors(weights, device).items():
        rows[key] = _embedded(build, outputs, references, sample_rate)
    for key, predictor in _predictors(weights, device).items():
        try:
            made = mean_opinion_scores(predictor(), _without(outputs, bad_outputs), sample_rate) if outputs else None
            scores[key] = _failed(made or ClipScores(key, ""), bad_outputs)
        except Unavailable as error:
            scores[key] = ClipScores(key, "", missing=str(error))
    return ClipFeatures(scores, rows, bad_outputs, bad_references)


def fault(clip: Tensor) -> str | None:
    """Return why a clip `[T]` cannot be scored, if it is constant or more than half of it is at full scale."""
    if bool((clip == clip.flatten()[0]).all()):
        return f"all samples are {float(clip.flatten()[0]):.4g}"
    saturated = float((clip.abs() >= FULL_SCALE).double().mean())
    return f"{saturated:.0%} of the samples are saturated, at ±1" if saturated > 0.5 else None


def merge(parts: Iterable[ClipFeatures]) -> ClipFeatures:
    """Return the measurements of all parts together; a metric that is missing in one part is missing in the whole.

    Raises:
        ValueError: there is no part, the parts have different metrics, or a clip is in two of them.
    """
    parts = list(parts)
    if not parts:
        raise ValueError("expected at least one part to merge; got none")
    for part in parts[1:]:
        if part.scores.keys() != parts[0].scores.keys() or part.rows.keys() != parts[0].rows.keys():
            asked = [sorted({*each.scores, *each.rows}) for each in (parts[0], part)]
            raise ValueError(f"parts must have the same metrics; got {asked[0]} and {asked[1]}")
    scores = {key: _merged_scores([part.scores[key] for part in parts]) for key in parts[0].scores}
    rows = {key: _merged_rows([part.rows[key] for part in parts]) for key in parts[0].rows}
    output_faults = _union(part.output_faults for part in parts)
    return ClipFeatures(scores, rows, output_faults, _union(part.reference_faults for part in parts))


def _merged_scores(parts: list[ClipScores]) -> ClipScores:
    first = parts[0]
    if missing := next((part.missing for part in parts if part.missing is not None), None):
        return ClipScores(first.metric, first.unit, missing=missing)
    values, failures = _union(part.values for part in parts), _union(part.failures for part in parts)
    _union({**part.values, **part.failures} for part in parts)
    return ClipScores(first.metric, first.unit, values, failures)


def _merged_rows(parts: list[ClipRows]) -> ClipRows:
    if missing := next((part.missing for part in parts if part.missing is not None), None):
        return ClipRows({}, {}, missing)
    return ClipRows(_union(part.outputs for part in parts), _union(part.references for part in parts))


def _union(parts: Iterable[Mapping[str, T]]) -> dict[str, T]:
    whole: dict[str, T] = {}
    for part in parts:
        if twice := sorted(whole.keys() & part.keys()):
            raise ValueError(f"{len(twice)} clips are in more than one part: {', '.join(twice[:5])}")
        whole |= part
    return whole


def _faults(clips: Mapping[str, Tensor]) -> dict[str, str]:
    """Return the clips that cannot be scored, with the reason; raises ValueError for clips of another range."""
    for name, clip in clips.items():
        if clip.numel() and (peak := float(clip.abs().max())) > BEYOND:
            raise ValueError(f"{name}: expected a clip with samples from -1 to 1; they reach {peak:.6g}")
    return {name: why for name, clip in clips.items() if clip.numel() and (why := fault(clip)) is not None}


def _without(clips: Mapping[str, T], faults: Mapping[str, str]) -> dict[str, T]:
    return {name: clip for name, clip in clips.items() if name not in faults}


def _failed(scores: ClipScores, failures: Mapping[str, str]) -> ClipScores:
    """Return scores with the failures of clips that were not scored."""
    if scores.missing is not None:
        return scores
    return ClipScores(scores.metric, scores.unit, scores.values, {**scores.failures, **failures})


def _frames(clips: Mapping[str, Tensor], log_mel: Callable[[Tensor], Tensor]) -> Rows:
    return {name: np.ascontiguousarray(log_mel(clip).T.numpy()) for name, clip in clips.items()}


def _embedded(
    build: Callable[[], AudioExtractor],
    outputs: Mapping[str, Tensor],
    references: Mapping[str, Tensor],
    sample_rate: int,
) -> ClipRows:
    if not outputs and not references:
        return ClipRows({}, {})
    try:
        extractor = build()
        return ClipRows(embed(extractor, outputs, sample_rate), embed(extractor, references, sample_rate))
    except (Unavailable, ValueError) as error:
        return ClipRows({}, {}, str(error))


def _extractors(weights: Weights, device: torch.device | str) -> dict[str, Callable[[], AudioExtractor]]:
    def vggish() -> AudioExtractor:
        if weights.vggish is None:
            raise Unavailable(f"FAD needs {WEIGHTS}: set metrics.vggish; got nothing")
        return VGGish(weights.vggish, device=device)

    return {"fad": vggish, "frechet_resemblyzer": lambda: Resemblyzer(device=device)}


def _predictors(weights: Weights, device: torch.device | str) -> dict[str, Callable[[], MOSPredictor]]:
    def utmos() -> MOSPredictor:
        if weights.utmos is None or weights.utmos_weights is None:
            raise Unavailable(
                "UTMOS needs a checkout of github.com/tarepan/SpeechMOS and its weights: set metrics.utmos and "
                "metrics.utmos_weights; got nothing"
            )
        return UTMOS(weights.utmos, weights.utmos_weights, device=device)

    return {"utmos": utmos, "distill_mos": lambda: DistillMOS(device=device)}
