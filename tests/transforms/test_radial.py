import math

import numpy as np
import pytest
import torch

from specreg.transforms.radial import band_index, equal_bands, frequency_grid, power_spectrum


@pytest.mark.parametrize("shape", [(16,), (15,), (8, 8), (9, 9), (8, 12), (4, 6, 5)], ids=str)
def test_parseval_no_coefficient_is_lost(shape):
    x = torch.randn(2, 3, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    spectrum = power_spectrum(x)
    energy = (spectrum.power * spectrum.size).sum(1)
    torch.testing.assert_close(energy, x.square().flatten(1).sum(1) / 3, rtol=1e-10, atol=0)
    assert spectrum.size.sum() == np.prod(shape)


@pytest.mark.parametrize("n", [31, 32])
def test_two_dimensional_average_equals_numpy_on_the_full_spectrum(n):
    x = np.random.default_rng(0).standard_normal((n, n))
    power = np.abs(np.fft.fft2(x, norm="ortho")) ** 2
    k = np.fft.fftfreq(n) * n
    radius = np.rint(np.hypot(k[:, None], k[None, :])).astype(int)
    expected = np.bincount(radius.ravel(), power.ravel()) / np.bincount(radius.ravel())
    ours = power_spectrum(torch.from_numpy(x)[None, None])
    np.testing.assert_allclose(ours.power[0].numpy(), expected, rtol=1e-10)
    np.testing.assert_allclose(ours.frequency.numpy(), np.arange(len(expected)) / n)


def test_a_sine_stands_in_its_bin():
    t = torch.arange(64, dtype=torch.float64)
    spectrum = power_spectrum(torch.sin(2 * torch.pi * 5 * t / 64)[None])
    assert int(spectrum.power[0].argmax()) == 5
    assert float(spectrum.power[0, 5]) == pytest.approx(64 / 4, rel=1e-9)  # half the energy 32 in each of two bins
    assert float(spectrum.frequency[5]) == 5 / 64


def test_white_noise_is_flat():
    x = torch.randn(64, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    spectrum = power_spectrum(x)
    # |F|² of unit noise has mean 1 and variance at most 2, at its real coefficients.
    deviation = (2 / (64 * spectrum.size)).sqrt()
    assert ((spectrum.power.mean(0) - 1).abs() < 4 * deviation).all()


def test_bands_cover_every_bin_once_and_in_order():
    shape = (16, 12)
    index = band_index(shape, 8)
    assert index.shape == frequency_grid(shape).shape
    assert set(index.unique().tolist()) == set(range(8))
    grid = frequency_grid(shape)
    assert all(grid[index == k].max() <= grid[index == k + 1].min() for k in range(7))
    with pytest.raises(ValueError, match="bands must be at least 1"):
        band_index(shape, 0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n", [7, 10, 14, 49, 100])
def test_a_frequency_at_an_edge_is_in_the_band_above_in_any_precision(n, dtype):
    """Against whole numbers: √m / n lies in band ⌊2 bands √m / n⌋."""
    k = torch.arange(n // 2 + 1)
    m = (k[:, None].square() + k.square()).flatten()
    frequency = ((k.to(dtype) / n).square()[:, None] + (k.to(dtype) / n).square()).sqrt().flatten()
    for bands in range(1, 40):
        expected = [min(math.isqrt(4 * bands**2 * squares // n**2), bands - 1) for squares in m.tolist()]
        assert equal_bands(frequency, bands).tolist() == expected
