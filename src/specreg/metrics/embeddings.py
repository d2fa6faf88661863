"""What a Frechet audio distance is taken of: embeddings of short windows, behind one extractor protocol.

A distance on VGGish embeddings is FAD (Kilgour et al. 2019); on any other extractor it carries that extractor's name.

| extractor | package | weights |
|---|---|---|
| `vggish.VGGish` | – | vggish-10086976.pth from release v0.1 of github.com/harritaylor/torchvggish |
| `Resemblyzer` | PyPI `resemblyzer` | inside the package |
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from specreg.metrics.resampling import resample
from specreg.metrics.scores import Unavailable


class AudioExtractor(Protocol):
    """Maps a clip to embeddings of its windows."""

    @property
    def name(self) -> str:
        """Of the embedding, as shown beside its distances."""

    @property
    def sample_rate(self) -> int:
        """Of the sound it takes, Hz."""

    def __call__(self, audio: Tensor) -> Tensor:
        """Return embeddings `[windows, D]` of one clip `[T]` in [-1, 1] at `sample_rate`; none of one too short."""


class EmbeddingStatistics(NamedTuple):
    """What a Frechet distance needs of a set of clips, float64 on the CPU."""

    mean: Tensor  # [D]
    covariance: Tensor  # [D, D], divided by windows − 1
    windows: int  # embeddings in all
    too_short: list[str]  # clips that gave no window


class Resemblyzer:
    """Resemblyzer's speaker embedding, 256-d, of windows of 1.6 s at 16 kHz; says who speaks more than how well.

    Raises:
        Unavailable: the package is not installed.
    """

    name = "Resemblyzer"
    sample_rate = 16_000

    def __init__(self, *, device: torch.device | str = "cpu") -> None:
        try:
            from resemblyzer import VoiceEncoder
        except ImportError as error:
            raise Unavailable(
                "the Resemblyzer embedding needs the packages resemblyzer, which brings its weights, and "
                f"webrtcvad-wheels: pip install --no-deps resemblyzer webrtcvad-wheels ({error})"
            ) from None
        self._encoder: Any = VoiceEncoder(device=device, verbose=False)

    def __call__(self, audio: Tensor) -> Tensor:
        """Embeddings `[windows, 256]` of one clip `[T]`, at least one: the package pads short clips with silence."""
        _, windows, _ = self._encoder.embed_utterance(audio.float().cpu().numpy(), return_partials=True)
        return torch.from_numpy(windows)


def embedding_statistics(
    extractor: AudioExtractor, clips: Mapping[str, Tensor], sample_rate: int
) -> EmbeddingStatistics:
    """Mean and covariance of the embeddings of all windows of all clips `[T]` at `sample_rate` Hz.

    Sums are taken in float64 around the first window, so that a large mean does not cost digits.

    Raises:
        ValueError: fewer than two windows in all, or embeddings that are not finite or change their width.
        Unavailable: resampling is needed and librosa is missing.
    """
    shift: Tensor | None = None
    count, too_short = 0, []
    for name, clip in clips.items():
        windows = extractor(resample(clip, sample_rate, extractor.sample_rate)).detach().double().cpu()
        if windows.ndim != 2 or (shift is not None and windows.shape[1] != len(shift)):
            raise ValueError(f"{name}: {extractor.name} must return [windows, D]; got {list(windows.shape)}")
        if not bool(windows.isfinite().all()):
            raise ValueError(f"{name}: {extractor.name} returned NaN or infinity")
        if not len(windows):
            too_short.append(name)
            continue
        if shift is None:
            shift = windows[0].clone()
            total, products = torch.zeros_like(shift), torch.zeros(len(shift), len(shift), dtype=torch.float64)
        moved = windows - shift
        total += moved.sum(0)
        products += moved.T @ moved
        count += len(windows)
    if shift is None or count < 2:
        raise ValueError(f"a covariance needs at least two windows; {len(clips)} clips gave {count}")
    mean = total / count
    covariance = (products - count * torch.outer(mean, mean)) / (count - 1)
    return EmbeddingStatistics(shift + mean, (covariance + covariance.T) / 2, count, too_short)
