"""The transforms of the Fourier family: `fft`, `dct`, `patches`, `stft`, `sht`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import ClassVar

import torch
from torch import Tensor

from specreg._compile import constant_tensors
from specreg.losses.coefficients import Transform, check_choice
from specreg.transforms import fourier, sphere
from specreg.transforms.cosine import cosine_grid, dctn
from specreg.transforms.radial import frequency_grid
from specreg.transforms.sphere import SphereGrid
from specreg.transforms.windows import DETRENDS, WINDOWS, Detrend, Window, trends, window_over


@dataclass(frozen=True)
class Fourier(Transform):
    """`fft`: the orthonormal DFT, by default of data read as periodic.

    Args:
        window: "none", "hann" or "tukey": for data that are not periodic, whose ends would otherwise leak from the
            strong low frequencies into the weak high ones.
        detrend: "none", "mean" or "plane": what is removed before.
    """

    name: ClassVar = "fft"
    is_complex: ClassVar = True

    window: Window = "none"
    detrend: Detrend = "none"

    def __post_init__(self) -> None:
        check_choice(self, window=WINDOWS, detrend=DETRENDS)

    def coefficients(self, x: Tensor, ndim: int) -> tuple[Tensor, ...]:
        """See `Transform`."""
        space = tuple(x.shape[-ndim:])
        if self.detrend != "none":
            basis = _trends(space, self.detrend, x.dtype, x.device)
            flat = x.reshape(*x.shape[:-ndim], -1)
            x = (flat - (flat @ basis.T) @ basis).reshape(x.shape)
        if self.window != "none":
            x = x * _window(space, self.window, x.dtype, x.device)
        return (fourier.half_spectrum(x, ndim=ndim).flatten(-ndim).unsqueeze(2),)

    def describe(self, space: tuple[int, ...]) -> Sequence[tuple[Tensor, Tensor, Tensor]]:
        """See `Transform`; bands are shells one wavenumber of the longest axis wide, and one of all corners beyond."""
        return [_half_spectrum(space)]


@dataclass(frozen=True)
class Cosine(Transform):
    """`dct`: the orthonormal DCT-II, which mirrors the data at their ends: for data that are not periodic."""

    name: ClassVar = "dct"

    def coefficients(self, x: Tensor, ndim: int) -> tuple[Tensor, ...]:
        """See `Transform`."""
        return (dctn(x, ndim=ndim).flatten(-ndim).unsqueeze(2),)

    def describe(self, space: tuple[int, ...]) -> Sequence[tuple[Tensor, Tensor, Tensor]]:
        """See `Transform`; bands are shells half a wavenumber of the longest axis wide, and one of the corners."""
        frequency = cosine_grid(space).flatten()
        return [(frequency, torch.ones_like(frequency), _shells(frequency, 2 * max(space)))]


@dataclass(frozen=True)
class Patches(Transform):
    """`patches`: the DFT of square patches, a local spectrum for each.

    Args:
        size: samples along each axis of a patch.
        stride: distance between patches, `size` for those side by side when None; it has to reach the last sample.
        window: as of `fft`; "hann" suits patches that overlap.
    """

    name: ClassVar = "patches"
    is_complex: ClassVar = True

    size: int = 8
    stride: int | None = None
    window: Window = "none"

    def __post_init__(self) -> None:
        check_choice(self, window=WINDOWS)
        for field in ("size", "stride"):
            value = getattr(self, field)
            if not (value is None and field == "stride") and (type(value) is not int or value < 1):
                raise ValueError(f"{field} of patches must be a whole number of at least 1; got {value!r}")
        if self.stride is not None and self.stride > self.size:
            raise ValueError(f"stride of patches must be at most their size, {self.size}; got {self.stride}")

    def check(self, space: tuple[int, ...]) -> None:
        """See `Transform`."""
        step = self.stride or self.size
        if any(n < self.size or (n - self.size) % step for n in space):
            raise ValueError(
                f"patches of {self.size} at every {step} samples must cover the samples to their ends; "
                f"got {'×'.join(map(str, space))}"
            )

    def coefficients(self, x: Tensor, ndim: int) -> tuple[Tensor, ...]:
        """See `Transform`."""
        lead = x.shape[:2]
        for axis in range(2, 2 + ndim):  # each puts the samples of its patches last
            x = x.unfold(axis, self.size, self.stride or self.size)
        x = x.reshape(*lead, -1, *(self.size,) * ndim)
        if self.window != "none":
            x = x * _window((self.size,) * ndim, self.window, x.dtype, x.device)
        return (fourier.half_spectrum(x, ndim=ndim).flatten(3),)

    def describe(self, space: tuple[int, ...]) -> Sequence[tuple[Tensor, Tensor, Tensor]]:
        """See `Transform`; bands are shells of the patch."""
        return [_half_spectrum((self.size,) * len(space))]


@dataclass(frozen=True)
class ShortTime(Transform):
    """`stft`: short-time spectra of sound at one or several resolutions, whose losses are averaged.

    Args:
        sizes: lengths of the Hann windows and of their transforms, in samples; frames are a quarter of that apart.
            The sound is mirrored at its ends, so it must be longer than half the largest.
    """

    name: ClassVar = "stft"
    is_complex: ClassVar = True
    axes: ClassVar = (1,)

    sizes: tuple[int, ...] = (512, 1024, 2048)

    def __post_init__(self) -> None:
        if not self.sizes or not all(type(n) is int and n >= 4 for n in self.sizes):
            raise ValueError(f"sizes of stft must be whole numbers of at least 4; got {self.sizes!r}")

    def check(self, space: tuple[int, ...]) -> None:
        """See `Transform`."""
        super().check(space)
        if space[0] <= max(self.sizes) // 2:
            raise ValueError(f"stft of {max(self.sizes)} needs more than half as many samples; got {space[0]}")

    def coefficients(self, x: Tensor, ndim: int) -> tuple[Tensor, ...]:
        """See `Transform`."""
        found = []
        for size in self.sizes:
            window = _window((size,), "hann", x.dtype, x.device)
            frames = torch.stft(x.flatten(0, 1), size, size // 4, size, window, return_complex=True)
            found.append((frames / sqrt(size)).transpose(1, 2).reshape(*x.shape[:2], -1, size // 2 + 1))
        return tuple(found)

    def describe(self, space: tuple[int, ...]) -> Sequence[tuple[Tensor, Tensor, Tensor]]:
        """See `Transform`; bands are the bins."""
        return [_half_spectrum((size,)) for size in self.sizes]


@dataclass(frozen=True)
class Sphere(Transform):
    """`sht`: spherical harmonics of fields `[…, latitudes, longitudes]`; see `specreg.transforms.sphere`.

    Areas near the poles count by their size, as the quadrature of the transform has it.

    Args:
        grid: "equiangular" (with both poles), "legendre-gauss" or "lobatto".
        lmax: number of degrees; those that the grid resolves exactly when None. On an equiangular grid that is half as
            many as there are latitudes.
    """

    name: ClassVar = "sht"
    is_complex: ClassVar = True
    axes: ClassVar = (2,)

    grid: SphereGrid = "equiangular"
    lmax: int | None = None

    def __post_init__(self) -> None:
        check_choice(self, grid=sphere.GRIDS)
        if self.lmax is not None and type(self.lmax) is not int:
            raise ValueError(f"lmax of sht must be a whole number; got {self.lmax!r}")

    def coefficients(self, x: Tensor, ndim: int) -> tuple[Tensor, ...]:
        """See `Transform`."""
        return (sphere.harmonics(x, grid=self.grid, lmax=self.lmax).unsqueeze(2),)

    def describe(self, space: tuple[int, ...]) -> Sequence[tuple[Tensor, Tensor, Tensor]]:
        """See `Transform`; bands are the degrees, and a degree's frequency is that along the equator."""
        nlat, nlon = space
        degree, share = sphere.degrees(nlat, nlon, self.grid, self.lmax)
        return [(degree.double() / nlon, share, degree)]


def _half_spectrum(space: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
    frequency = frequency_grid(space)
    share = fourier.bin_weights(space[-1], dtype=torch.float64).expand(frequency.shape)
    return frequency.flatten(), share.flatten(), _shells(frequency.flatten(), max(space))


def _shells(frequency: Tensor, per_cycle: int) -> Tensor:
    """Return the shell of each coefficient; beyond Nyquist all are in one, or a few would count as a shell."""
    return (frequency * per_cycle).round().long().clamp_max(per_cycle // 2 + 1)


@constant_tensors(64)
def _window(shape: tuple[int, ...], window: Window, dtype: torch.dtype, device: torch.device) -> Tensor:
    return window_over(shape, window).to(dtype).to(device)


@constant_tensors(64)
def _trends(shape: tuple[int, ...], detrend: Detrend, dtype: torch.dtype, device: torch.device) -> Tensor:
    return trends(shape, detrend).to(dtype).to(device)
