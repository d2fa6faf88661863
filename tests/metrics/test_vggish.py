"""VGGish against outputs of the PyTorch port (torchvggish 0.2), recorded in vggish.npz for weights made here.

Real weights are 290 MB. These repeat a few thousand numbers along the diagonals of every matrix, so that the file is
small and every value of a layer still has its own place.
"""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from specreg.metrics.embeddings import embed, embedding_statistics
from specreg.metrics.scores import Unavailable
from specreg.metrics.vggish import VGGish, log_mel_patches

RECORDED = Path(__file__).with_name("vggish.npz")
CONVS = {0: (1, 64), 3: (64, 128), 6: (128, 256), 8: (256, 256), 11: (256, 512), 13: (512, 512)}
LINEARS = {0: (512 * 24, 4096), 2: (4096, 4096), 4: (4096, 128)}


def scrambled(count, key):
    """Numbers in [-0.5, 0.5) that look random and are the same everywhere."""
    k = np.arange(count, dtype=np.uint64) + np.uint64(key)
    return ((k * np.uint64(2654435761) ^ (k << np.uint64(7))) % np.uint64(1_000_003)).astype(
        np.float64
    ) / 1_000_003 - 0.5


def weights():
    state = {}
    for part, layers in (("features", CONVS), ("embeddings", LINEARS)):
        for i, (inputs, outputs) in layers.items():
            fan_in = inputs * (9 if part == "features" else 1)
            values = scrambled(outputs + fan_in, 1000 * i + len(part)) * math.sqrt(24 / fan_in)
            matrix = torch.from_numpy(values.astype(np.float32)).as_strided((outputs, fan_in), (1, 1))
            state[f"{part}.{i}.weight"] = matrix.reshape(outputs, inputs, 3, 3) if part == "features" else matrix
            state[f"{part}.{i}.bias"] = torch.from_numpy(0.1 * scrambled(outputs, i).astype(np.float32))
    return state


def sound():
    t = np.arange(40_000) / 16_000
    tones = 0.3 * np.sin(2 * np.pi * 300 * t * (1 + t)) + 0.1 * np.sin(2 * np.pi * 3000 * t)
    return torch.from_numpy(tones + 0.05 * scrambled(len(t), 5))


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("vggish") / "weights.pth"
    torch.save(weights(), path)
    assert path.stat().st_size < 20e6
    return path


def test_patches_are_the_port_s():
    patches = log_mel_patches(sound())
    assert patches.shape == (2, 96, 64)
    with np.load(RECORDED) as recorded:
        torch.testing.assert_close(patches[0], torch.from_numpy(recorded["patch"]), rtol=1e-5, atol=1e-5)
    assert log_mel_patches(sound()[:15_599]).shape == (0, 96, 64)
    assert log_mel_patches(sound()[:15_600]).shape == (1, 96, 64)


@pytest.mark.parametrize("activation", [False, True])
def test_embeddings_are_the_port_s(file, activation):
    extractor = VGGish(file, activation=activation)
    with np.load(RECORDED) as recorded:
        expected = torch.from_numpy(recorded["embeddings"])
    expected = expected.relu() if activation else expected
    torch.testing.assert_close(extractor(sound()), expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())
    assert extractor(sound()[:100]).shape == (0, 128)


def test_statistics_name_clips_without_a_patch(file):
    statistics = embedding_statistics(embed(VGGish(file), {"long": sound(), "short": sound()[:8000]}, 16_000))
    assert (statistics.windows, statistics.too_short) == (2, ["short"])


def test_missing_or_other_weights_are_said(tmp_path):
    with pytest.raises(Unavailable, match=r"VGGish needs vggish-10086976.pth from .*; no such file: "):
        VGGish(tmp_path / "none.pth")
    torch.save({"features.0.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(Unavailable, match=r"other.pth does not hold its tensors .*features.3.weight"):
        VGGish(tmp_path / "other.pth")
