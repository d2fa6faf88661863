"""What a spectral loss compares: the coefficients of a transform, and what is known of each.

A transform maps data to coefficients; a comparison (`comparisons`, `band_comparisons`) maps those of x0_hat and x0 to a
number for each sample. All transforms are linear.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from specreg import _checks
from specreg._compile import constant_tensors


class Grid(NamedTuple):
    """What is known of each of K coefficients."""

    frequency: Tensor  # [K], cycles per sample
    share: Tensor  # [K], how many coefficients it stands for: 2 in the middle of a half spectrum
    band: Tensor  # [K], int64, the band that it belongs to by nature: a shell, a degree, a subband
    size: Tensor  # [bands], Σ share of each band


class Transform(ABC):
    """A linear transform; subclasses are frozen dataclasses, whose fields are its options.

    Coefficients are scaled so that white noise of unit variance has, in the mean, unit power in each.
    """

    name: ClassVar[str]
    is_complex: ClassVar[bool] = False
    axes: ClassVar[tuple[int, ...]] = (1, 2, 3)
    """How many axes it can transform."""

    @abstractmethod
    def coefficients(self, x: Tensor, ndim: int) -> tuple[Tensor, ...]:
        """Return the coefficients of `x` `[B, R, *space]`: for each grid `[B, R, P, K]`, P places (patches, frames)."""

    @abstractmethod
    def describe(self, space: tuple[int, ...]) -> Sequence[tuple[Tensor, Tensor, Tensor]]:
        """Return for each grid frequency, share and band of its K coefficients: float64 or int64 `[K]`, on the CPU."""

    def check(self, space: tuple[int, ...]) -> None:
        """Raise ValueError where samples of this size cannot be transformed."""
        if len(space) not in self.axes:
            allowed = " or ".join(map(str, self.axes))
            raise ValueError(f"{self.name} transforms {allowed} axes; got samples of {'×'.join(map(str, space))}")

    def count(self, shape: tuple[int, ...], ndim: int) -> int:
        """Return the terms of a sum over one sample of `shape`, `(C, *space)`: its values, where nothing is padded."""
        return math.prod(shape)

    def grids(self, space: Sequence[int], dtype: torch.dtype, device: torch.device) -> tuple[Grid, ...]:
        """Return the grids of samples of a size; cached."""
        # The class and its options, since the compiler of torch 2.4 takes no other objects as constants.
        options = tuple([getattr(self, name) for name in self.__match_args__])  # type: ignore[attr-defined]
        flat = _grids(type(self), options, tuple([len(range(n)) for n in space]), dtype, device)
        return tuple(Grid(*flat[i : i + 4]) for i in range(0, len(flat), 4))


@constant_tensors(256)
def _grids(
    kind: type[Transform], options: tuple[Any, ...], space: tuple[int, ...], dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, ...]:
    flat = []
    for frequency, share, band in kind(*options).describe(space):
        filled, band = torch.unique(band, return_inverse=True)
        size = share.new_zeros(len(filled)).index_add_(0, band, share)
        flat += [frequency.to(dtype).to(device), share.to(dtype).to(device), band.to(device), size.to(dtype).to(device)]
    return tuple(flat)


def check_choice(owner: Any, **choices: Sequence[str]) -> None:
    """Raise ValueError where a field of a dataclass is none of its choices."""
    for field, known in choices.items():
        _checks.choice(field, getattr(owner, field), known)
