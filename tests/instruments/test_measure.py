import numpy as np
import pytest
import torch

from random_fields import gaussian_fields, power_law
from specreg.instruments import Settings, measure
from specreg.instruments.coefficients import coefficients, response
from specreg.instruments.grid import grid
from specreg.instruments.properties import (
    directions,
    error_against_number,
    power_quantiles,
    slope,
    split_half,
    wavelet_levels,
)
from specreg.transforms.windows import window_of

FEW = 200
SHAPES = [(20, 30), (31, 31), (32, 32), (33, 20), (64,), (63,), (8, 12, 10)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("transform", ["dft", "dct"])
def test_energy_is_that_of_the_samples(shape, transform):
    x = gaussian_fields(50, shape, lambda f: 1 + f, channels=2) + 3
    found = measure(x, Settings(window="none", transform=transform, replicates=FEW))
    power = np.array([found.zero_power, *found.power, found.corner_power or 0.0])
    energy = 2 * (power * found.grid.size).sum()
    assert energy == pytest.approx(float(x.square().sum() / 50), rel=1e-10)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("window", "detrend", "transform"),
    [("none", "mean", "dft"), ("hann", "mean", "dft"), ("hann", "plane", "dft"), ("tukey", "plane", "dft"),
     ("none", "plane", "dft"), ("none", "mean", "dct"), ("none", "plane", "dct")],
)  # fmt: skip
def test_white_noise_is_flat_to_the_last_bin(shape, window, detrend, transform):
    x = gaussian_fields(400, shape, lambda f: np.ones_like(f), channels=2) + 3
    found = measure(x, Settings(window, detrend, transform, FEW))
    error = found.replicates.std(0)
    assert np.abs((found.power - 1) / error).max() < 4.5
    assert found.corner_power is None or abs(found.corner_power - 1) < 0.05


@pytest.mark.parametrize("window", ["hann", "tukey", "none"])
@pytest.mark.parametrize("detrend", ["mean", "plane", "none"])
def test_response_is_the_mean_power_of_white_noise(window, detrend):
    """The closed form against the sum over unit impulses, whose squared spectra add up to it."""
    lattice = grid((6, 9))
    impulses = torch.eye(54, dtype=torch.float64).view(54, 1, 6, 9)
    summed = coefficients(impulses, lattice, window, detrend).abs().square().sum((0, 1))
    expected = torch.ones_like(summed)
    torch.testing.assert_close(summed[1:], expected[1:], rtol=1e-9, atol=1e-9)
    assert (response(lattice, window, detrend)[1:] <= 1 + 1e-12).all()


@pytest.mark.parametrize(("window", "expected"), [("none", [1, 1, 1, 1]), ("hann", [0.2391, 1.3938, 1.3938, 0.2391])])
def test_windows(window, expected):
    np.testing.assert_allclose(window_of(4, window), expected, atol=1e-3)
    assert float(window_of(37, "tukey").square().mean()) == pytest.approx(1)


def test_a_wave_is_in_its_bin_with_its_power():
    y, x = np.mgrid[:32, :32]
    wave = np.sqrt(2) * np.cos(2 * np.pi * (3 * y + 4 * x) / 32 + 0.3)
    found = measure(torch.from_numpy(np.stack([wave] * 8)[:, None]), Settings("none", replicates=FEW))
    energy = found.power * found.grid.size[1:-1]
    assert np.argmax(energy) == 4  # |k| = 5
    assert energy[4] == pytest.approx(32 * 32)
    assert energy.sum() == pytest.approx(32 * 32)


def test_alternating_signal_is_in_the_nyquist_bin_once():
    x = torch.tensor([1.0, -1.0]).repeat(8).expand(6, 1, 16).double()
    found = measure(x, Settings("none", replicates=FEW))
    assert found.power[-1] * found.grid.size[-2] == pytest.approx(16)


def test_a_window_lowers_leakage_of_a_wave_between_bins():
    place = torch.arange(256, dtype=torch.float64)
    phase = torch.linspace(0, 6, 16, dtype=torch.float64)[:, None, None]
    x = (2 * np.pi * 5.5 * place / 256 + phase).sin()
    far = {w: measure(x, Settings(w, replicates=FEW)).power[100:] for w in ("none", "tukey", "hann")}
    peak = {w: measure(x, Settings(w, replicates=FEW)).power.max() for w in far}
    leak = {w: 10 * np.log10(far[w].mean() / peak[w]) for w in far}
    assert leak["none"] > -43
    assert leak["tukey"] < -70
    assert leak["hann"] < -100


@pytest.mark.parametrize("exponent", [-3.0, -2.0, -1.0, 0.0])
@pytest.mark.parametrize(("window", "tolerance"), [("none", 0.012), ("hann", 0.07)])
def test_slope_of_power_laws(exponent, window, tolerance):
    """Hann's main lobe, three bins wide, makes a steep law look steeper by 2%."""
    x = gaussian_fields(400, (64, 64), power_law(exponent))
    found = slope(measure(x, Settings(window, replicates=FEW)))
    assert found.value == pytest.approx(exponent, abs=tolerance)
    assert found.low < found.value < found.high
    assert found.high - found.low < 0.1


def test_slope_needs_three_bins():
    with pytest.raises(ValueError, match="three bins"):
        slope(measure(torch.randn(8, 1, 16, 16)), (0.3, 0.35))


def test_uncertainty_is_that_of_independent_units():
    """Four equal tiles of each picture say no more than one."""
    from specreg.instruments.measuring import InMemory

    class Tiles(InMemory):
        def groups(self):
            return [i // 4 for i in range(len(self))]

    x = gaussian_fields(60, (16, 16), lambda f: 1 + f)
    one = measure(x, Settings(replicates=FEW))
    four = measure(Tiles(x.repeat_interleave(4, 0)), Settings(replicates=FEW))
    np.testing.assert_allclose(four.power, one.power, rtol=1e-12)
    np.testing.assert_allclose(four.replicates, one.replicates, rtol=1e-12)
    assert (four.sums.samples, four.sums.groups) == (240, 60)


def test_results_do_not_depend_on_workers_or_chunks(monkeypatch):
    x = torch.randn(700, 3, 16, 16)
    one = measure(x, Settings(replicates=FEW), workers=1)
    four = measure(x, Settings(replicates=FEW), workers=4)
    for name, total in one.sums.total.items():
        assert np.array_equal(total, four.sums.total[name])
    assert np.array_equal(one.replicates, four.replicates)
    monkeypatch.setattr("specreg.instruments.measuring.CHUNK_VALUES", 5000)
    small = measure(x, Settings(replicates=FEW), workers=2)
    np.testing.assert_allclose(small.replicates, one.replicates, rtol=1e-9)


def test_wavelets_and_powers_of_gaussian_data():
    x = gaussian_fields(600, (32, 32), lambda f: np.ones_like(f))
    found = measure(x, Settings("none", replicates=FEW))
    for level in wavelet_levels(found):
        assert level.power.value == pytest.approx(1, rel=0.05)
        assert level.kurtosis.value == pytest.approx(3, abs=0.15)
        assert level.sparsity.value == pytest.approx(2 / np.pi, abs=0.01)
    expected = 10 * np.log10(-np.log(1 - np.array([0.05, 0.25, 0.5, 0.75, 0.95])))
    for band in power_quantiles(found):
        np.testing.assert_allclose(band, expected, atol=0.6)


@pytest.mark.parametrize(("axis", "degrees"), [(1, 0.0), (0, 90.0)])
def test_stripes_have_a_direction(axis, degrees):
    noise = torch.randn(200, 1, 32, 32, dtype=torch.float64)
    stripes = noise.mean(2 + (1 - axis), keepdim=True).expand(-1, -1, 32, 32) * 10
    found = directions(measure(noise + stripes, Settings("none", replicates=FEW)))
    strongest = max(found, key=lambda d: d.ratio_db.value)
    assert strongest.degrees == degrees
    assert strongest.ratio_db.low > 3


def test_error_falls_with_the_root_of_the_number_and_halves_differ_by_it():
    """White noise of 32² pixels, from the variance of |F|²: error of a bin is 4.34 · √(1 / (N · size / 2)) dB."""
    x = gaussian_fields(1024, (32, 32), lambda f: np.ones_like(f))
    found = measure(x, Settings("none", replicates=FEW))
    independent = np.maximum(found.grid.size[1:-1] / 2, 1)
    for error in error_against_number(found):
        expected = 10 / np.log(10) * np.sqrt((1 / (error.samples * independent)).mean())
        assert error.decibels == pytest.approx(expected, rel=0.2)
    halves = 10 / np.log(10) * np.sqrt((2 / (512 * independent)).mean())
    assert split_half(found).value == pytest.approx(halves, rel=0.15)


@pytest.mark.parametrize(
    ("x", "said"),
    [
        (torch.ones(4, 8), "N, C"),
        (torch.ones(4, 1, 8, dtype=torch.int64), "floats"),
        (torch.full((4, 1, 8), torch.nan), "finite"),
    ],
)
def test_bad_samples_are_refused(x, said):
    with pytest.raises(ValueError, match=said):
        measure(x)
    with pytest.raises(ValueError, match="mirrors the data"):
        Settings("hann", transform="dct")
