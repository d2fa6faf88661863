"""The wavelet transforms: `dwt`, decimated, and `swt`, stationary."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from specreg.losses.coefficients import Transform, check_choice
from specreg.losses.functional import band_centres, depth
from specreg.transforms.wavelet import coefficient_count, max_levels
from specreg.transforms.wavelet_bands import decimated, stationary
from specreg.transforms.wavelet_steps import MODES, Mode


@dataclass(frozen=True)
class _Subbands(Transform):
    wavelet: str = "haar"
    levels: int | None = None

    def __post_init__(self) -> None:
        max_levels((1,), self.wavelet)  # refuses an unknown wavelet
        if self.levels is not None and not (type(self.levels) is int and self.levels >= 1):
            raise ValueError(f"levels must be a whole number of at least 1, or None; got {self.levels!r}")

    def check(self, space: tuple[int, ...]) -> None:
        """See `Transform`."""
        depth(self.levels, space, self.wavelet)

    def coefficients(self, x: Tensor, ndim: int) -> tuple[Tensor, ...]:
        """See `Transform`."""
        bands = self._bands(x, ndim)
        return (torch.cat([band.flatten(2) for band in bands.values()], -1).unsqueeze(2),)

    def describe(self, space: tuple[int, ...]) -> Sequence[tuple[Tensor, Tensor, Tensor]]:
        """See `Transform`; bands are the subbands."""
        bands = self._bands(torch.zeros(1, 1, *space, dtype=torch.float64), len(space))
        counts = torch.tensor([band.numel() for band in bands.values()])
        centres = band_centres(tuple(bands)).double()
        shares = torch.tensor([self._share(name, len(space)) for name in bands], dtype=torch.float64)
        return [tuple(x.repeat_interleave(counts) for x in (centres, shares, torch.arange(len(bands))))]  # type: ignore[list-item]

    @abstractmethod
    def _bands(self, x: Tensor, ndim: int) -> dict[str, Tensor]:
        """Return the bands of `x` `[B, R, *space]` by name, finest first, the approximation last."""

    def _share(self, band: str, ndim: int) -> float:
        return 1.0


@dataclass(frozen=True)
class Decimated(_Subbands):
    """`dwt`: the wavelet transform of the paper's losses.

    Args:
        wavelet: a discrete wavelet of PyWavelets.
        levels: its depth; the deepest useful one (at least 1) when None.
        mode: boundary handling, as in PyWavelets.
    """

    name: ClassVar = "dwt"

    mode: Mode = "periodization"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self, mode=MODES)

    def count(self, shape: tuple[int, ...], ndim: int) -> int:
        """See `Transform`; more where the boundary is padded, as in the losses with short names."""
        levels = depth(self.levels, shape[-ndim:], self.wavelet)
        return coefficient_count(shape, self.wavelet, levels=levels, mode=self.mode, ndim=ndim)

    def _bands(self, x: Tensor, ndim: int) -> dict[str, Tensor]:
        levels = depth(self.levels, x.shape[-ndim:], self.wavelet)
        return decimated(x, self.wavelet, levels=levels, mode=self.mode, ndim=ndim)


@dataclass(frozen=True)
class Stationary(_Subbands):
    """`swt`: the undecimated transform, in which a shifted sample has shifted coefficients.

    A coefficient of level s counts as one in 2^(s·axes), so that a loss is the mean of the `dwt`'s over all circular
    shifts (with periodic boundaries, where the sizes are multiples of 2^levels).

    Args:
        wavelet: a discrete wavelet of PyWavelets.
        levels: its depth; the deepest useful one (at least 1) when None.
    """

    name: ClassVar = "swt"

    def _bands(self, x: Tensor, ndim: int) -> dict[str, Tensor]:
        levels = depth(self.levels, x.shape[-ndim:], self.wavelet)
        return stationary(x, self.wavelet, levels=levels, ndim=ndim)

    def _share(self, band: str, ndim: int) -> float:
        return 2.0 ** (-ndim * int(band[:-ndim]))
