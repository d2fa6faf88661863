"""Vocoding metrics, which compare each output with its own reference clip: PESQ, MR-STFT, log-spectral distance.

| metric | package | weights |
|---|---|---|
| `pesq` | PyPI `pesq` (ITU-T P.862.2, wide band) | none |
| `mr_stft` | PyPI `auraloss` | none |
| `log_spectral_distance` | – | none |

A clip that a metric cannot score is counted as a failure under its name. A metric whose package is not installed has a
reason in place of a number.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from specreg.metrics.resampling import resample
from specreg.metrics.scores import ClipScores, Unavailable, score_clips

PESQ_RATE = 16_000
ROUNDING_POWER = (2 / 65536) ** 2 / 12
"""Variance of rounding [-1, 1] to 16 bits, −101 dB: the lowest power that a recording can represent."""


class Pair(NamedTuple):
    """A generated clip and its reference, `[T]` each."""

    output: Tensor
    reference: Tensor


def pair_clips(outputs: Mapping[str, Tensor], references: Mapping[str, Tensor], *, tolerance: int) -> dict[str, Pair]:
    """Return pairs of outputs and references by name, both cut to the length of the shorter clip.

    Args:
        outputs: generated clips `[T]` (or `[1, T]`), by name.
        references: real clips, likewise.
        tolerance: samples by which the lengths of a pair may differ, because a vocoder makes whole hops.

    Raises:
        ValueError: a name is on one side only, or the lengths of a pair differ by more.
    """
    for mine, other, kind in ((outputs, references, "reference"), (references, outputs, "output")):
        if alone := sorted(set(mine) - set(other)):
            raise ValueError(f"{len(alone)} clips have no {kind}: {', '.join(alone[:5])}")
    pairs = {}
    for name in outputs:
        output, reference = _mono(name, outputs[name]), _mono(name, references[name])
        if abs(len(output) - len(reference)) > tolerance:
            raise ValueError(
                f"{name}: output and reference may differ by {tolerance} samples; "
                f"they have {len(output)} and {len(reference)}"
            )
        length = min(len(output), len(reference))
        pairs[name] = Pair(output[:length], reference[:length])
    return pairs


def pesq(pairs: Mapping[str, Pair], sample_rate: int) -> ClipScores:
    """Return wide-band PESQ (ITU-T P.862.2) of each pair, 1.0 to 4.64; clips are resampled to 16 kHz.

    Clips without detected speech, and clips that are too short, are failures.
    """
    name, unit = "PESQ", "MOS-LQO, higher is better"
    try:
        from pesq import PesqError
        from pesq import pesq as score_wideband
    except ImportError:
        return ClipScores(name, unit, missing='PESQ needs the package pesq: pip install "specreg[eval-audio]"')

    def score(pair: Pair) -> float:
        output, reference = (resample(clip, sample_rate, PESQ_RATE).numpy() for clip in pair)
        if not reference.any() and not output.any():
            raise ValueError("both clips are silent")
        return float(score_wideband(PESQ_RATE, reference, output, "wb"))

    return score_clips(name, unit, pairs, score, expected=(PesqError, ValueError))


def mr_stft(pairs: Mapping[str, Pair]) -> ClipScores:
    """Return auraloss's multi-resolution STFT distance of each pair, with its default settings at the clips' rate."""
    name, unit = "MR-STFT", "lower is better"
    try:
        from auraloss.freq import MultiResolutionSTFTLoss
    except ImportError:
        return ClipScores(name, unit, missing='MR-STFT needs auraloss: pip install "specreg[eval-audio]"')
    distance: Any = MultiResolutionSTFTLoss()

    @torch.no_grad()
    def score(pair: Pair) -> float:
        output, reference = (clip[None, None].float().cpu() for clip in pair)
        return float(distance(output, reference))

    return score_clips(name, unit, pairs, score, expected=(RuntimeError,))


def log_spectral_distance(pairs: Mapping[str, Pair], *, n_fft: int = 2048, hop: int = 512) -> ClipScores:
    """Return the log-spectral distance of each pair, dB: √(mean over frequencies of (10·log₁₀ P − 10·log₁₀ P̂)²).

    It is averaged over frames. P and P̂ are powers per coefficient of the Hann-windowed spectra (divided by the window's
    energy), at least `ROUNDING_POWER`, so that digital silence is 101 dB below full scale and not at −∞.

    Args:
        pairs: clips longer than n_fft / 2; shorter ones are failures.
        n_fft: window length, samples.
        hop: samples from one frame to the next.
    """

    def decibels(clip: Tensor) -> Tensor:
        window = torch.hann_window(n_fft, dtype=torch.float64)
        spectrum = torch.stft(clip.cpu().double(), n_fft, hop, window=window, return_complex=True)
        power = spectrum.abs().square() / window.square().sum()
        return 10 * power.clamp_min(ROUNDING_POWER).log10()

    def score(pair: Pair) -> float:
        if len(pair.reference) <= n_fft // 2:
            raise ValueError(f"needs more than {n_fft // 2} samples; got {len(pair.reference)}")
        difference = decibels(pair.output) - decibels(pair.reference)
        return float(difference.square().mean(0).sqrt().mean())

    return score_clips("LSD", "dB, lower is better", pairs, score, expected=(ValueError,))


def vocoding_scores(pairs: Mapping[str, Pair], sample_rate: int) -> dict[str, ClipScores]:
    """Return all metrics of this module, by name, of pairs at `sample_rate` Hz."""
    scores = (pesq(pairs, sample_rate), mr_stft(pairs), log_spectral_distance(pairs))
    return {score.metric: score for score in scores}


def _mono(name: str, clip: Tensor) -> Tensor:
    flat = clip.squeeze(0) if clip.ndim == 2 else clip
    if flat.ndim != 1 or not len(flat):
        raise ValueError(f"{name}: expected a mono clip [T] or [1, T]; got {list(clip.shape)}")
    return flat


__all__ = [
    "ClipScores",
    "Pair",
    "Unavailable",
    "log_spectral_distance",
    "mr_stft",
    "pair_clips",
    "pesq",
    "vocoding_scores",
]
