"""Geometric augmentation with conditioning, as EDM's networks were trained with (Karras et al. 2022, appendix F.2).

One image at a time; all randomness comes from the caller's generator. Nine numbers tell the network what was done, all
zero for an unchanged image: x-flip, y-flip, scale n, cos(rotation) − 1, sin(rotation), n·cos(r) and n·sin(r) of the
anisotropic scale along direction r, and the translation's n_x, n_y.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_LOBES = 3  # of the Lanczos window


class Amounts(NamedTuple):
    """How much of each part is applied to an image; the default is none."""

    flip_x: bool = False
    flip_y: bool = False
    scale: float = 0.0  # n of the isotropic scale
    angle: float = 0.0  # of the rotation, radians
    stretch: float = 0.0  # n of the anisotropic scale
    direction: float = 0.0  # r, along which it stretches, radians
    shift_x: float = 0.0  # n of the translation
    shift_y: float = 0.0

    def labels(self) -> NDArray[np.float32]:
        """Return the nine conditioning numbers, float32 `[9]`."""
        turn = math.cos(self.angle) - 1, math.sin(self.angle)
        along = self.stretch * math.cos(self.direction), self.stretch * math.sin(self.direction)
        flips = float(self.flip_x), float(self.flip_y)
        return np.array([*flips, self.scale, *turn, *along, self.shift_x, self.shift_y], dtype=np.float32)


class Transform(NamedTuple):
    """One geometric transform of an image of known size."""

    flip_x: bool
    flip_y: bool
    inverse: NDArray[np.float64]  # [3, 3], output pixel to input pixel, about the image's centre, x right and y down
    labels: NDArray[np.float32]  # [9]


@dataclass(frozen=True)
class Augment:
    """EDM's augmentation pipeline; each part but the x-flip is applied with probability `p`.

    Args:
        p: probability of each part. An applied y-flip is decided by a coin toss, and so is the x-flip of every image.
        scale: standard deviation of log2 of the isotropic scale.
        stretch: standard deviation of log2 of the anisotropic scale.
        shift: standard deviation of the translation, as a share of the side.
    """

    p: float
    scale: float = 0.2
    stretch: float = 0.2
    shift: float = 0.125

    def __post_init__(self) -> None:
        if not 0 <= self.p <= 1:
            raise ValueError(f"p must be a probability; got {self.p}")

    def __call__(self, image: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Return the augmented `image` `[C, H, W]` and its conditioning, float32 `[9]`."""
        transform = self.draw(rng, *image.shape[1:])
        return apply(image, transform), torch.from_numpy(transform.labels)

    def draw(self, rng: np.random.Generator, height: int, width: int) -> Transform:
        """Draw the transform of an image of `height` × `width` pixels; every call draws equally many numbers."""
        coin_x, coin_y = rng.random(2) < 0.5
        acts = rng.random(5) < self.p
        n_scale, n_stretch, n_x, n_y = rng.standard_normal(4)
        angle, direction = rng.uniform(-math.pi, math.pi, 2)
        turned = rng.random() < 0.5
        amounts = Amounts(
            flip_x=bool(coin_x),
            flip_y=bool(acts[0] and coin_y),
            scale=n_scale if acts[1] else 0.0,
            angle=angle if acts[2] else 0.0,
            stretch=n_stretch if acts[3] else 0.0,
            direction=direction if turned and acts[3] else 0.0,
            shift_x=n_x if acts[4] else 0.0,
            shift_y=n_y if acts[4] else 0.0,
        )
        return self.transform(amounts, height, width)

    def transform(self, amounts: Amounts, height: int, width: int) -> Transform:
        """Return the transform of these amounts for an image of `height` × `width` pixels."""
        s, stretch = 2.0 ** (self.scale * amounts.scale), 2.0 ** (self.stretch * amounts.stretch)
        # Scale first, then rotation, stretch and translation; the inverse undoes them from the output's side.
        inverse = (
            _scaled(1 / s, 1 / s)
            @ _rotated(amounts.angle)
            @ _rotated(-amounts.direction)
            @ _scaled(1 / stretch, stretch)
            @ _rotated(amounts.direction)
            @ _moved(-amounts.shift_x * self.shift * width, -amounts.shift_y * self.shift * height)
        )
        return Transform(amounts.flip_x, amounts.flip_y, inverse, amounts.labels())


def apply(image: Tensor, transform: Transform) -> Tensor:
    """Return `image` `[C, H, W]` transformed: flips are exact, all else is resampled with reflected borders."""
    flipped = [axis for axis, on in ((-1, transform.flip_x), (-2, transform.flip_y)) if on]
    image = image.flip(flipped) if flipped else image
    if np.array_equal(transform.inverse, np.eye(3)):
        return image
    return torch.from_numpy(resample(image.numpy(), transform.inverse))


def resample(image: NDArray[np.float32], inverse: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return `[C, H, W]` resampled with a Lanczos-3 kernel, which widens where the image shrinks to prevent aliasing.

    `inverse` `[3, 3]` maps output pixels to input pixels about the centre. Whole-pixel shifts and quarter turns are
    exact; borders are reflected about the outermost pixels.
    """
    _, height, width = image.shape
    y, x = np.mgrid[:height, :width].reshape(2, -1).astype(np.float64)
    centre_x, centre_y = (width - 1) / 2, (height - 1) / 2
    points = inverse[:2] @ np.stack([x - centre_x, y - centre_y, np.ones_like(x)])
    stretch = max(1.0, float(np.linalg.svd(inverse[:2, :2], compute_uv=False)[0]))
    columns, weight_x = _taps(points[0] + centre_x, width, stretch)
    rows, weight_y = _taps(points[1] + centre_y, height, stretch)
    patches = image[:, rows[:, :, None], columns[:, None, :]]
    mixed = np.einsum("cnij,ni,nj->cn", patches, weight_y, weight_x, optimize=True)
    resampled: NDArray[np.float32] = mixed.reshape(image.shape).astype(np.float32)
    return resampled


def _taps(position: NDArray[np.float64], size: int, stretch: float) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the pixels around each position `[N]` and their weights, both `[N, K]`."""
    reach = math.ceil(_LOBES * stretch)
    # Rounding noise of the matrices must not turn whole-pixel shifts into resampling.
    position = np.where(np.abs(position - position.round()) < 1e-9, position.round(), position)
    pixels = np.floor(position).astype(np.int64)[:, None] + np.arange(1 - reach, reach + 1)
    distance = (position[:, None] - pixels) / stretch
    weights = np.where(np.abs(distance) < _LOBES, np.sinc(distance) * np.sinc(distance / _LOBES), 0.0)
    weights /= weights.sum(1, keepdims=True)
    if size == 1:
        return np.zeros_like(pixels), weights.astype(np.float32)
    folded = pixels % (2 * (size - 1))
    return np.minimum(folded, 2 * (size - 1) - folded), weights.astype(np.float32)


def _scaled(x: float, y: float) -> NDArray[np.float64]:
    return np.diag([x, y, 1.0])


def _rotated(angle: float) -> NDArray[np.float64]:
    c, s = math.cos(angle), math.sin(angle)
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


def _moved(x: float, y: float) -> NDArray[np.float64]:
    return np.array([[1.0, 0.0, x], [0.0, 1.0, y], [0.0, 0.0, 1.0]])
