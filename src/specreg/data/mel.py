"""DiffWave's log-mel spectrogram and its settings. The mel filters are librosa's, which is imported on first use."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

FLOOR = 1e-5  # lower bound of mel amplitudes before the logarithm: −100 dB


@dataclass(frozen=True, kw_only=True)
class MelSettings:
    """Settings of a mel spectrogram; the defaults are the public DiffWave vocoder's.

    Args:
        sample_rate: Hz.
        n_fft: window and transform length, samples.
        hop: samples from one frame to the next.
        n_mels: bands.
        f_min: lower edge of the first band, Hz.
        f_max: upper edge of the last band, Hz; None for half the sample rate.

    Raises:
        ValueError: for values out of range.
    """

    sample_rate: int = 22_050
    n_fft: int = 1024
    hop: int = 256
    n_mels: int = 80
    f_min: float = 20.0
    f_max: float | None = None

    def __post_init__(self) -> None:
        for name in ("sample_rate", "n_fft", "hop", "n_mels"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise ValueError(f"{name} must be a whole number of at least 1; got {value!r}")
        if self.n_fft % 2:
            raise ValueError(f"n_fft must be even; got {self.n_fft}")
        if not 0 <= self.f_min < self.top <= self.sample_rate / 2:
            raise ValueError(
                f"expected 0 <= f_min < f_max <= {self.sample_rate / 2:g} Hz, half the sample rate; "
                f"got {self.f_min:g} and {self.top:g}"
            )

    @property
    def top(self) -> float:
        """Upper edge of the last band, Hz."""
        return self.sample_rate / 2 if self.f_max is None else self.f_max

    def frames(self, samples: int) -> int:
        """Return the number of frames of a clip; frame k is centred on sample k · hop."""
        return samples // self.hop + 1


def log_mel(audio: Tensor, settings: MelSettings, *, start: int = 0, frames: int | None = None) -> Tensor:
    """Return the log-mel spectrogram `[..., n_mels, frames]` of `audio` `[..., T]` in [-1, 1].

    Frame k is the amplitude spectrum of the Hann window centred on sample k · hop, divided by the window's L2 norm;
    the clip is reflected at its ends. With m the sum of amplitudes under each mel filter (HTK scale, peaks of 1),

        clamp((20·log₁₀ max(m, 1e-5) − 20 + 100) / 100, 0, 1),

    so 0 is −80 dB and 1 is 20 dB. The computation runs in float32, or in float64 for float64 audio.

    Args:
        audio: the whole clip, longer than n_fft / 2 samples.
        settings: see `MelSettings`.
        start: the first frame.
        frames: number of frames; None for all that remain. They equal the same frames of the whole spectrogram.

    Raises:
        ValueError: the clip is too short to reflect, or does not have these frames.
    """
    n_fft, hop, samples = settings.n_fft, settings.hop, audio.shape[-1]
    if samples <= n_fft // 2:
        raise ValueError(f"a clip must be longer than n_fft / 2 = {n_fft // 2} samples; got {samples}")
    available = settings.frames(samples)
    frames = available - start if frames is None else frames
    if not (start >= 0 and frames >= 1 and start + frames <= available):
        raise ValueError(f"the clip has {available} frames; got start={start}, frames={frames}")
    audio = audio if audio.dtype == torch.float64 else audio.float()
    padded = F.pad(audio.reshape(-1, samples), (n_fft // 2, n_fft // 2), mode="reflect")
    padded = padded[:, start * hop : (start + frames - 1) * hop + n_fft]
    window = torch.hann_window(n_fft, dtype=audio.dtype, device=audio.device)
    spectrum = torch.stft(padded, n_fft, hop, window=window, center=False, return_complex=True)
    amplitude = spectrum.abs() / window.square().sum().sqrt()
    filters = _filters(settings).to(amplitude)
    decibels = 20 * (filters @ amplitude).clamp_min(FLOOR).log10()
    return ((decibels - 20 + 100) / 100).clamp(0, 1).reshape(*audio.shape[:-1], settings.n_mels, frames)


@lru_cache(maxsize=8)
def _filters(settings: MelSettings) -> Tensor:
    """Return librosa's triangular filters on the HTK mel scale, float64 `[n_mels, n_fft / 2 + 1]`."""
    try:
        from librosa.filters import mel
    except ImportError as error:
        raise ImportError('mel spectrograms need librosa: pip install "specreg[audio]"') from error
    weights = mel(
        sr=settings.sample_rate,
        n_fft=settings.n_fft,
        n_mels=settings.n_mels,
        fmin=settings.f_min,
        fmax=settings.top,
        htk=True,
        norm=None,
        dtype=np.float64,
    )
    with torch.inference_mode(False):
        return torch.from_numpy(np.ascontiguousarray(weights))
