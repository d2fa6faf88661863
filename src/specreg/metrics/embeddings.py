"""Embeddings of short windows of sound, behind one extractor protocol, and their statistics for Frechet distances.

A distance on VGGish embeddings is FAD (Kilgour et al. 2019); on another extractor it has that extractor's name.

| extractor | package | weights |
|---|---|---|
| `vggish.VGGish` | – | vggish-10086976.pth from release v0.1 of github.com/harritaylor/torchvggish |
| `Resemblyzer` | PyPI `resemblyzer` | inside the package |
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import torch
from numpy.typing import NDArray
from torch import Tensor

from specreg.metrics.resampling import resample
from specreg.metrics.scores import Unavailable


class AudioExtractor(Protocol):
    """The interface of an extractor: from a clip to embeddings of its windows."""

    @property
    def name(self) -> str:
        """Name of the embedding, shown beside its distances."""

    @property
    def sample_rate(self) -> int:
        """Sample rate of the clips that it takes, Hz."""

    def __call__(self, audio: Tensor) -> Tensor:
        """Return embeddings `[windows, D]` of a clip `[T]` in [-1, 1] at `sample_rate`; a short clip may have none."""


class EmbeddingStatistics(NamedTuple):
    """Mean and covariance of the embeddings of a set of clips, float64 on the CPU."""

    mean: Tensor  # [D]
    covariance: Tensor  # [D, D], divided by windows − 1
    windows: int  # embeddings in all
    too_short: list[str]  # clips that gave no window


class Resemblyzer:
    """Resemblyzer's 256-d speaker embedding of windows of 1.6 s at 16 kHz; it tells voices apart more than quality.

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
        """Return embeddings `[windows, 256]` of a clip `[T]`; the package pads a short clip to one window."""
        _, windows, _ = self._encoder.embed_utterance(audio.float().cpu().numpy(), return_partials=True)
        return torch.from_numpy(windows)


def embed(extractor: AudioExtractor, clips: Mapping[str, Tensor], sample_rate: int) -> dict[str, NDArray[Any]]:
    """Return the embeddings `[windows, D]` of each clip `[T]` at `sample_rate` Hz; a clip may have no window.

    Raises:
        ValueError: embeddings that are not finite or whose width changes.
        Unavailable: resampling is needed and librosa is missing.
    """
    embedded: dict[str, NDArray[Any]] = {}
    width: int | None = None
    for name, clip in clips.items():
        windows = extractor(resample(clip, sample_rate, extractor.sample_rate)).detach().cpu()
        if windows.ndim != 2 or (width is not None and windows.shape[1] != width):
            raise ValueError(f"{name}: {extractor.name} must return [windows, D]; got {list(windows.shape)}")
        if not bool(windows.isfinite().all()):
            raise ValueError(f"{name}: {extractor.name} returned NaN or infinity")
        width = windows.shape[1] if len(windows) else width
        embedded[name] = windows.numpy()
    return embedded


def embedding_statistics(embedded: Mapping[str, NDArray[Any]]) -> EmbeddingStatistics:
    """Return mean and covariance of the embeddings `[windows, D]` of all clips, in the order of their names.

    Sums are taken in float64 around the first window, so that a large mean does not cost digits.

    Raises:
        ValueError: fewer than two windows in all.
    """
    too_short = [name for name in sorted(embedded) if not len(embedded[name])]
    windows = [torch.from_numpy(embedded[name]).double() for name in sorted(embedded) if len(embedded[name])]
    count = sum(map(len, windows))
    if count < 2:
        raise ValueError(f"a covariance needs at least two windows; {len(embedded)} clips gave {count}")
    shift = windows[0][0]
    total, products = torch.zeros_like(shift), torch.zeros(len(shift), len(shift), dtype=torch.float64)
    for each in windows:
        moved = each - shift
        total += moved.sum(0)
        products += moved.T @ moved
    mean = total / count
    covariance = (products - count * torch.outer(mean, mean)) / (count - 1)
    return EmbeddingStatistics(shift + mean, (covariance + covariance.T) / 2, count, too_short)
