"""Spectra and coherence of signals beside scipy.signal's, on the same segments."""

import numpy as np
import torch
from scipy import signal

from random_fields import gaussian_fields
from specreg.instruments import Settings, agreement, measure

SETTINGS = Settings("none", "mean", replicates=100)


def segments():
    x = gaussian_fields(40, (64,), lambda f: 1 / (0.1 + f))
    y = 2 * x + torch.randn(x.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return x, y


def test_power_is_that_of_welch():
    """welch's density of one side is twice the power of a coefficient, but at Nyquist."""
    x, _ = segments()
    frequency, density = signal.welch(x.numpy().ravel(), nperseg=64, noverlap=0, window="boxcar", detrend="constant")
    found = measure(x, SETTINGS)
    np.testing.assert_allclose(found.frequency, frequency[1:])
    np.testing.assert_allclose(found.power[:-1], density[1:-1] / 2, rtol=1e-10)
    np.testing.assert_allclose(found.power[-1], density[-1], rtol=1e-10)


def test_coherence_is_that_of_scipy():
    x, y = segments()
    options = {"nperseg": 64, "noverlap": 0, "window": "boxcar", "detrend": "constant"}
    _, expected = signal.coherence(x.numpy().ravel(), y.numpy().ravel(), **options)
    found = [bin_.coherence.value for bin_ in agreement(y, x, SETTINGS)]
    np.testing.assert_allclose(found, expected[1:], rtol=1e-10)
