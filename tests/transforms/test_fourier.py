import numpy as np
import pytest
import torch

from specreg.transforms import fourier

SHAPES = [(9,), (8,), (6, 5), (5, 6), (4, 3, 2), (3, 4, 5), (1,), (1, 1)]


def full_axes(shape):
    return tuple(range(-len(shape), 0))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("norm", fourier.NORMS)
def test_weighted_half_spectrum_sums_equal_full_spectrum_sums(shape, norm):
    x = np.random.default_rng(0).standard_normal((2, *shape))
    half = fourier.half_spectrum(torch.from_numpy(x), ndim=len(shape), norm=norm)
    weights = fourier.bin_weights(shape[-1], dtype=torch.float64)
    full = np.fft.fftn(x, axes=full_axes(shape), norm=norm)
    ours = (half.abs() * weights).flatten(1).sum(1).numpy()
    np.testing.assert_allclose(ours, np.abs(full).reshape(2, -1).sum(1), rtol=1e-12)
