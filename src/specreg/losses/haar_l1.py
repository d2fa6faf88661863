"""The wavelet loss where filters are Haar's and sizes halve evenly: sums and differences of whole blocks of memory.

A few levels at a time (three in 2-D), samples are laid out by their place within a cell of 2^levels to a side, place
first. Neighbours then lie a whole plane apart, every step of the transform and of its transpose is one addition and
one subtraction of contiguous planes, and two buffers in turn hold all there is.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

NAMES = ("haar", "db1", "bior1.1", "rbio1.1")  # the same up to signs of bands
LEVELS = {1: 3, 2: 3, 3: 2}  # at a time, by axes; more make planes short and the first pass over memory stride too far


def applies(wavelet: str, levels: int, space: Sequence[int]) -> bool:
    """Whether this is Haar on axes whose sizes halve evenly `levels` times, where no mode adds samples.

    One level alone is as quick without.
    """
    return wavelet in NAMES and levels > 1 and all(n % 2**levels == 0 for n in space)


def value_and_gradient(
    x0_hat: Tensor,
    x0: Tensor,
    weights: Tensor | None,
    *,
    levels: int,
    ndim: int,
    gammas: Sequence[float],
    wants_gradient: bool,
) -> tuple[Tensor, Tensor | None]:
    """Value `[B]` and gradient of Σ γ·‖W[x0_hat − x0]‖₁ for `[B, R, *space]`; see `WaveletL1` for γ and weights."""
    total = x0.new_zeros(x0.shape[0])
    cells: list[_Cells] = []
    for first, depth in _depths(levels, ndim):
        cell = _Cells.empty(x0 if not cells else cells[-1].approximation, depth, ndim, first)
        if cells:
            cell.gather(cells[-1].approximation)
        else:
            cell.gather(x0_hat, x0)
        cell.forward()
        cells.append(cell)
    high = 2**ndim - 1
    for cell in cells:
        for i, (bands, scratch) in enumerate(cell.details()):
            s = cell.first + i
            total += _take(bands, scratch, 2.0 ** (-ndim * (s + 1) / 2), gammas, weights, s * high, wants_gradient)
    approximation = cells[-1].approximation.reshape(1, 1, x0.shape[0], -1)
    scratch = torch.empty_like(approximation)
    total += _take(approximation, scratch, 2.0 ** (-ndim * levels / 2), gammas, weights, levels * high, wants_gradient)
    if not wants_gradient:
        return total, None
    for cell, above in zip(reversed(cells[1:]), reversed(cells[:-1]), strict=True):
        cell.backward()
        cell.scatter(above.approximation)
    cells[0].backward()
    gradient = torch.empty_like(x0_hat, memory_format=torch.contiguous_format)
    cells[0].scatter(gradient)
    return total, gradient


def _depths(levels: int, ndim: int) -> Iterator[tuple[int, int]]:
    """First level, from 0, and number of levels of each turn."""
    most = LEVELS[ndim]
    for first in range(0, levels, most):
        yield first, min(most, levels - first)


class _Cells(NamedTuple):
    """Samples by place within a cell, `[*side, B, R, *cells]`, in two flat buffers that take turns."""

    buffers: tuple[Tensor, Tensor]
    shape: tuple[int, ...]  # [B, R, *cells]
    depth: int
    ndim: int
    first: int  # the first of its levels

    @staticmethod
    def empty(like: Tensor, depth: int, ndim: int, first: int) -> _Cells:
        """Room for `[B, R, *space]`."""
        lead, space = like.shape[:-ndim], like.shape[-ndim:]
        shape = (*lead, *(n >> depth for n in space))
        return _Cells((like.new_empty(like.numel()), like.new_empty(like.numel())), shape, depth, ndim, first)

    @property
    def approximation(self) -> Tensor:
        """The low-pass band of the last level, `[B, R, *cells]`."""
        return self.buffers[self.depth * self.ndim % 2][: math.prod(self.shape)].view(self.shape)

    def gather(self, x: Tensor, minus: Tensor | None = None) -> None:
        """Take `x` `[B, R, *space]` in, or the difference of two."""
        if minus is not None:  # before the strides, not over them
            x = torch.sub(x, minus, out=self.buffers[1].view(x.shape))
        places = self._by_place(x)
        self.buffers[0].view(places.shape).copy_(places)

    def scatter(self, out: Tensor) -> None:
        """Put what `backward` left into `out` `[B, R, *space]`."""
        places = self._by_place(out)
        places.copy_(self.buffers[0].view(places.shape))

    def forward(self) -> None:
        """All levels; bands of each, in PyWavelets' order, lie where `details` says."""
        for step in _plan(self.buffers[0].numel(), self.depth, self.ndim):
            even, odd, low, high = step.operands(self.buffers)
            torch.add(even, odd, out=low)
            torch.sub(even, odd, out=high)

    def backward(self) -> None:
        """The transpose of `forward`."""
        for step in reversed(_plan(self.buffers[0].numel(), self.depth, self.ndim)):
            even, odd, low, high = step.operands(self.buffers)
            torch.add(low, high, out=even)
            torch.sub(low, high, out=odd)

    def details(self) -> Iterator[tuple[Tensor, Tensor]]:
        """High-pass bands of each level, `[K, places, B, rest]`, and scratch of their shape."""
        batch, bands = self.shape[0], 2**self.ndim
        size = self.buffers[0].numel()
        for level in range(1, self.depth + 1):
            turn = level * self.ndim % 2
            places = 2 ** ((self.depth - level) * self.ndim)
            mine, other = (
                buffer[size // bands : size].view(bands - 1, places, batch, -1)
                for buffer in (self.buffers[turn], self.buffers[1 - turn])
            )
            yield mine, other
            size //= bands

    def _by_place(self, x: Tensor) -> Tensor:
        """`[B, R, *space]` as `[*side, B, R, *cells]`, a view."""
        side = 2**self.depth
        lead, space = x.shape[: -self.ndim], x.shape[-self.ndim :]
        x = x.view(*lead, *(size for n in space for size in (n // side, side)))
        first = len(lead)
        places = [first + 2 * axis + 1 for axis in range(self.ndim)]
        cells = [first + 2 * axis for axis in range(self.ndim)]
        return x.permute(*places, *range(first), *cells)


class _Step(NamedTuple):
    """One axis of one level: pairs of planes in one buffer, sums and differences in the two halves of the other."""

    turn: int  # which buffer has the pairs
    shape: tuple[int, int, int]  # [before, pairs, planes]
    size: int  # of both halves

    def operands(self, buffers: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Even, odd; low, high."""
        _, pairs, plane = self.shape
        paired, halved = (2 * pairs * plane, 2 * plane, 1), (pairs * plane, plane, 1)
        source, target = buffers[self.turn], buffers[1 - self.turn]
        return (
            source.as_strided(self.shape, paired, 0),
            source.as_strided(self.shape, paired, plane),
            target.as_strided(self.shape, halved, 0),
            target.as_strided(self.shape, halved, self.size // 2),
        )


@lru_cache(maxsize=256)
def _plan(size: int, depth: int, ndim: int) -> tuple[_Step, ...]:
    """The steps of `depth` levels on `size` values; the last axis goes first, so that its letter ends up last."""
    steps: list[_Step] = []
    side = 2**depth
    while side > 1:
        for axis in range(ndim - 1, -1, -1):
            done = ndim - 1 - axis  # axes that have a band axis in front by now, and half their side
            before = 2**done * side**axis
            steps.append(_Step(len(steps) % 2, (before, side // 2, size // (before * side)), size))
        side //= 2
        size >>= ndim
    return tuple(steps)


def _take(
    bands: Tensor,
    scratch: Tensor,
    factor: float,
    gammas: Sequence[float],
    weights: Tensor | None,
    first: int,
    wants_gradient: bool,
) -> Tensor:
    """Σ over `bands` `[K, places, B, rest]` of weight · γ · factor · ‖band‖₁, `[B]`; leaves its gradient in place."""
    pulls = [factor * gamma for gamma in gammas[first : first + len(bands)]]
    torch.abs(bands, out=scratch)
    if wants_gradient:
        bands.sign_()
    if len(set(pulls)) > 1:  # by numbers, since a tensor of them would have to be sent to a GPU
        for band, size, pull in zip(bands, scratch, pulls, strict=True):
            size.mul_(pull)
            if wants_gradient:
                band.mul_(pull)
    elif wants_gradient:
        bands.mul_(pulls[0])
    common = pulls[0] if len(set(pulls)) == 1 else 1.0
    if weights is None:
        return scratch.sum((0, 1, 3)) * common
    w = weights[:, first : first + len(bands)].T
    if wants_gradient:
        bands.mul_(w[:, None, :, None])
    return (scratch.sum((1, 3)) * w).sum(0) * common
