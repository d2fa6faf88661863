import math

import pytest
import torch

from specreg.diffusion import NoiseLevel, band_weight


def test_wiener_is_the_share_of_signal_in_the_noisy_samples_power():
    level = NoiseLevel(torch.tensor([0.8, 0.1]), torch.tensor([0.6, 2.0]))
    power = torch.tensor([9.0, 1.0, 0.0])
    signal, noise = level.alpha[:, None] ** 2 * power, level.sigma[:, None] ** 2
    frequency = torch.tensor([0.0, 0.1, 0.5])
    torch.testing.assert_close(band_weight.Wiener()(level, frequency, power), signal / (signal + noise))
    torch.testing.assert_close(band_weight.Wiener(2.0)(level, frequency, power), (signal / (signal + noise)) ** 2)


def test_signal_gate_opens_where_signal_exceeds_noise_by_the_margin():
    level = NoiseLevel.edm(torch.tensor([1.0, 2.0]))  # noise power 1 and 4
    power = torch.tensor([0.5, 2.0, 5.0, 60.0])
    frequency = torch.zeros(4)
    assert band_weight.SignalGate()(level, frequency, power).tolist() == [[0, 1, 1, 1], [0, 0, 1, 1]]
    assert band_weight.SignalGate(margin_db=10)(level, frequency, power).tolist() == [[0, 0, 0, 1], [0, 0, 0, 1]]


@pytest.mark.parametrize("weight", [band_weight.Wiener(), band_weight.SignalGate()])
def test_without_noise_everything_counts_and_without_signal_nothing(weight):
    level = NoiseLevel(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]))
    weights = weight(level, torch.zeros(2), torch.tensor([1e-6, 100.0]))
    assert weights.tolist() == [[1, 1], [0, 0]]
    assert all(math.isfinite(w) for w in weights.flatten())


def test_build_refuses_what_it_does_not_know():
    assert band_weight.build("signal_gate", margin_db=3) == band_weight.SignalGate(3)
    with pytest.raises(ValueError, match=r"band_weight must be one of wiener, signal_gate; got 'weiner' .did you mean"):
        band_weight.build("weiner")
    with pytest.raises(ValueError, match=r"band_weight 'wiener' has no option 'powr' .did you mean 'power'"):
        band_weight.build("wiener", powr=1)
