"""Dead leaves: images of discs that hide one another, with the statistics of natural images.

Discs of radius r, with density p(r) ∝ 1/r³ between r_min and r_max, fall on a plane at random; a pixel shows the disc
that fell last. The model has what makes photographs hard for a denoiser: occlusion edges at all scales, and a power
spectrum that falls roughly as 1/f² (Matheron 1968; Lee, Mumford & Huang 2001). Each disc has a colour and a texture, a
grating of random direction and wavelength:

    value(x) = colour + contrast · cos(k·x + phase)
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from specreg import _checks

OVERSAMPLING = 2
"""Pixels are means of this many rendered ones to a side, so that edges are smooth."""

SATURATION = 0.4
"""Share of a disc's colour that is drawn for each channel on its own; the rest is grey."""

MOST_DISCS = 100_000
"""Of an image: drawing this many takes seconds."""

WAVELENGTHS = (2.5, 10.0)
"""Shortest and longest wavelength of a grating, in pixels."""


class DeadLeaves(Dataset[Tensor]):
    """`count` images: item i is x0 `[channels, resolution, resolution]`, float32 in [-1, 1], of 8 bits.

    Item i is a pure function of (seed, i): neither `count` nor the order of calls matters.

    Args:
        count: number of images.
        resolution: side, pixels.
        channels: 1 grey, 3 colour.
        radii: r_min and r_max, pixels; None for resolution / 12 and resolution / 2.
        contrast: largest amplitude of a disc's texture; 0 for flat discs.
        seed: of all images.
    """

    labels = None

    def __init__(
        self,
        count: int,
        *,
        resolution: int = 32,
        channels: int = 3,
        radii: tuple[float, float] | None = None,
        contrast: float = 0.35,
        seed: int = 0,
    ) -> None:
        if count < 1:
            raise ValueError(f"count must be at least 1; got {count}")
        if channels not in (1, 3):
            raise ValueError(f"channels must be 1 (grey) or 3 (colour); got {channels}")
        low, high = radii or (resolution / 12, resolution / 2)
        if not 0 < low < high <= 100 * resolution:
            raise ValueError(
                f"radii must be two numbers, 0 < r_min < r_max <= {100 * resolution} (100 times the resolution); "
                f"got {low:g} and {high:g}"
            )
        if not 0 <= contrast <= 1:
            raise ValueError(f"contrast must be between 0 and 1; got {contrast:g}")
        self.count, self.resolution, self.channels, self.seed = count, resolution, channels, _checks.seed(seed)
        self.radii, self.contrast = (float(low), float(high)), float(contrast)
        self._drawn: dict[int, NDArray[np.uint8]] = {}  # drawing takes milliseconds, as long as a small training step
        # Enough discs that hardly a pixel is left without one: each covers π·E[r²] of the padded plane.
        mean_square = 2 * np.log(high / low) / (low**-2 - high**-2)
        discs = float("inf") if low < 1e-6 else np.ceil(6 * (resolution + 2 * high) ** 2 / (np.pi * mean_square))
        if not discs <= MOST_DISCS:
            raise ValueError(
                f"radii must be two numbers for which at most {MOST_DISCS:,} discs cover an image; "
                f"got {low:g} and {high:g}, which take {discs:.3g}"
            )
        self.discs = int(discs)

    def item(self, i: int) -> Tensor:
        """Return image `i`; raises IndexError beyond the last."""
        if not 0 <= i < self.count:
            raise IndexError(f"expected an index from 0 to {self.count - 1}; got {i}")
        if i not in self._drawn:
            self._drawn[i] = np.rint(127.5 * self._render(i) + 127.5).astype(np.uint8)
        return torch.from_numpy(self._drawn[i]).float() / 127.5 - 1

    def label(self, i: int) -> None:
        """Return None: the images have no classes."""
        return None

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, i: int) -> Tensor:
        return self.item(i)

    def _render(self, i: int) -> NDArray[np.float32]:
        rng = np.random.Generator(np.random.Philox(key=[self.seed, i]))
        n, side, (low, high) = self.discs, self.resolution, self.radii
        # p(r) ∝ 1/r³: the inverse of its distribution function.
        radius = (low**-2 - rng.random(n) * (low**-2 - high**-2)) ** -0.5
        centre = rng.uniform(-high, side + high, (2, n))
        colour = SATURATION * rng.uniform(-1, 1, (self.channels, n)) + (1 - SATURATION) * rng.uniform(-1, 1, n)
        contrast = self.contrast * rng.random(n)
        angle = rng.uniform(0, np.pi, n)
        wavelength = np.exp(rng.uniform(np.log(WAVELENGTHS[0]), np.log(WAVELENGTHS[1]), n))
        phase = rng.uniform(0, 2 * np.pi, n)

        x = _grid(side)
        dx2 = (x[None, :] - centre[0][:, None]) ** 2
        dy2 = (x[None, :] - centre[1][:, None]) ** 2
        covered = dy2[:, :, None] + dx2[:, None, :] <= (radius**2)[:, None, None]
        top = covered.argmax(0)  # the first disc is the one that fell last; pixels without any show it too
        k = 2 * np.pi / wavelength
        kx, ky = (k * np.cos(angle))[top], (k * np.sin(angle))[top]
        wave = contrast[top] * np.cos(kx * x[None, :] + ky * x[:, None] + phase[top])
        image = np.clip(colour[:, top] + wave, -1, 1)
        small = image.reshape(self.channels, side, OVERSAMPLING, side, OVERSAMPLING).mean((2, 4))
        rendered: NDArray[np.float32] = small.astype(np.float32)
        return rendered


@lru_cache(maxsize=4)
def _grid(side: int) -> NDArray[np.float64]:
    """Return the places of rendered pixels along an axis, in pixels."""
    return (np.arange(side * OVERSAMPLING) + 0.5) / OVERSAMPLING
