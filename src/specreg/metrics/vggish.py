"""VGGish (Hershey et al. 2017), the embedding that FAD is defined on, with weights from a file of the user.

Its input consists of consecutive patches of 0.96 s at 16 kHz: 96 frames of 64 mel bands, hop 10 ms, window 25 ms,
values ln(amplitude + 0.01). The bands are spaced evenly on the HTK mel scale from 125 to 7500 Hz. Their triangles are
linear in mel, unlike those of librosa and `data.mel`, which are linear in Hz.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from specreg._torch_files import load_plain
from specreg.metrics.scores import Unavailable

WINDOW, HOP, N_FFT = 400, 160, 512
FRAMES, BANDS = 96, 64
WEIGHTS = "vggish-10086976.pth from release v0.1 of github.com/harritaylor/torchvggish"


class VGGish:
    """VGGish as an `AudioExtractor`: `[T]` at 16 kHz to `[T // 0.96 s, 128]`.

    Args:
        weights: vggish-10086976.pth from release v0.1 of github.com/harritaylor/torchvggish, read without running code.
        activation: whether the last layer has its ReLU. FAD packages for PyTorch leave it out, as the default does;
            published distances are comparable only where both agree.
        device: device of the network.

    Raises:
        Unavailable: there is no such file, or it holds other tensors.
    """

    sample_rate = 16_000

    def __init__(self, weights: str | Path, *, activation: bool = False, device: torch.device | str = "cpu") -> None:
        weights = Path(weights)
        if not weights.is_file():
            raise Unavailable(f"VGGish needs {WEIGHTS}; no such file: {weights}")
        with torch.device("meta"):
            network = _Network()
        try:
            network.load_state_dict(load_plain(weights), assign=True)
        except (ValueError, RuntimeError, TypeError, AttributeError) as error:
            reason = " ".join(str(error).split())[:300]
            raise Unavailable(f"VGGish needs {WEIGHTS}; {weights} does not hold its tensors ({reason})") from None
        self.name = "VGGish" if not activation else "VGGish with its last ReLU"
        self.activation, self.device = activation, torch.device(device)
        self._network = network.requires_grad_(False).eval().to(self.device)

    @torch.no_grad()
    def __call__(self, audio: Tensor) -> Tensor:
        """Return embeddings `[patches, 128]` of a clip `[T]`; a clip shorter than a patch has none."""
        patches = log_mel_patches(audio)
        if not len(patches):
            return torch.zeros(0, 128)
        embeddings: Tensor = self._network(patches.to(self.device)).cpu()
        return embeddings.relu() if self.activation else embeddings


def log_mel_patches(audio: Tensor) -> Tensor:
    """Return VGGish's input for a clip `[T]` at 16 kHz, float32 `[patches, 96, 64]`, without an incomplete patch."""
    audio = audio.detach().cpu().double()
    if len(audio) < WINDOW + (FRAMES - 1) * HOP:
        return torch.zeros(0, FRAMES, BANDS)
    frames: Tensor = audio.unfold(0, WINDOW, HOP) * torch.hann_window(WINDOW, dtype=torch.float64)
    amplitude = torch.fft.rfft(frames, N_FFT).abs()
    log_mel: Tensor = (amplitude @ _triangles() + 0.01).log()
    patches = len(log_mel) // FRAMES
    return log_mel[: patches * FRAMES].reshape(patches, FRAMES, BANDS).float()


@lru_cache(maxsize=1)
def _triangles() -> Tensor:
    """Return the weights of VGGish's mel bands, float64 `[N_FFT / 2 + 1, BANDS]`; the zero frequency has none."""

    def mel(hertz: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> Tensor:
        return torch.from_numpy(1127 * np.log1p(hertz / 700))

    at = mel(np.linspace(0, VGGish.sample_rate / 2, N_FFT // 2 + 1))[:, None]
    low, high = mel(np.array([125.0, 7500.0])).tolist()
    edges = torch.linspace(low, high, BANDS + 2, dtype=torch.float64)
    rising = (at - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - at) / (edges[2:] - edges[1:-1])
    weights = torch.minimum(rising, falling).clamp_min(0)
    weights[0] = 0
    return weights


class _Network(nn.Module):
    """Layers of VGGish under the names of the weights file, without the last ReLU."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 1
        for stage in ((64,), (128,), (256, 256), (512, 512)):
            for width in stage:
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
                channels = width
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.embeddings = nn.Sequential(
            nn.Linear(FRAMES * BANDS // 256 * 512, 4096),
            nn.ReLU(),
            nn.Linear(4096, 4096),
            nn.ReLU(),
            nn.Linear(4096, 128),
        )

    def forward(self, patches: Tensor) -> Tensor:
        """Return embeddings `[N, 128]` of patches `[N, 96, 64]`."""
        h = self.features(patches[:, None])
        # The weights of the first linear layer expect channels last.
        out: Tensor = self.embeddings(h.permute(0, 2, 3, 1).flatten(1))
        return out
