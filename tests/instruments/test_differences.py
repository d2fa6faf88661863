import numpy as np
import pytest
import torch

from random_fields import filtered, gaussian_fields, power_law
from specreg.instruments import Settings, agreement, difference, measure, spectra
from specreg.instruments.artefacts import artefacts, candidates
from specreg.instruments.figures import power_figure, ratio_figure

PERIODIC = Settings("none", replicates=300)


def pair(reference, other, settings=PERIODIC):
    return measure(other, settings, seed=1), measure(reference, settings, seed=0)


def gauss(f, width=0.2):
    return np.exp(-((f / width) ** 2) / 2)


def test_a_blur_of_known_response():
    x, y = (gaussian_fields(600, (32, 32), power_law(-2.0), seed=s) for s in (0, 1))
    blurred, real = pair(x, filtered(y, gauss))
    found = difference(blurred, real)
    exact = measure(filtered(x, gauss), PERIODIC)  # of the same fields: free of the noise of two sets
    expected = 20 * np.log10(gauss(real.frequency))
    np.testing.assert_allclose(10 * np.log10(exact.power / real.power)[4:], expected[4:], atol=0.25)
    for band in found.bands:
        inside = (real.grid.centre > band.low + 1e-9) & (real.grid.centre <= band.high + 1e-9)
        truth = expected[inside]
        assert truth.min() - 0.4 < band.ratio_db.value < truth.max() + 0.4
        assert band.ratio_db.low < band.ratio_db.value < band.ratio_db.high
    assert [band.significant for band in found.bands[1:]] == [True] * (len(found.bands) - 1)
    truth = np.sqrt((expected**2).mean())
    assert found.log_spectral_distance_db.value == pytest.approx(truth, rel=0.05)


def test_effective_resolution_of_a_known_blur():
    """|H|² = exp(−f²/w²) is a half at w·√(ln 2)."""
    x, y = (gaussian_fields(600, (64, 64), power_law(-1.0), seed=s) for s in (0, 1))
    blurred, real = pair(x, filtered(y, gauss))
    found = difference(blurred, real).effective_resolution
    assert found.value == pytest.approx(0.2 * np.sqrt(np.log(2)), abs=0.01)
    assert found.low < 0.2 * np.sqrt(np.log(2)) < found.high
    assert difference(blurred, real, share=0.1).effective_resolution.value == pytest.approx(
        0.2 * np.sqrt(np.log(10)), abs=0.012
    )
    assert difference(real, real).effective_resolution is None


def test_sets_of_one_distribution_do_not_differ():
    """Over 60 pairs of small sets: about 95% of intervals hold 0, about 5% of pairs have a significant band."""
    held, alarms, distances = 0, 0, []
    for trial in range(60):
        x, y = (gaussian_fields(24, (16, 16), power_law(-2.0), seed=2 * trial + s) for s in (0, 1))
        found = difference(*pair(x, y))
        held += found.high_band_db.low <= 0 <= found.high_band_db.high
        alarms += any(band.significant for band in found.bands)
        distances.append(found.log_spectral_distance_db.value)
    assert 52 <= held <= 60
    assert alarms <= 9
    assert np.median(distances) < 0.3
    assert found.uncorrected_db > 0.4


@pytest.mark.parametrize("count", range(5, 13))
def test_few_samples_have_distances_within_their_intervals(count):
    """Up to 8 samples, one or more of these 1,000 replicates hold none."""
    settings = Settings("none", replicates=1000)
    x, y = (gaussian_fields(count, (16, 16), lambda f: np.ones_like(f), seed=count + 100 * s) for s in (0, 1))
    real = measure(x, settings, seed=0)
    for gain, truth in ((1, 0.0), (2, 20 * np.log10(2))):
        found = difference(measure(gain * y, settings, seed=1), real)
        distance = found.log_spectral_distance_db
        assert distance.low <= distance.value <= distance.high < truth + 2.5
        assert distance.value == pytest.approx(truth, abs=1.5)
        assert found.high_band_db.low < truth < found.high_band_db.high
        assert [band.significant for band in found.bands] == [gain == 2] * len(found.bands)
        for octave in found.octaves:
            low, value, high = sorted(octave.log_spectral_distance_db)
            assert octave.log_spectral_distance_db == (value, low, high)


def test_a_replicate_without_samples_counts_nowhere():
    x, y = (gaussian_fields(5, (16, 16), power_law(-1.0), seed=s) for s in (0, 1))
    other, real = pair(x, filtered(y, gauss), Settings("none", replicates=1000))
    assert (real.sums.counts == 0).any()
    assert np.array_equal(np.isnan(real.replicates).all(1), real.sums.counts == 0)
    found = difference(other, real)
    estimates = [found.log_spectral_distance_db, found.high_band_db, found.corners_db, found.zero_db]
    estimates += [found.effective_resolution, *(octave.log_spectral_distance_db for octave in found.octaves)]
    estimates += [band.ratio_db for band in found.bands]
    estimates += [each for bin_ in agreement(y, x, Settings("none", replicates=1000)) for each in bin_[1:]]
    assert np.isfinite(np.array(estimates)).all()
    assert np.isfinite(real.bounds()).all()
    result = spectra(x, y, settings=Settings("none", replicates=1000))
    assert len(power_figure(result).axes[0].collections) == 2  # the bands of both sets
    assert len(ratio_figure(result).axes[0].collections) == 1


def test_a_gain_is_seen_everywhere_and_in_zero_frequency():
    x = gaussian_fields(300, (20, 30), lambda f: 1 + f) + 1
    found = difference(*pair(x, 2 * x))
    for value in (*(band.ratio_db for band in found.bands), found.high_band_db, found.corners_db, found.zero_db):
        assert value.value == pytest.approx(20 * np.log10(2))


def test_paired_sets_have_narrow_intervals():
    x = gaussian_fields(50, (16, 16), power_law(-2.0))
    y = filtered(x, gauss)
    unpaired = difference(measure(y, PERIODIC, seed=1), measure(x, PERIODIC, seed=0)).high_band_db
    paired = difference(measure(y, PERIODIC, seed=0), measure(x, PERIODIC, seed=0)).high_band_db
    assert paired.high - paired.low < 0.6 * (unpaired.high - unpaired.low)


def test_sets_that_cannot_be_compared_are_refused():
    a = measure(torch.randn(8, 1, 16, 16), PERIODIC)
    for x, said in ((torch.randn(8, 1, 16, 17), "--tile"), (torch.randn(8, 3, 16, 16), "--channels luma")):
        with pytest.raises(ValueError, match=said):
            difference(measure(x, PERIODIC), a)
    with pytest.raises(ValueError, match="one way of measuring"):
        difference(measure(torch.randn(8, 1, 16, 16), Settings(replicates=300)), a)


def test_few_samples_have_no_interval():
    found = difference(*pair(torch.randn(3, 1, 16, 16), torch.randn(3, 1, 16, 16)))
    assert np.isnan(found.high_band_db.low)
    assert found.bands[0].significant is None


@pytest.mark.parametrize("settings", [PERIODIC, Settings(replicates=300)])
@pytest.mark.parametrize(
    ("period", "steps", "frequency"),
    [(2, (0, 1), (0.0, 0.5)), (2, (1, 1), (0.5, 0.5)), (4, (1, 0), (0.25, 0.0)), (8, (3, 1), (0.375, 0.125))],
)
def test_planted_grids_are_found_where_they_are(settings, period, steps, frequency):
    x, y = (gaussian_fields(200, (64, 64), power_law(-2.0), seed=s) for s in (0, 1))
    rows, columns = np.mgrid[:64, :64]
    grid = np.cos(2 * np.pi * (steps[0] * rows + steps[1] * columns) / period)
    strength = 0.5 * y.std().item() * 0.1
    other, real = pair(x, y + strength * torch.from_numpy(grid), settings)
    found = artefacts(other, real)
    assert found[0].frequency == frequency
    assert found[0].period == period
    assert found[0].z > 7
    assert artefacts(other)[0].frequency == frequency  # also without a reference
    assert artefacts(real) == []


def test_a_grid_in_the_outermost_corner_of_small_images():
    x, y = (gaussian_fields(200, (32, 32), power_law(-2.0), seed=s) for s in (0, 1))
    rows, columns = np.mgrid[:32, :32]
    other, real = pair(x, y + 0.1 * torch.from_numpy((-1.0) ** (rows + columns)))
    assert artefacts(other, real)[0].frequency == artefacts(other)[0].frequency == (0.5, 0.5)


def test_grids_are_not_seen_where_there_are_none():
    highest = []
    for trial in range(20):
        x, y = (gaussian_fields(50, (32, 32), power_law(-1.5), seed=2 * trial + s) for s in (0, 1))
        highest.append(candidates(*pair(x, y))[0].z)
    assert max(highest) < 4


def test_a_grid_that_the_data_have_too_is_not_the_models():
    rows = np.mgrid[:32, :32][0]
    grid = torch.from_numpy(0.3 * np.cos(np.pi * rows))
    x, y = (gaussian_fields(200, (32, 32), lambda f: np.ones_like(f), seed=s) + grid for s in (0, 1))
    other, real = pair(x, y)
    assert artefacts(real)[0].frequency == (0.5, 0.0)
    assert artefacts(other, real) == []


@pytest.mark.parametrize(
    "settings", [PERIODIC, Settings(replicates=300), Settings("none", transform="dct", replicates=300)]
)
def test_coherence_of_signal_and_noise(settings):
    """With noise of share s of the signal's power coherence is 1 / (1 + s), whatever the gain."""
    x = gaussian_fields(400, (32, 32), lambda f: np.ones_like(f), channels=2)
    noisy = 3 * (
        x + np.sqrt(0.5) * torch.randn(x.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    )
    for found in agreement(noisy, x, settings)[1:]:
        assert found.coherence.value == pytest.approx(1 / 1.5, abs=0.05)
        assert found.coherence.low - 0.02 < 1 / 1.5 < found.coherence.high + 0.02
    for found in agreement(3 * x, x, settings):
        assert found.coherence.value == pytest.approx(1)
        assert found.phase.value == pytest.approx(1, abs=0.08)  # the mean is removed: less at the lowest frequencies


def test_phase_agreement_ignores_amplitude_and_sees_a_shift():
    x = gaussian_fields(300, (64,), lambda f: np.ones_like(f))
    shifted = agreement(torch.roll(x, 1, -1), x, PERIODIC)
    for found in shifted:
        assert found.phase.value == pytest.approx(np.cos(2 * np.pi * found.frequency), abs=1e-9)
        assert found.coherence.value == pytest.approx(1)


def test_pairs_need_equal_names():
    from specreg.instruments.measuring import InMemory

    class Named(InMemory):
        def keys(self):
            return ["a", "b", "c", "d"]

    x = torch.randn(4, 1, 16)
    with pytest.raises(ValueError, match="'a' is in one only"):
        agreement(Named(x), InMemory(x))
    with pytest.raises(ValueError, match="in one only"):
        agreement(x, x[:3])
