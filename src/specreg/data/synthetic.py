"""Checkerboards: a family of images whose spectrum is known exactly.

With squares of s pixels and phase (dx, dy), all in pixels,

    board[y, x] = q(x + dx) · q(y + dy),        q(t) = (-1)^floor(t / s).

q has period 2s and only odd harmonics, so on N = 2s·m pixels all the energy of a board lies where both
frequencies are odd multiples of N / (2s) (section 5.1 of the paper).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from specreg import _checks


class Checkerboards(Dataset[Tensor]):
    """Data set of `count` boards: item i is x0 `[1, resolution, resolution]`, float32, -1 or +1.

    The size of the squares is drawn from `squares` (pixels), the phases dx and dy from 0 … 2s - 1. All three
    depend on (seed, i) alone, not on `count` or the order of calls.
    """

    labels = None

    def __init__(self, count: int, *, resolution: int = 64, squares: Sequence[int] = (2, 4, 8), seed: int = 0) -> None:
        if count < 1:
            raise ValueError(f"count must be at least 1; got {count}")
        self.count, self.resolution, self.channels, self.seed = count, resolution, 1, _checks.seed(seed)
        self.squares = _checked_squares(resolution, squares)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of every item."""
        return self.channels, self.resolution, self.resolution

    def board(self, i: int) -> tuple[int, int, int]:
        """Return the size of the squares and the phase (s, dx, dy) of item i, in pixels."""
        if not 0 <= i < self.count:
            raise IndexError(f"item {i} of {self.count} boards")
        # Raw words of a counter-based generator: unlike Generator's methods they never change with numpy.
        words = np.random.Philox(np.random.SeedSequence((self.seed, i))).random_raw(3)
        pick, dx, dy = (int(word) for word in words)
        s = self.squares[pick % len(self.squares)]
        return s, dx % (2 * s), dy % (2 * s)

    def item(self, i: int) -> Tensor:
        """Return x0 of item i, `[1, H, W]`."""
        return torch.from_numpy(_board(self.resolution, *self.board(i)))[None]

    def label(self, i: int) -> None:
        """Return None: boards have no classes."""

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, i: int) -> Tensor:
        return self.item(i)


def boards(resolution: int = 64, squares: Sequence[int] = (2, 4, 8)) -> Tensor:
    """Return every distinct board of the family, `[K, H, W]` float32 in {-1, +1}.

    A shift by (s, s) changes both signs, hence not the board: half of the (2s)² phases are distinct, K = Σ_s (2s)² / 2.
    """
    family = [
        _board(resolution, s, dx, dy)
        for s in _checked_squares(resolution, squares)
        for dy in range(s)
        for dx in range(2 * s)
    ]
    return torch.from_numpy(np.stack(family))


def board_bands(resolution: int = 64, squares: Sequence[int] = (2, 4, 8)) -> Tensor:
    """Return the bins of the full 2-D DFT (unshifted) that carry the boards' energy, bool `[H, W]`.

    These are the bins where, for some s of `squares`, both frequencies are odd multiples of resolution / (2s). Raises
    ValueError unless every period 2s divides the resolution: the energy of any other board leaks into every bin.
    """
    bands = torch.zeros(resolution, resolution, dtype=torch.bool)
    for s in _checked_squares(resolution, squares):
        if resolution % (2 * s):
            raise ValueError(f"the period of the boards, 2·{s} pixels, must divide the resolution {resolution}")
        step = resolution // (2 * s)
        bands[step :: 2 * step, step :: 2 * step] = True
    return bands


def _board(resolution: int, s: int, dx: int, dy: int) -> NDArray[np.float32]:
    t = np.arange(resolution)
    x, y = (1 - 2 * ((t + d) // s % 2) for d in (dx, dy))
    return np.outer(y, x).astype(np.float32)


def _checked_squares(resolution: int, squares: Sequence[int]) -> tuple[int, ...]:
    squares = tuple(squares)
    if not squares or len(set(squares)) < len(squares) or min(squares) < 1:
        raise ValueError(f"squares must be distinct sizes of at least 1 pixel; got {squares}")
    if 2 * max(squares) > resolution:
        raise ValueError(f"a board needs two squares a side: 2·{max(squares)} pixels exceed {resolution}")
    return squares
