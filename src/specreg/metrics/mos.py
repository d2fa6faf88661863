"""Predicted mean opinion scores (1 to 5, no reference needed), by predictors behind one protocol.

| predictor | package or code | weights |
|---|---|---|
| `DistillMOS` | PyPI `distillmos` (brings transformers and torchaudio) | inside the package |
| `UTMOS` | a checkout of github.com/tarepan/SpeechMOS | utmos22_strong_step7459_v1.pt of its release v1.0.0 |

None of them is imported before it is built, and none downloads anything.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from specreg._torch_files import load_plain
from specreg.metrics.resampling import resample
from specreg.metrics.scores import ClipScores, Unavailable, score_clips


class MOSPredictor(Protocol):
    """The interface of a predictor of opinion scores."""

    @property
    def name(self) -> str:
        """Name of the predictor, shown beside its numbers."""

    @property
    def sample_rate(self) -> int:
        """Sample rate of the clips that it takes, Hz."""

    def __call__(self, audio: Tensor) -> float:
        """Return the predicted score of a clip `[T]` in [-1, 1] at `sample_rate`."""


class DistillMOS:
    """Microsoft's DistillMOS (Stahl and Gamper 2025), at 16 kHz; its weights come inside the package `distillmos`.

    Raises:
        Unavailable: the package is not installed.
    """

    name = "DistillMOS"
    sample_rate = 16_000

    def __init__(self, *, device: torch.device | str = "cpu") -> None:
        try:
            from distillmos import ConvTransformerSQAModel
        except ImportError as error:
            raise Unavailable(
                f"DistillMOS needs the package distillmos, which brings its weights: pip install distillmos ({error})"
            ) from None
        self.device = torch.device(device)
        with contextlib.redirect_stdout(io.StringIO()):  # the package prints the path of its weights
            self._model: Any = ConvTransformerSQAModel().eval().to(self.device)

    @torch.no_grad()
    def __call__(self, audio: Tensor) -> float:
        """Return the predicted score of a clip `[T]`."""
        return float(self._model(audio[None].float().to(self.device)))


class UTMOS:
    """UTMOS, the strong learner of UTMOS22 (Saeki et al. 2022), from a local checkout and a local weights file.

    Building it runs the code of the checkout, which has to be trusted. The weights file is read without running code.

    Args:
        checkout: folder of github.com/tarepan/SpeechMOS, with its hubconf.py.
        weights: utmos22_strong_step7459_v1.pt, from that repository's release v1.0.0.
        device: device of the network.

    Raises:
        Unavailable: a path does not exist, or a dependency of the checkout is not installed.
    """

    name = "UTMOS"
    sample_rate = 16_000

    def __init__(self, checkout: str | Path, weights: str | Path, *, device: torch.device | str = "cpu") -> None:
        checkout, weights = Path(checkout), Path(weights)
        if not (checkout / "hubconf.py").is_file():
            raise Unavailable(f"UTMOS needs a checkout of github.com/tarepan/SpeechMOS; no hubconf.py in {checkout}")
        if not weights.is_file():
            raise Unavailable(
                "UTMOS needs utmos22_strong_step7459_v1.pt from release v1.0.0 of github.com/tarepan/SpeechMOS; "
                f"no such file: {weights}"
            )
        try:
            model: Any = torch.hub.load(str(checkout), "utmos22_strong", source="local", pretrained=False)
        except (ImportError, RuntimeError) as error:
            raise Unavailable(f"UTMOS: {checkout} cannot be loaded: {error}") from None
        try:
            model.load_state_dict(load_plain(weights))
        except (ValueError, RuntimeError, TypeError, AttributeError) as error:
            raise Unavailable(f"UTMOS: {weights} does not hold its weights: {str(error).splitlines()[0]}") from None
        self.device = torch.device(device)
        self._model = model.eval().to(self.device)

    @torch.no_grad()
    def __call__(self, audio: Tensor) -> float:
        """Return the predicted score of a clip `[T]`."""
        return float(self._model(audio[None].float().to(self.device), self.sample_rate))


def mean_opinion_scores(predictor: MOSPredictor, clips: Mapping[str, Tensor], sample_rate: int) -> ClipScores:
    """Return the predicted score of every clip `[T]` at `sample_rate` Hz, resampled to the predictor's rate."""

    def score(audio: Tensor) -> float:
        return predictor(resample(audio, sample_rate, predictor.sample_rate))

    return score_clips(predictor.name, "1 to 5, higher is better", clips, score, expected=(RuntimeError, ValueError))
