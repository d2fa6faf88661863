"""Radial spectra of white noise by this package and by others: what each does at odd sizes and at Nyquist.

    pip install pysteps powerbox xrft
    python -m benchmarks.spectra_peers

White noise has the same power at every frequency, so each column is what a method makes of the number 1: the lowest and
the highest bin relative to the median bin, bins without a value, and the sum of power times coefficients where a method
says how many coefficients a bin has. Whatever is not installed is left out.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import torch

Floats = np.ndarray
SHAPES = [(32, 32), (31, 31), (20, 30), (30, 20)]
FIELDS = 2000


def ours(fields: Floats) -> Floats:
    """Return specreg's bins up to Nyquist, without a window."""
    from specreg.instruments import Settings, measure

    return measure(torch.from_numpy(fields[:, None]), Settings("none", replicates=100)).power


def pysteps(fields: Floats) -> Floats:
    """Return pysteps.utils.spectral.rapsd."""
    from pysteps.utils.spectral import rapsd

    return np.mean([rapsd(field, fft_method=np.fft) for field in fields], 0)[1:]


def powerbox(fields: Floats) -> Floats:
    """Return powerbox.get_power with its own bins."""
    from powerbox import get_power

    return np.mean([get_power(field, boxlength=[float(n) for n in field.shape]).power for field in fields[:500]], 0)


def xrft(fields: Floats) -> Floats:
    """Return xrft.isotropic_power_spectrum: density, which is power times 2πk where it is integrated over a ring."""
    import xarray
    import xrft as library

    field = xarray.DataArray(fields[:500], dims=("n", "y", "x"), coords={d: np.arange(n) for d, n in
                             zip(("y", "x"), fields.shape[1:], strict=True)})  # fmt: skip
    return library.isotropic_power_spectrum(field, dim=["y", "x"], truncate=True).mean("n").values


METHODS: dict[str, Callable[[Floats], Floats]] = {
    "specreg": ours, "pysteps rapsd": pysteps, "powerbox get_power": powerbox, "xrft isotropic": xrft,
}  # fmt: skip


def main() -> None:
    """Print the table as Markdown."""
    generator = np.random.default_rng(0)
    print("| method | size | bins | without a value | lowest / median | highest / median | last / median |")
    print("|---|---|---|---|---|---|---|")
    for shape in SHAPES:
        fields = generator.standard_normal((FIELDS, *shape))
        for name, method in METHODS.items():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    power = np.asarray(method(fields), dtype=float)
                except ImportError:
                    continue
            finite = power[np.isfinite(power)]
            middle = np.median(finite)
            print(
                f"| {name} | {shape[0]}×{shape[1]} | {len(power)} | {len(power) - len(finite)} "
                f"| {finite.min() / middle:.3f} | {finite.max() / middle:.3f} | {finite[-1] / middle:.3f} |"
            )


if __name__ == "__main__":
    main()
