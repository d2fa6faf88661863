import numpy as np
import pytest
import torch
from sklearn.metrics.pairwise import polynomial_kernel

from specreg.metrics.kernel_distance import EfficientNetFeatures, kernel_distance


def test_value_is_the_definition():
    x, y = torch.randn(7, 5), torch.randn(9, 5) + 0.5
    k = polynomial_kernel(np.concatenate([x, y]).astype(float), degree=3, gamma=1 / 5, coef0=1)
    np.fill_diagonal(k, 0)
    expected = k[:7, :7].sum() / 42 + k[7:, 7:].sum() / 72 - 2 * k[:7, 7:].mean()
    assert kernel_distance(x, y) == pytest.approx(expected, rel=1e-9)


def test_one_distribution_scatters_around_zero_at_any_size():
    generator = torch.Generator().manual_seed(0)
    for n in (4, 40):
        found = [kernel_distance(*torch.randn(2, n, 16, generator=generator)) for _ in range(400)]
        assert abs(np.mean(found)) < 4 * np.std(found) / 20
        assert min(found) < 0 < max(found)


@pytest.mark.parametrize(
    ("x", "y", "words"),
    [
        (torch.zeros(1, 4), torch.zeros(3, 4), "x must be \\[2 or more"),
        (torch.zeros(2, 4), torch.zeros(3, 5), "y must be"),
        (torch.full((2, 4), torch.nan), torch.zeros(3, 4), "x must be finite"),
    ],
)
def test_bad_features_are_refused(x, y, words):
    with pytest.raises(ValueError, match=words):
        kernel_distance(x, y)


def test_features_know_blur_from_sharpness():
    pytest.importorskip("efficientnet_lite_pytorch")
    extract = EfficientNetFeatures()
    generator = torch.Generator().manual_seed(0)
    sharp = torch.randn(24, 3, 32, 32, generator=generator)
    blurred = torch.nn.functional.avg_pool2d(sharp, 5, 1, 2) * 3
    images = [(40 * x + 128).clamp(0, 255).byte() for x in (sharp[:12], sharp[12:], blurred[12:])]
    real, more, smooth = (extract(x, batch_size=5) for x in images)
    assert real.shape == (12, 1280)
    torch.testing.assert_close(extract(images[0]), real, rtol=1e-3, atol=1e-4)
    assert kernel_distance(real, smooth) > 10 * abs(kernel_distance(real, more))
    with pytest.raises(ValueError, match="uint8"):
        extract(sharp)
