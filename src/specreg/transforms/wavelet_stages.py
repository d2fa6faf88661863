"""A wavelet transform as a chain of linear maps and their transposes, for losses that compute their own gradient.

A stage computes one level, or several, in the way that is fastest for its sizes: for Haar, where they halve evenly,
sums of whole planes of memory (`Cells`); otherwise products with matrices on short axes (`Matrices`) and sums of
shifted slices on long ones (`Filters`). Autograd does not see stages, and they may overwrite their inputs.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import product

import numpy as np
import pywt
import torch
from torch import Tensor

from specreg._compile import constant_tensors
from specreg.transforms.wavelet_steps import (
    Mode,
    analyze_axis,
    analyze_axis_adjoint,
    filter_bank,
    margins,
)

HAAR = ("haar", "db1", "bior1.1", "rbio1.1")  # the same up to signs of bands
REPEATING = ("periodization", "symmetric", "constant")
"""Modes in which the neighbour beyond an odd end is the last sample again, so that their difference is 0."""
CELL = {1: 3, 2: 3, 3: 2}
"""Largest number of Haar levels per stage, by number of axes: with more, planes are short and strides long."""
SHORT = (16, 512)
"""Axes of up to 16 samples per filter tap, and at most 512, are multiplied by a dense matrix.

Measured on 2026-11-27, float32, torch 2.14.1, two cores, value and gradient of one level in alternating calls:
time of `Matrices` over that of `Filters`, with one thread and (in parentheses) with two.

| wavelet (taps of both filters) | 64² | 96² | 128² | 192² | 256² | 512² |
|---|---|---|---|---|---|---|
| bior1.3 (8) | 0.60 (0.61) | 0.77 (0.57) | 0.86 (0.93) | 1.27 (1.23) | 1.30 (1.50) | (2.51) |
| db4 (16) | 0.42 (0.42) | 0.50 (0.47) | 0.61 (0.62) | 0.91 (0.83) | 0.98 (0.83) | (1.89) |
| sym8 (32) | 0.27 (0.28) | 0.28 (0.31) | 0.38 (0.40) | 0.57 (0.52) | 0.55 (0.57) | (1.01) |
"""


@dataclass(frozen=True)
class Stage(ABC):
    """Some levels of a transform of `[B, R, *space]`; each kind of stage has its own order of coefficients `[B, …]`."""

    wavelet: str
    mode: Mode
    space: tuple[int, ...]
    levels: int

    @property
    def ndim(self) -> int:
        """Number of transformed axes."""
        return len(self.space)

    @property
    def factors(self) -> tuple[float, ...]:
        """Factor from a stored coefficient to PyWavelets', one per band: details level by level, approximation last."""
        bands: int = self.levels * (2**self.ndim - 1) + 1
        return (1.0,) * bands

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Return the coefficients of `x` `[B, R, *space]`; may overwrite `x`."""

    @abstractmethod
    def transpose(self, y: Tensor) -> Tensor:
        """Return the transpose of `forward` applied to `y`, contiguous `[B, R, *space]`; may overwrite `y`."""

    @abstractmethod
    def approximation(self, y: Tensor) -> Tensor:
        """Return the low-pass band of coefficients `y`, a view `[B, R, *coarse]`."""

    def bands(self, y: Tensor) -> tuple[Tensor, ...]:
        """Return one view of `y` per band, in the order of `factors`; none where the bands are interleaved."""
        return ()

    def spread(self, by_band: Tensor) -> Tensor:
        """Return numbers `[b, bands]`, in the order of `factors`, in a shape that broadcasts with coefficients."""
        raise NotImplementedError(f"bands of {type(self).__name__} are not interleaved")


def plan(wavelet: str, levels: int, mode: Mode, space: Sequence[int], like: Tensor) -> tuple[Stage, ...]:
    """Return the stages of `levels` levels on axes of sizes `space`, for tensors of the dtype and device of `like`."""
    return _plan(wavelet, levels, mode, tuple(space), matrices=_products_are_exact(like))


def is_lifted(wavelet: str, levels: int, mode: Mode, space: Sequence[int]) -> bool:
    """Return whether lifting computes all levels: Haar, with a lone last sample, if any, as its own mean."""
    return (
        wavelet in HAAR and (mode in REPEATING or _halvings(space) >= levels) and levels < 32
    )  # 2**levels overflows beyond


def _halvings(space: Sequence[int]) -> int:
    """Return how often all axes halve evenly."""
    return min((n & -n).bit_length() - 1 for n in space)


@lru_cache(maxsize=256)
def _plan(wavelet: str, levels: int, mode: Mode, space: tuple[int, ...], *, matrices: bool) -> tuple[Stage, ...]:
    stages: list[Stage] = []
    bank = filter_bank(wavelet)
    short = min(SHORT[0] * sum(map(len, bank.analysis)), SHORT[1])
    while levels:
        even = min(levels, CELL[len(space)], _halvings(space))
        stage: Stage
        if wavelet in HAAR and even:
            stage = Cells(wavelet, mode, space, even)
            space = tuple(n >> even for n in space)
        else:
            kind = Matrices if matrices and max(space) <= short else Filters
            stage = kind(wavelet, mode, space, 1)
            space = tuple(margins(n, bank.length, mode)[2] for n in space)
        stages.append(stage)
        levels -= stage.levels
    return tuple(stages)


def _products_are_exact(x: Tensor) -> bool:
    """Return whether matrix products of such tensors keep their precision: users may allow TF32 or bfloat16."""
    if x.dtype == torch.float64:
        return True
    backend = {"cpu": torch.backends.mkldnn, "cuda": torch.backends.cuda}.get(x.device.type)
    if backend is None:
        return False
    precision = getattr(getattr(backend, "matmul", None), "fp32_precision", None)  # since torch 2.9
    if precision is None:
        return torch.get_float32_matmul_precision() == "highest"
    return precision in ("none", "ieee")


@dataclass(frozen=True)
class Filters(Stage):
    """One level by sums of shifted slices, filters divided by their largest tap; `[B, 2^ndim, R, *coarse]`."""

    @property
    def factors(self) -> tuple[float, ...]:
        """See `Stage`."""
        pair = filter_bank(self.wavelet, divided=True).factors
        low, *details = (float(math.prod(choice)) for choice in product(pair, repeat=self.ndim))
        return (*details, low)

    def forward(self, x: Tensor) -> Tensor:
        """See `Stage`."""
        bank = filter_bank(self.wavelet, divided=True)
        for axis in range(-1, -self.ndim - 1, -1):  # each step prepends its band axis
            x = analyze_axis(x, axis, bank, self.mode)
        return x.flatten(0, self.ndim - 1).transpose(0, 1)

    def transpose(self, y: Tensor) -> Tensor:
        """See `Stage`."""
        bank = filter_bank(self.wavelet, divided=True)
        y = y.transpose(0, 1).reshape(*(2,) * self.ndim, *y.shape[:1], *y.shape[2:])
        for axis, n in zip(range(-self.ndim, 0), self.space, strict=True):
            y = analyze_axis_adjoint(y, axis, bank, self.mode, n)
        return y

    def approximation(self, y: Tensor) -> Tensor:
        """See `Stage`."""
        return y[:, 0]

    def bands(self, y: Tensor) -> tuple[Tensor, ...]:
        """See `Stage`."""
        low, *details = y.unbind(1)
        return (*details, low)


@dataclass(frozen=True)
class Matrices(Stage):
    """One level by multiplying each axis by a matrix `[n, 2m]`; `[B, R, *2m]`, the low-pass half of each axis first."""

    def forward(self, x: Tensor) -> Tensor:
        """See `Stage`."""
        for axis in range(self.ndim):
            x = _times(x, self._matrix(axis, x), axis - self.ndim)
        return x

    def transpose(self, y: Tensor) -> Tensor:
        """See `Stage`."""
        for axis in range(self.ndim):
            y = _times(y, self._matrix(axis, y).T, axis - self.ndim)
        return y

    def approximation(self, y: Tensor) -> Tensor:
        """See `Stage`."""
        for axis in range(2, 2 + self.ndim):
            y = y.narrow(axis, 0, y.shape[axis] // 2)
        return y

    def spread(self, by_band: Tensor) -> Tensor:
        """See `Stage`."""
        halves = by_band.roll(1, 1).reshape(len(by_band), 1, *(2,) * self.ndim)
        for axis in range(self.ndim):
            count = self._matrix(axis, by_band).shape[1] // 2
            halves = halves.repeat_interleave(count, 2 + axis)
        return halves

    def _matrix(self, axis: int, like: Tensor) -> Tensor:
        return _axis_matrix(self.wavelet, self.mode, self.space[axis], like.dtype, like.device)


@dataclass(frozen=True)
class Cells(Stage):
    """Levels of Haar on sizes that halve evenly, by lifting, in place; `[B, places, cells]`.

    Samples are ordered by their place within a cell of 2^levels per side, so that neighbours lie a whole plane apart.
    Of two neighbours e and o, lifting stores o − e in the second and then their mean, e + (o − e)/2, in the first; the
    transpose applies the transposes of the two steps in reverse. The approximation ends at place 0.
    """

    @property
    def factors(self) -> tuple[float, ...]:
        """See `Stage`."""
        letters = list(product((0, 1), repeat=self.ndim))  # 1 is high-pass
        by_level = [[2.0 ** (self.ndim * (s + 1) / 2 - sum(x)) for x in letters] for s in range(self.levels)]
        return (*(f for level in by_level for f in level[1:]), by_level[-1][0])

    def forward(self, x: Tensor) -> Tensor:
        """See `Stage`."""
        y = self._by_place(x).contiguous()
        for even, odd in _neighbours(self.levels, self.ndim):
            first, second = y[even], y[odd]
            first.add_(second.sub_(first), alpha=0.5)
        return y.view(2 ** (self.levels * self.ndim), len(x), -1).transpose(0, 1)

    def transpose(self, y: Tensor) -> Tensor:
        """See `Stage`."""
        x = y.new_empty(len(y), y[0].numel() // math.prod(self.space), *self.space)
        places = self._by_place(x)
        y = y.transpose(0, 1).view(places.shape)
        for even, odd in reversed(_neighbours(self.levels, self.ndim)):
            first, second = y[even], y[odd]
            first.sub_(second.add_(first, alpha=0.5))
        places.copy_(y)
        return x

    def approximation(self, y: Tensor) -> Tensor:
        """See `Stage`."""
        return y[:, 0].view(len(y), -1, *(n >> self.levels for n in self.space))

    def spread(self, by_band: Tensor) -> Tensor:
        """See `Stage`."""
        return by_band.index_select(1, _places(self.levels, self.ndim, by_band.device))[..., None]

    def _by_place(self, x: Tensor) -> Tensor:
        """Return `[B, R, *space]` as `[*places, B, R, *cells]`, a view."""
        side = 2**self.levels
        x = x.view(*x.shape[:2], *(size for n in self.space for size in (n // side, side)))
        return x.permute(*range(3, x.ndim, 2), 0, 1, *range(2, x.ndim, 2))


@cache
def _neighbours(levels: int, ndim: int) -> tuple[tuple[tuple[slice, ...], tuple[slice, ...]], ...]:
    """Return the slices of `[*places]` with the first and the second of all pairs of neighbours, by level and axis."""
    pairs = []
    for step in (2**s for s in range(levels)):
        for axis in range(ndim):
            even, odd = ([slice(None, None, step)] * ndim for _ in range(2))
            even[axis], odd[axis] = slice(None, None, 2 * step), slice(step, None, 2 * step)
            pairs.append((tuple(even), tuple(odd)))
    return tuple(pairs)


@constant_tensors(32)
def _places(levels: int, ndim: int, device: torch.device) -> Tensor:
    """Return the band that each place of a cell holds after lifting, in the order of `Stage.factors`."""
    band = np.full((2**levels,) * ndim, levels * (2**ndim - 1))
    for s in range(levels):
        for k, letters in enumerate(list(product((0, 1), repeat=ndim))[1:]):
            band[tuple(slice(2**s if high else 0, None, 2 ** (s + 1)) for high in letters)] = s * (2**ndim - 1) + k
    return torch.from_numpy(band.ravel()).to(device)


def _times(x: Tensor, matrix: Tensor, axis: int) -> Tensor:
    """Return `x` with its axis `axis` (negative) multiplied by `matrix` `[n, m]`."""
    lead, tail = x.shape[:axis], x.shape[axis:][1:]
    n, m = matrix.shape
    if not tail:
        return torch.mm(x.reshape(-1, n), matrix).view(*lead, m)
    x = x.reshape(lead.numel(), n, tail.numel())
    return torch.bmm(matrix.T.expand(len(x), m, n), x).view(*lead, m, *tail)


@constant_tensors(256)
def _axis_matrix(wavelet: str, mode: Mode, n: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return the matrix of one level along an axis of `n` samples, `[n, 2m]`."""
    bands = pywt.dwt(np.eye(n), wavelet, mode, axis=-1)
    return torch.from_numpy(np.concatenate(bands, 1)).to(device, dtype)
