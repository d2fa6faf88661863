"""The figures of docs/spectrum.md: leakage of windows, slopes of power laws, grids where there are none, speed.

    python -m benchmarks.spectra_checks [--speed]

Speed is measured on drawn pictures in zips: 50,000 of 64×64 (PNG) and 5,000 of 512×512 (PNG and JPEG by turns), 1,000
and 50 different ones repeated. It needs 2 GB of temporary space and some minutes.
"""

from __future__ import annotations

import argparse
import io
import tempfile
import time
import zipfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from specreg.instruments import Settings, measure
from specreg.instruments.artefacts import candidates
from specreg.instruments.properties import slope

FEW = 200


def power_law(exponent: float, number: int, side: int, seed: int) -> Tensor:
    """Return periodic Gaussian fields `[number, 1, side, side]` with power |f|^exponent."""
    noise = torch.randn(number, 1, side, side, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    axis = torch.fft.fftfreq(side, dtype=torch.float64)
    radius = (axis[:, None].square() + axis.square()).sqrt()
    radius[0, 0] = torch.inf
    return torch.fft.ifft2(torch.fft.fft2(noise) * radius ** (exponent / 2)).real


def leakage() -> None:
    """Print the power above 0.39 cycles per sample of a wave of 5.5 periods in 256 samples, relative to its peak."""
    place = torch.arange(256, dtype=torch.float64)
    wave = (2 * torch.pi * 5.5 * place / 256 + torch.linspace(0, 6, 16, dtype=torch.float64)[:, None, None]).sin()
    for window in ("none", "tukey", "hann"):
        power = measure(wave, Settings.of(window, "mean", "dft")).power
        print(f"leakage, {window}: {10 * np.log10(power[100:].mean() / power.max()):.0f} dB")


def slopes() -> None:
    """Print fitted slopes of power |f|^-3 at 64×64: over bins' middles and over their mean frequency."""
    fields = power_law(-3, 400, 64, seed=0)
    for window in ("none", "hann"):
        found = measure(fields, Settings.of(window, "mean", "dft"))
        x, y = np.log(found.grid.centre), np.log(found.power)
        inside = (found.grid.centre >= 0.06) & (found.grid.centre <= 0.4)
        weight = np.sqrt(1 / found.grid.centre[inside])
        middles = np.polyfit(x[inside], y[inside], 1, w=weight)[0]
        print(f"slope for -3, {window}: {slope(found).value:.2f} over mean frequencies, {middles:.2f} over middles")


def grids() -> None:
    """Print the highest z of a grid over pairs of sets that have none."""
    settings = Settings("none", replicates=FEW)
    highest = []
    for pair in range(40):
        one, other = (measure(power_law(-1.5, 50, 32, 2 * pair + k), settings, seed=k) for k in (0, 1))
        highest.append(candidates(one, other)[0].z)
    print(f"grids where there are none: the highest z of 40 pairs is {max(highest):.1f}")


def speed() -> None:
    """Print the seconds that sets in zips take, decoding included."""
    for side, number, different in ((64, 50_000, 1000), (512, 5_000, 50)):
        fields = power_law(-2, different * 3, side, seed=0).view(different, 3, side, side)
        pixels = (127.5 + 40 * fields / fields.std()).clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()
        with tempfile.TemporaryDirectory(prefix="specreg-") as folder:
            path = Path(folder) / f"{side}.zip"
            _pack(path, pixels, number, jpeg=side == 512)
            start = time.perf_counter()
            measure(path)
            print(f"{number:,} of {side}×{side}: {time.perf_counter() - start:.0f} s", flush=True)


def _pack(path: Path, pixels: np.ndarray, number: int, *, jpeg: bool) -> None:
    files = []
    for k, picture in enumerate(pixels):
        buffer, kind = io.BytesIO(), "JPEG" if jpeg and k % 2 else "PNG"
        Image.fromarray(picture).save(buffer, kind)
        files.append((buffer.getvalue(), kind.lower()))
    with zipfile.ZipFile(path, "w") as archive:
        for k in range(number):
            content, kind = files[k % len(files)]
            archive.writestr(f"{k:06}.{kind}", content)


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--speed", action="store_true", help="the time of large sets too")
    asked = parser.parse_args()
    leakage()
    slopes()
    grids()
    if asked.speed:
        speed()


if __name__ == "__main__":
    main()
