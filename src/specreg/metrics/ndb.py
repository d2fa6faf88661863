"""Number of statistically different bins (Richardson and Weiss 2018, arXiv 1805.12462), and the bins' divergence.

k-means divides the space of real features into K bins. If generated features have the distribution of real features,
the shares of the bins differ by sampling noise only. With shares p of M real and q of N generated features in a bin,
the two proportions are compared by

    z = (p − q) / √(r·(1 − r)·(1/M + 1/N)),    r = (M·p + N·q)/(M + N),

and the bin counts as different where |z| exceeds the normal quantile of the significance level. NDB/K is the share of
such bins, which is about the significance level for equal distributions. scikit-learn is imported on first use.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray


class NDBResult(NamedTuple):
    """Shares of bins of two sets of features, and how they differ."""

    share: float  # NDB/K in [0, 1], the figure that papers report
    different: int  # bins that differ significantly
    bins: int  # K
    js_divergence: float  # Jensen-Shannon divergence of the two histograms, nats, 0 to ln 2
    z: NDArray[np.float64]  # [K], positive where the samples have too small a share
    reference: NDArray[np.float64]  # [K], share of the real features in each bin
    samples: NDArray[np.float64]  # [K], share of the generated features in each bin


def ndb(
    samples: ArrayLike,
    reference: ArrayLike,
    *,
    bins: int = 100,
    significance: float = 0.05,
    whiten: bool = True,
    seed: int = 0,
) -> NDBResult:
    """Return the number of statistically different bins and the divergence of the bins' histograms.

    Args:
        samples: generated features, `[N, D]`.
        reference: real features, `[M, D]`, at least `bins` of which differ.
        bins: K, the number of bins.
        significance: level of the two-sided test in each bin, in (0, 1).
        whiten: whether each feature is divided by its standard deviation over the real features, as the authors do;
            constant features stay unchanged.
        seed: seed of k-means, which runs ten times and keeps the best result.

    Raises:
        ValueError: shapes that do not match, too few features or too few that differ (those of constant or saturated
            data are all equal), or values that are not finite.
    """
    real, fake = _features("reference", reference), _features("samples", samples)
    if real.shape[1] != fake.shape[1]:
        raise ValueError(f"samples and reference must have one width; got {fake.shape[1]} and {real.shape[1]}")
    if not 2 <= bins <= len(real):
        raise ValueError(f"bins must be between 2 and the {len(real)} real features; got {bins}")
    if not 0 < significance < 1:
        raise ValueError(f"significance must be between 0 and 1; got {significance}")
    if (different := _different(real, bins)) < bins:
        raise ValueError(f"reference must have at least {bins} different features, one for each bin; got {different}")
    scale = real.std(axis=0) if whiten else np.ones(real.shape[1])
    scale[scale == 0] = 1
    centre = real.mean(axis=0)
    clusters = _kmeans(bins, seed).fit((real - centre) / scale)
    p = np.bincount(clusters.labels_, minlength=bins) / len(real)
    q = np.bincount(clusters.predict((fake - centre) / scale), minlength=bins) / len(fake)
    z = proportion_z(p, q, len(real), len(fake))
    differing = int((two_sided_p(z) < significance).sum())
    return NDBResult(differing / bins, differing, bins, js_divergence(p, q), z, p, q)


def proportion_z(p: ArrayLike, q: ArrayLike, count_p: int, count_q: int) -> NDArray[np.float64]:
    """Return the pooled two-proportion z of shares p of `count_p` and q of `count_q`; 0 where both are 0 or both 1."""
    p, q = np.asarray(p, dtype=np.float64), np.asarray(q, dtype=np.float64)
    pooled = (count_p * p + count_q * q) / (count_p + count_q)
    error = np.sqrt(pooled * (1 - pooled) * (1 / count_p + 1 / count_q))
    z: NDArray[np.float64] = np.divide(p - q, error, out=np.zeros_like(error), where=error > 0)
    return z


def two_sided_p(z: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the probability that a standard normal number is at least as far from 0 as z."""
    return np.array([math.erfc(abs(value) / math.sqrt(2)) for value in z])


def js_divergence(p: ArrayLike, q: ArrayLike) -> float:
    """Return the Jensen-Shannon divergence of two histograms `[K]` with sum 1, nats: 0 (equal) to ln 2 (disjoint).

    Raises ValueError for anything but two histograms of one length.
    """
    p, q = np.asarray(p, dtype=np.float64), np.asarray(q, dtype=np.float64)
    for histogram in (p, q):
        whole = histogram.shape == p.shape and histogram.ndim == 1 and bool((histogram >= 0).all())
        if not whole or abs(histogram.sum() - 1) > 1e-6:
            shapes, sums = f"{list(p.shape)} and {list(q.shape)}", f"{p.sum():g} and {q.sum():g}"
            raise ValueError(f"expected two histograms [K] with sum 1; got {shapes} with sums {sums}")
    middle = (p + q) / 2

    def kl(a: NDArray[np.float64]) -> float:
        held = a > 0
        return float((a[held] * np.log(a[held] / middle[held])).sum())

    return max(0.0, (kl(p) + kl(q)) / 2)


def _features(name: str, values: ArrayLike) -> NDArray[np.float64]:
    features = np.asarray(values, dtype=np.float64)
    if features.ndim != 2 or features.size == 0:
        raise ValueError(f"{name} must be features [N, D], at least one; got {list(features.shape)}")
    if not np.isfinite(features).all():
        raise ValueError(f"{name} must be finite; {int((~np.isfinite(features)).any(1).sum())} rows are not")
    return features


def _different(features: NDArray[np.float64], enough: int) -> int:
    """Return the number of different rows, counted no further than `enough`."""
    rows: set[bytes] = set()
    for row in features + 0.0:  # -0 becomes 0
        rows.add(row.tobytes())
        if len(rows) == enough:
            break
    return len(rows)


def _kmeans(bins: int, seed: int) -> Any:
    try:
        from sklearn.cluster import KMeans
    except ImportError as error:
        raise ImportError('NDB needs scikit-learn: pip install "specreg[eval-audio]"') from error
    return KMeans(bins, n_init=10, random_state=seed)
