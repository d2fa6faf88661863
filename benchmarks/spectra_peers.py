"""Radial spectra of white noise by this package and by others: what each does at odd sizes and at Nyquist.

    pip install pysteps powerbox xrft
    python -m benchmarks.spectra_peers

White noise has the same power at every frequency, so a right method gives bins that are equal within their error. The
table says how many bins there are, the frequencies of the first and the last, and the lowest and the highest bin
relative to the median. Beyond 0.5 cycles per sample lie only the corners of a spectrum. What is not installed is left
out.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import torch

Floats = np.ndarray
SHAPES = [(32, 32), (31, 31), (20, 30), (30, 20)]
FIELDS = 2000


def ours(fields: Floats) -> tuple[Floats, Floats]:
    """Return specreg's bins up to Nyquist, without a window."""
    from specreg.instruments import Settings, measure

    found = measure(torch.from_numpy(fields[:, None]), Settings("none", replicates=100))
    return found.frequency, found.power


def pysteps(fields: Floats) -> tuple[Floats, Floats]:
    """Return pysteps' radially averaged spectrum."""
    from pysteps.utils.spectral import rapsd

    frequency = rapsd(fields[0], fft_method=np.fft, return_freq=True)[1]
    return frequency[1:], np.mean([rapsd(field, fft_method=np.fft) for field in fields], 0)[1:]


def powerbox(fields: Floats) -> tuple[Floats, Floats]:
    """Return powerbox's spectrum with its own bins."""
    from powerbox import get_power

    found = [get_power(field, boxlength=[float(n) for n in field.shape]) for field in fields[:500]]
    return found[0].bin_avg / (2 * np.pi), np.mean([spectrum.power for spectrum in found], 0)


def xrft(fields: Floats) -> tuple[Floats, Floats]:
    """Return xrft's isotropic spectrum over wavenumber, which is that of a ring."""
    import xarray
    from xrft import isotropic_power_spectrum

    coordinates = {"y": np.arange(fields.shape[1]), "x": np.arange(fields.shape[2])}
    array = xarray.DataArray(fields, dims=("n", "y", "x"), coords=coordinates)
    found = isotropic_power_spectrum(array, dim=["y", "x"]).mean("n")
    frequency = found.freq_r.values
    return frequency, found.values / frequency


METHODS: dict[str, Callable[[Floats], tuple[Floats, Floats]]] = {
    "specreg": ours,
    "pysteps rapsd": pysteps,
    "powerbox get_power": powerbox,
    "xrft isotropic": xrft,
}


def main() -> None:
    """Print the table as Markdown."""
    generator = np.random.default_rng(0)
    print("| method | size | bins | first | last | lowest / median | highest / median |")
    print("|---|---|---|---|---|---|---|")
    for shape in SHAPES:
        fields = generator.standard_normal((FIELDS, *shape))
        for name, method in METHODS.items():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    frequency, power = method(fields)
                except ImportError:
                    continue
            middle = np.median(power)
            print(
                f"| {name} | {shape[0]}×{shape[1]} | {len(power)} | {frequency[0]:.3f} | {frequency[-1]:.3f} "
                f"| {power.min() / middle:.3f} | {power.max() / middle:.3f} |"
            )


if __name__ == "__main__":
    main()
