"""Distances between two sets of images with bootstrap intervals, and between two halves of the real ones beside them.

Every number is a function of rows, one for each image, so neither batches nor processes matter to it. Intervals are the
value ± 1.96 standard deviations over resampled rows, widened for few images as Student's t does and cut off at the ends
of the metric's range: the values of resampled sets themselves are biased, as FID is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from specreg import _checks, _intervals
from specreg.metrics import spectra
from specreg.metrics.frechet import GaussianStatistics, frechet_distance
from specreg.metrics.info import MetricInfo

NEIGHBOURS = 3
"""Neighbours whose distance is the radius of a ball, of precision and recall (Kynkäänniemi et al. 2019)."""

FRECHET_DRAWS = 20
"""Draws at most for FID, whose value costs seconds."""

_BLOCK = 1024

METRICS = {
    "fid": MetricInfo("FID", "", "lower", 2, "Frechet distance of Inception features (torch-fidelity's)"),
    "kid": MetricInfo("KID", "×10⁻³", "lower", 3, "unbiased squared MMD, cubic kernel, of Inception features"),
    "precision": MetricInfo(
        "precision", "", "higher", 3, "share of samples within the reference's manifold of Inception features"
    ),
    "recall": MetricInfo(
        "recall", "", "higher", 3, "share of the reference within the samples' manifold of Inception features"
    ),
    "kernel_distance": MetricInfo(
        "kernel distance, EfficientNet-Lite", "×10⁻³", "lower", 3,
        "unbiased squared MMD, cubic kernel, of EfficientNet-Lite0 features",
    ),
    "log_spectral_distance_db": MetricInfo(
        "log-spectral distance", "dB", "lower", 3, "RMS over radial frequency bins of the difference in mean power"
    ),
    "high_frequency_db": MetricInfo(
        "energy above half Nyquist", "dB", "zero", 3, "samples' energy above 0.25 cycles per pixel to the reference's"
    ),
    "contrast_db": MetricInfo("contrast", "dB", "zero", 3, "samples' energy without the mean to the reference's"),
}  # fmt: skip
"""The metrics, in the order in which they are shown."""

BIAS = {
    "fid": "Biased upward, the more the fewer images there are: compare at equal numbers",
    "kid": "Unbiased at any number of images; it may be below 0",
    "precision": "Depends on the numbers of images: compare at equal numbers",
    "recall": "Depends on the numbers of images: compare at equal numbers",
    "kernel_distance": "Unbiased at any number of images; it may be below 0",
    "log_spectral_distance_db": "Biased upward by the scatter of few images; real against real shows how much",
    "high_frequency_db": "Its bias is of the order of one part in the number of images",
    "contrast_db": "Its bias is of the order of one part in the number of images",
}
"""What a small number of images does to a metric."""

NEEDS = {"fid": "inception", "kid": "inception", "precision": "inception", "recall": "inception",
         "kernel_distance": "efficientnet"}  # fmt: skip
"""Features that a metric needs beside the spectrum."""


@dataclass(frozen=True)
class ImageRows:
    """What the metrics need of each image of a set."""

    power: Tensor  # float64 [N, bins], radial power spectrum
    frequency: Tensor  # [bins]
    size: Tensor  # [bins]
    features: Mapping[str, Tensor]  # by the names in NEEDS, [N, D]

    def __len__(self) -> int:
        return len(self.power)

    def part(self, chosen: Tensor) -> ImageRows:
        """Return the images where `chosen` `[N]` is true."""
        features = {name: rows[chosen] for name, rows in self.features.items()}
        return replace(self, power=self.power[chosen], features=features)

    def spectrum(self, weight: Tensor | None = None) -> spectra.MeanSpectrum:
        """Return the mean spectrum, of the images as often as `weight` `[N]` says."""
        power = self.power.mean(0) if weight is None else weight @ self.power / weight.sum()
        return spectra.MeanSpectrum(self.frequency, power, self.size)


class Measured(NamedTuple):
    """A metric with its 95% interval, and what real images score against others of the reference."""

    value: float
    low: float
    high: float
    floor: float
    floor_images: tuple[int, int]  # numbers of the two parts of the reference


def compare(
    samples: ImageRows, reference: ImageRows, metrics: Sequence[str], *, draws: int = 200, seed: int = 0
) -> dict[str, Measured]:
    """Return metrics by name with intervals; both sets are resampled.

    Raises ValueError for sets of other sizes or with too few images: 2 samples and 4 of the reference, and twice
    NEIGHBOURS + 1 for precision and recall.
    """
    balls = {"precision", "recall"} & {*metrics}
    least = 2 * (NEIGHBOURS + 1) if balls else 4
    if len(samples) < least // 2 or len(reference) < least:
        raise ValueError(
            f"expected at least {least // 2} samples and {least} reference images; got {len(samples)} and "
            f"{len(reference)}"
        )
    spectra.same_grid(
        *(spectra.MeanSpectrum(rows.frequency, rows.power[0], rows.size) for rows in (samples, reference))
    )
    count = min(len(samples), len(reference) // 2)
    chosen = torch.zeros(len(reference), dtype=torch.bool)
    chosen[torch.linspace(0, len(reference) - 1, count).round().long()] = True
    some, others = reference.part(chosen), reference.part(~chosen)
    numbers = (len(some), len(others))
    found = {}
    for name in METRICS:
        if name not in metrics:
            continue
        function = _FUNCTIONS[name]
        weights = _weights(len(samples), len(reference), min(draws, FRECHET_DRAWS) if name == "fid" else draws, seed)
        values = function(samples, reference, *weights)
        floor = function(some, others, torch.ones(1, numbers[0]).double(), torch.ones(1, numbers[1]).double())
        drawn = values[1:][~values[1:].isnan()]  # NaN: see `kernel_distances`
        value, sizes = float(values[0]), (len(samples), len(reference))
        low, high = _intervals.around(value, float(drawn.std()), sizes, _RANGES.get(name, (-torch.inf, torch.inf)))
        found[name] = Measured(value, low, high, float(floor[0]), numbers)
    return found


_RANGES = {
    "fid": (0.0, torch.inf),
    "precision": (0.0, 1.0),
    "recall": (0.0, 1.0),
    "log_spectral_distance_db": (0.0, torch.inf),
}


def _weights(samples: int, reference: int, draws: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return how often each draw has each row, `[1 + draws, N]` and `[1 + draws, M]`; the first has each once."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for count in (samples, reference):
        chosen = torch.randint(count, (draws, count), generator=generator)
        drawn = torch.zeros(draws, count, dtype=torch.float64)
        drawn.scatter_add_(1, chosen, torch.ones(chosen.shape, dtype=torch.float64))
        found.append(torch.cat([torch.ones(1, count, dtype=torch.float64), drawn]))
    return found[0], found[1]


def kernel_distances(x: Tensor, y: Tensor, w: Tensor, v: Tensor) -> Tensor:
    """Return the unbiased MMD² under the cubic kernel of features `[N, D]`, `[M, D]` with weights `[W, N]`, `[W, M]`.

    A row that a draw has twice is not compared with itself: that would count as closeness. A draw that has one row only
    has no pair to compare, and its distance is NaN.
    """
    x, y = (_checks.in_float64(each) for each in (x, y))

    def products(a: Tensor, b: Tensor, left: Tensor, right: Tensor) -> Tensor:
        total = torch.zeros(len(left), dtype=torch.float64)
        for rows in torch.split(torch.arange(len(a)), _BLOCK):
            kernel = (a[rows] @ b.T / a.shape[1] + 1) ** 3
            total += (left[:, rows] * (right @ kernel.T)).sum(1)
        return total

    def within(a: Tensor, weight: Tensor) -> Tensor:
        own = (a.square().mean(1) + 1) ** 3
        pairs = weight.sum(1).square() - weight.square().sum(1)
        pairs = torch.where(pairs > 0, pairs, torch.nan)
        return (products(a, a, weight, weight) - weight.square() @ own) / pairs

    return within(x, w) + within(y, v) - 2 * products(x, y, w, v) / (w.sum(1) * v.sum(1))


def frechet_distances(x: Tensor, y: Tensor, w: Tensor, v: Tensor) -> Tensor:
    """Return the Frechet distance of features `[N, D]`, `[M, D]` under each pair of weights `[W, N]`, `[W, M]`.

    With as many features as rows or more, Tr (A B)^½ is the nuclear norm of the rows' cross products, which is cheaper.
    """
    x, y = (_checks.in_float64(each) for each in (x, y))
    found = []
    for left, right in zip(w, v, strict=True):
        (a, mean_a), (b, mean_b) = _centred(x, left), _centred(y, right)
        if max(len(a), len(b)) > x.shape[1]:
            statistics = [GaussianStatistics(m, rows.T @ rows, None) for rows, m in ((a, mean_a), (b, mean_b))]
            found.append(frechet_distance(*statistics))
            continue
        cross = torch.linalg.svdvals(a @ b.T).sum()
        distance = (mean_a - mean_b).square().sum() + a.square().sum() + b.square().sum() - 2 * cross
        found.append(max(0.0, float(distance)))
    return torch.tensor(found, dtype=torch.float64)


def _centred(rows: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return the rows that a draw has, around their mean and scaled so that RᵀR is the covariance, and the mean."""
    there = weight > 0
    rows, weight = rows[there], weight[there]
    mean = weight @ rows / weight.sum()
    return (weight / (weight.sum() - 1)).sqrt()[:, None] * (rows - mean), mean


def within_manifold(x: Tensor, manifold: Tensor, *, neighbours: int = NEIGHBOURS) -> Tensor:
    """Return whether each row of `x` `[N, D]` is within the ball of a row of `manifold` `[M, D]`, float64 `[N]`.

    A ball reaches to the row's `neighbours`-th nearest other row.
    """
    x, manifold = (_checks.in_float64(each) for each in (x, manifold))
    radii = torch.cat([torch.cdist(a, manifold).kthvalue(neighbours + 1).values for a in torch.split(manifold, _BLOCK)])
    return torch.cat([(torch.cdist(a, manifold) <= radii).any(1) for a in torch.split(x, _BLOCK)]).double()


def _precision(samples: ImageRows, reference: ImageRows, w: Tensor, v: Tensor) -> Tensor:
    inside = within_manifold(samples.features["inception"], reference.features["inception"])
    return w @ inside / w.sum(1)


def _recall(samples: ImageRows, reference: ImageRows, w: Tensor, v: Tensor) -> Tensor:
    inside = within_manifold(reference.features["inception"], samples.features["inception"])
    return v @ inside / v.sum(1)


def _spectral(measure: Callable[[spectra.MeanSpectrum, spectra.MeanSpectrum], float]) -> _Function:
    def function(samples: ImageRows, reference: ImageRows, w: Tensor, v: Tensor) -> Tensor:
        pairs = zip(w, v, strict=True)
        found = [measure(samples.spectrum(left), reference.spectrum(right)) for left, right in pairs]
        return torch.tensor(found, dtype=torch.float64)

    return function


def _on_features(name: str, measure: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor], scale: float) -> _Function:
    def function(samples: ImageRows, reference: ImageRows, w: Tensor, v: Tensor) -> Tensor:
        return scale * measure(samples.features[name], reference.features[name], w, v)

    return function


_Function = Callable[[ImageRows, ImageRows, Tensor, Tensor], Tensor]

_FUNCTIONS: dict[str, _Function] = {
    "fid": _on_features("inception", frechet_distances, 1.0),
    "kid": _on_features("inception", kernel_distances, 1e3),
    "precision": _precision,
    "recall": _recall,
    "kernel_distance": _on_features("efficientnet", kernel_distances, 1e3),
    "log_spectral_distance_db": _spectral(spectra.log_spectral_distance),
    "high_frequency_db": _spectral(lambda a, b: spectra.power_ratio(a, b, low=0.25)),
    "contrast_db": _spectral(spectra.power_ratio),
}
