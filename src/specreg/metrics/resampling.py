"""Resampling for the metrics of sound."""

from __future__ import annotations

import torch
from torch import Tensor

from specreg.metrics.scores import Unavailable


def resample(audio: Tensor, from_rate: int, to_rate: int) -> Tensor:
    """Return a clip `[T]` resampled from `from_rate` to `to_rate` Hz by librosa (soxr), float32 on the CPU.

    Raises:
        Unavailable: librosa is needed and not installed.
    """
    audio = audio.detach().float().cpu()
    if from_rate == to_rate:
        return audio
    try:
        import librosa
    except ImportError:
        raise Unavailable('resampling needs librosa: pip install "specreg[eval-audio]"') from None
    return torch.from_numpy(librosa.resample(audio.numpy(), orig_sr=from_rate, target_sr=to_rate))
