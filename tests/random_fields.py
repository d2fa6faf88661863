"""Random fields of known spectra, the oracles of the instruments."""

import numpy as np
import torch


def gaussian_fields(number, shape, amplitude, *, channels=1, seed=0):
    """Return periodic Gaussian fields whose DFT coefficients at |f| have the standard deviation amplitude(|f|)."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(number, channels, *shape, dtype=torch.float64, generator=generator)
    return filtered(noise, amplitude)


def filtered(x, response):
    """Return periodic samples `[N, C, *space]` filtered by a response of |f| in cycles per sample."""
    space = x.shape[2:]
    axes = np.meshgrid(*(np.fft.fftfreq(n) for n in space), indexing="ij")
    f = np.sqrt(sum(axis**2 for axis in axes))
    h = torch.from_numpy(np.asarray(response(f), dtype=np.float64) * np.ones_like(f))
    dims = tuple(range(2, x.ndim))
    return torch.fft.ifftn(torch.fft.fftn(x.double(), dim=dims) * h, dim=dims).real


def power_law(exponent):
    """Return the amplitude of fields with power |f|^exponent, without a mean."""

    def amplitude(f):
        with np.errstate(divide="ignore"):
            found = np.where(f > 0, f, np.inf) ** (exponent / 2)
        return np.where(f > 0, found, 0.0)

    return amplitude
