import math

import numpy as np
import pytest
import torch

from specreg.data import Checkerboards, board_bands, boards
from specreg.metrics import spectra


def noise(count, std, seed=0):
    return std * torch.randn(count, 1, 32, 32, generator=torch.Generator().manual_seed(seed))


def test_scaling_the_samples_shifts_every_bin_by_as_many_decibels():
    x = noise(16, 0.5)
    truth, scaled = spectra.mean_spectrum(x), spectra.mean_spectrum(0.5 * x)
    expected = 20 * math.log10(2)
    assert spectra.log_spectral_distance(scaled, truth) == pytest.approx(expected, rel=1e-6)
    assert spectra.power_ratio(scaled, truth) == pytest.approx(-expected, rel=1e-6)
    assert spectra.power_ratio(scaled, truth, low=0.25) == pytest.approx(-expected, rel=1e-6)
    assert spectra.log_spectral_distance(truth, truth) == 0


def test_brightness_does_not_count():
    x = noise(16, 0.1)
    truth = spectra.mean_spectrum(x)
    assert spectra.log_spectral_distance(spectra.mean_spectrum(x + 0.3), truth) == pytest.approx(
        0, abs=1e-6
    )  # float32 rounding of x + 0.3


def test_what_lies_below_8_bit_rounding_does_not_count():
    silent, faint = torch.zeros(4, 1, 32, 32), noise(4, 1e-4)
    assert spectra.log_spectral_distance(spectra.mean_spectrum(silent), spectra.mean_spectrum(faint)) == 0


def test_the_floor_is_the_power_of_8_bit_rounding():
    x = 0.5 * torch.rand(64, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    error = spectra.from_uint8(spectra.to_uint8(x)) - x
    power = float((error - error.mean()).double().square().mean())
    assert power == pytest.approx(spectra.QUANTIZATION_POWER, rel=0.02)


def test_8_bit_images_are_edms():
    x = torch.tensor([-1.2, -1.0, -0.999, 0.0, 0.9999, 1.0, 1.3])
    expected = np.clip(x.numpy() * np.float32(127.5) + np.float32(128), 0, 255).astype(np.uint8)
    assert spectra.to_uint8(x).tolist() == expected.tolist()
    levels = torch.arange(256, dtype=torch.uint8)
    assert spectra.to_uint8(spectra.from_uint8(levels)).tolist() == levels.tolist()


def test_blur_lowers_high_frequencies_only():
    x = noise(64, 0.3)
    k = torch.fft.fftfreq(32)
    keep = (torch.hypot(k[:, None], k[None, :]) <= 0.25).float()
    blurred = torch.fft.ifft2(torch.fft.fft2(x) * keep).real
    truth, smooth = spectra.mean_spectrum(x), spectra.mean_spectrum(blurred)
    assert spectra.power_ratio(smooth, truth, high=0.24) == pytest.approx(0, abs=0.05)
    assert spectra.power_ratio(smooth, truth, low=0.27) < -30


def test_spectra_of_different_sizes_are_refused():
    with pytest.raises(ValueError, match="one image size"):
        spectra.log_spectral_distance(
            spectra.mean_spectrum(torch.zeros(1, 1, 8, 8)), spectra.mean_spectrum(torch.zeros(1, 1, 16, 16))
        )


@pytest.mark.parametrize("other", [(24, 32), (32, 24), (30, 32), (1, 32)])
def test_sizes_whose_bins_agree_are_told_apart(other):
    """White noise of 24×32 has the bins of 32×32, and three quarters of its energy: −1.25 dB."""
    square = spectra.mean_spectrum(noise(4, 0.3))
    oblong = spectra.mean_spectrum(0.3 * torch.randn(4, 1, *other, generator=torch.Generator().manual_seed(0)))
    for compare in (spectra.power_ratio, spectra.log_spectral_distance):
        with pytest.raises(
            ValueError, match=rf"bins of {other[0] * other[1]} coefficients and .* of 1024 coefficients"
        ):
            compare(oblong, square)


def test_the_order_of_the_axes_does_not_matter():
    x = noise(4, 0.3)[..., :24]
    assert spectra.power_ratio(spectra.mean_spectrum(x.mT), spectra.mean_spectrum(x)) == pytest.approx(0, abs=1e-12)


def test_boards_score_one_and_noise_does_not():
    data = Checkerboards(8, resolution=32)
    x = torch.stack([data.item(i) for i in range(8)])
    family, bands = boards(32), board_bands(32)
    torch.testing.assert_close(spectra.board_fidelity(x, family), torch.ones(8))
    torch.testing.assert_close(spectra.board_fidelity(0.5 * x, family), torch.full((8,), 0.5))
    assert spectra.board_fidelity(noise(8, 1.0), family).max() < 0.2
    assert spectra.band_energy_share(x, bands) == pytest.approx(1.0, abs=1e-9)
    share = float(bands.sum() / (bands.numel() - 1))
    assert spectra.band_energy_share(noise(256, 1.0), bands) == pytest.approx(share, abs=0.01)
    with pytest.raises(ValueError, match=r"\[N, 1, 32, 32\]; got \[8, 1, 16, 16\]"):
        spectra.board_fidelity(x[:, :, :16, :16], family)
