"""Distances between sets of images against torch-fidelity, numpy and distributions whose distance is known."""

import numpy as np
import pytest
import torch

from specreg.metrics import image_sets
from specreg.metrics.frechet import FeatureAccumulator, frechet_distance
from specreg.metrics.image_sets import ImageRows, compare
from specreg.metrics.kernel_distance import kernel_distance
from specreg.transforms.radial import power_spectrum


def rows(x, **features):
    found = power_spectrum(x.double())
    return ImageRows(found.power, found.frequency, found.size, features)


def normal(count, width=8, *, shift=0.0, scale=1.0, seed=0):
    return shift + scale * torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


def ones(*counts):
    return [torch.ones(1, count, dtype=torch.float64) for count in counts]


def test_kid_is_torch_fidelity_s_on_whole_sets():
    from torch_fidelity.metric_kid import kernel_mmd

    x, y = normal(40), normal(40, shift=0.3, seed=1)
    options = {"kid_kernel": "poly", "kid_kernel_poly_degree": 3, "kid_kernel_poly_gamma": None,
               "kid_kernel_poly_coef0": 1, "kid_kernel_rbf_sigma": None}  # fmt: skip
    expected = kernel_mmd(x.double().numpy(), y.double().numpy(), **options)
    (found,) = image_sets.kernel_distances(x, y, *ones(40, 40))
    assert float(found) == pytest.approx(float(expected), rel=1e-9)
    assert float(found) == pytest.approx(kernel_distance(x, y), rel=1e-9)


def test_precision_and_recall_are_torch_fidelity_s():
    from torch_fidelity.metric_prc import calculate_precision_recall_full

    x, y = normal(60, scale=0.7), normal(80, seed=1)
    expected = calculate_precision_recall_full(x, y, neighborhood=3)
    found = [float(image_sets.within_manifold(*pair).mean()) for pair in ((x, y), (y, x))]
    assert found == pytest.approx(list(expected), abs=1e-6)
    assert 0 < found[1] < found[0]


@pytest.mark.parametrize(("count", "width"), [(40, 8), (10, 30)])
def test_both_ways_to_the_frechet_distance_are_that_of_the_statistics(count, width):
    x, y = normal(count, width), normal(count + 3, width, shift=0.5, scale=2, seed=1)
    statistics = []
    for each in (x, y):
        sums = FeatureAccumulator(width)
        sums.add(each)
        statistics.append(sums.statistics())
    (found,) = image_sets.frechet_distances(x, y, *ones(len(x), len(y)))
    assert float(found) == pytest.approx(frechet_distance(*statistics), rel=1e-6)


def test_weights_are_repeated_rows():
    x, y = normal(6), normal(5, seed=1)
    w = torch.tensor([[2.0, 1, 0, 1, 1, 1]]).double()
    repeated = x[[0, 0, 1, 3, 4, 5]]
    (found,) = image_sets.frechet_distances(x, y, w, *ones(5))
    assert float(found) == pytest.approx(float(image_sets.frechet_distances(repeated, y, *ones(6, 5))), rel=1e-9)
    # A row is never compared with itself, not even with its copy.
    k = (repeated.double() @ repeated.double().T / 8 + 1) ** 3
    apart = torch.tensor([[a != b for b in (0, 0, 1, 3, 4, 5)] for a in (0, 0, 1, 3, 4, 5)])
    cross = (repeated.double() @ y.double().T / 8 + 1) ** 3
    yy = (y.double() @ y.double().T / 8 + 1) ** 3
    expected = k[apart].mean() + (yy.sum() - yy.diagonal().sum()) / 20 - 2 * cross.mean()
    (found,) = image_sets.kernel_distances(x, y, w, *ones(5))
    assert float(found) == pytest.approx(float(expected), rel=1e-9)


def test_intervals_cover_a_distance_that_is_known():
    """Energy of white noise of standard deviation 2 against 1: 6.02 dB, in 95 of 100 intervals."""
    hits = 0
    for trial in range(40):
        images = [scale * normal(40, 64, seed=10 * trial + k).reshape(-1, 1, 8, 8) for k, scale in ((0, 2), (1, 1))]
        found = compare(*(rows(x) for x in images), ["contrast_db"], seed=trial)["contrast_db"]
        hits += found.low < 20 * np.log10(2) < found.high
        assert abs(found.floor) < 1.5
        assert found.floor_images == (20, 20)
    assert hits >= 35


@pytest.mark.parametrize(("count", "reference"), [(2, 4), (4, 8)])
def test_few_images_of_one_distribution_raise_no_more_alarms_than_many(count, reference):
    """At 95% about 10 of 200 pairs raise one, or fewer; without the widening for few images 39 and 27 do."""
    alarms = 0
    for trial in range(200):
        images = [normal(n, 64, seed=10 * trial + k).reshape(-1, 1, 8, 8) for k, n in enumerate((count, reference))]
        found = compare(*(rows(x) for x in images), ["contrast_db"], draws=60, seed=trial)["contrast_db"]
        alarms += not found.low < 0 < found.high
    assert alarms <= 16


def test_kernel_distances_of_few_images_have_finite_intervals():
    """Half of the draws of two images have one of them twice, which leaves no pair to compare."""
    x, y = (rows(torch.randn(n, 1, 4, 4), efficientnet=normal(n, seed=n)) for n in (2, 4))
    found = compare(x, y, ["kernel_distance"])["kernel_distance"]
    assert -np.inf < found.low < found.value < found.high < np.inf


def test_a_kernel_distance_of_equal_distributions_has_an_interval_around_its_floor():
    found = [
        compare(
            rows(torch.randn(60, 1, 4, 4), efficientnet=normal(60, seed=2 * k)),
            rows(torch.randn(60, 1, 4, 4), efficientnet=normal(60, seed=2 * k + 1)),
            ["kernel_distance"],
        )["kernel_distance"]
        for k in range(20)
    ]
    assert sum(each.low < 0 < each.high for each in found) >= 17


def test_few_images_and_other_sizes_are_refused():
    x = torch.randn(8, 1, 4, 4)
    with pytest.raises(ValueError, match="expected at least 2 samples and 4 reference images; got 8 and 3"):
        compare(rows(x), rows(x[:3]), ["contrast_db"])
    with pytest.raises(ValueError, match="expected at least 4 samples and 8 reference images; got 3 and 8"):
        compare(rows(x[:3]), rows(x), ["precision"])
    with pytest.raises(ValueError, match="spectra must be of one image size"):
        compare(rows(x), rows(torch.randn(8, 1, 4, 6)), ["contrast_db"])
