"""Frechet distance between feature distributions, taken as Gaussian, from float64 sufficient statistics.

    d² = ‖μ − ν‖² + Tr A + Tr B − 2 Tr (A B)^½                              (Dowson & Landau 1982)

Tr (A B)^½ is computed as the sum of singular values of B^½ A^½, with square roots of symmetric matrices from their
eigenvalues, so that every number stays real and the distance is not negative for few samples either.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from specreg._files import array_fault, whole_file


class Gaussian(Protocol):
    """The interface of feature statistics: a mean `[D]` and a covariance `[D, D]`, float64."""

    @property
    def mean(self) -> Tensor:
        """Mean, `[D]`."""

    @property
    def covariance(self) -> Tensor:
        """Covariance, `[D, D]`."""


class GaussianStatistics(NamedTuple):
    """Mean and covariance of features, float64 on the CPU."""

    mean: Tensor  # [D]
    covariance: Tensor  # [D, D], with N − 1
    samples: int | None  # None where a reference file does not say


class FeatureAccumulator:
    """Sums of features `[N, D]` over batches, in float64; the state can be saved as plain arrays.

    Args:
        dimensions: D.
    """

    def __init__(self, dimensions: int):
        self.count = 0
        self.total = torch.zeros(dimensions, dtype=torch.float64)
        self.outer = torch.zeros(dimensions, dimensions, dtype=torch.float64)

    def add(self, features: Tensor) -> None:
        """Add features `[N, D]`; raises ValueError for other shapes and for values that are not finite."""
        if features.ndim != 2 or features.shape[1] != len(self.total):
            raise ValueError(f"features must be [N, {len(self.total)}]; got {list(features.shape)}")
        x = features.detach().cpu().double()
        if not bool(x.isfinite().all()):
            bad = int((~x.isfinite()).any(1).sum())
            raise ValueError(f"features must be finite; {bad} of {len(x)} rows are not")
        self.count += len(x)
        self.total += x.sum(0)
        self.outer += x.T @ x

    def statistics(self) -> GaussianStatistics:
        """Return mean and covariance of the added features; raises ValueError for fewer than two samples."""
        if self.count < 2:
            raise ValueError(f"a covariance needs at least 2 samples; got {self.count}")
        mean = self.total / self.count
        covariance = (self.outer - self.count * mean.outer(mean)) / (self.count - 1)
        return GaussianStatistics(mean, (covariance + covariance.T) / 2, self.count)

    def state(self) -> dict[str, NDArray[Any]]:
        """Return the sums as arrays, for `restore`."""
        return {"count": np.array(self.count), "total": self.total.numpy(), "outer": self.outer.numpy()}

    def restore(self, state: dict[str, NDArray[Any]]) -> None:
        """Set the sums to those that `state` returned."""
        self.count = int(state["count"])
        self.total = torch.from_numpy(np.array(state["total"]))
        self.outer = torch.from_numpy(np.array(state["outer"]))


def frechet_distance(a: Gaussian, b: Gaussian) -> float:
    """Return d² between two Gaussians, at least 0; it is FID where the features are Inception's.

    Raises ValueError for features of different sizes, and for statistics that are not finite or no covariance.
    """
    if a.mean.shape != b.mean.shape:
        raise ValueError(f"expected features of one size; got {len(a.mean)} and {len(b.mean)}")
    for statistics in (a, b):
        if not bool(statistics.mean.isfinite().all() and statistics.covariance.isfinite().all()):
            raise ValueError("expected a finite mean and covariance of features; got NaN or infinite values")
    root_a, root_b = _root(a.covariance), _root(b.covariance)
    cross = torch.linalg.svdvals(root_b @ root_a).sum()
    # Traces of the squared roots, so that rounding is the same on both sides of the difference.
    traces = root_a.square().sum() + root_b.square().sum()
    distance = (a.mean - b.mean).square().sum() + traces - 2 * cross
    return max(0.0, float(distance))


def _root(covariance: Tensor) -> Tensor:
    """Return the symmetric square root `[D, D]`; eigenvalues that rounding made negative count as 0."""
    values, vectors = torch.linalg.eigh(covariance)
    if values[0] < -1e-3 * values[-1].abs():
        raise ValueError(
            f"expected a covariance, without negative eigenvalues; got {values[0]:.3g} to {values[-1]:.3g}"
        )
    root: Tensor = (vectors * values.clamp_min(0).sqrt()) @ vectors.T
    return root


def load_statistics(path: Path) -> GaussianStatistics:
    """Return the statistics in an .npz with "mu" `[D]` and "sigma" `[D, D]`, such as EDM's reference files.

    Nothing is unpickled. Raises ValueError that names the file where it holds anything else.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            missing = [key for key in ("mu", "sigma") if key not in file.files]
            if missing:
                raise ValueError(f"expected arrays mu and sigma; got {', '.join(file.files) or 'none'}")
            mean, covariance = (np.asarray(file[key], dtype=np.float64) for key in ("mu", "sigma"))
            count = int(file["count"]) if "count" in file.files else None
    except (OSError, ValueError, TypeError, EOFError) as error:
        raise ValueError(f"{path}: cannot be read as feature statistics ({array_fault(path, error)})") from None
    if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)) or not len(mean):
        raise ValueError(
            f"{path}: expected mu [D] and sigma [D, D]; got {list(mean.shape)} and {list(covariance.shape)}"
        )
    for name, values in (("mu", mean), ("sigma", covariance)):
        if bad := int((~np.isfinite(values)).sum()):
            raise ValueError(f"{path}: expected finite {name}; {bad} of {values.size} values are NaN or infinite")
    if np.abs(covariance - covariance.T).max() > 1e-3 * np.abs(covariance).max():
        raise ValueError(f"{path}: expected a symmetric sigma; it differs from its transpose")
    return GaussianStatistics(torch.from_numpy(mean), torch.from_numpy((covariance + covariance.T) / 2), count)


def save_statistics(path: Path, statistics: GaussianStatistics) -> None:
    """Write statistics for `load_statistics`, whole or not at all."""
    arrays: dict[str, Any] = {"mu": statistics.mean.numpy(), "sigma": statistics.covariance.numpy()}
    if statistics.samples is not None:
        arrays["count"] = np.array(statistics.samples)
    with whole_file(path) as file:
        np.savez(file, **arrays)
