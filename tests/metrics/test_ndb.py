import math

import numpy as np
import pytest
import scipy.spatial.distance
import scipy.stats

from specreg.metrics.ndb import js_divergence, ndb, proportion_z, two_sided_p

RNG = np.random.default_rng(0)
REAL = RNG.standard_normal((3000, 4))


def test_equal_distributions_differ_in_about_the_significance_level_of_bins():
    shares = [ndb(np.random.default_rng(k).standard_normal((1000, 4)), REAL[:1000], bins=50).share for k in range(1, 7)]
    assert np.mean(shares) < 0.1  # 0.05 by construction, 300 tests


def test_the_real_features_themselves_do_not_differ():
    result = ndb(REAL, REAL, bins=20)
    assert (result.share, result.different) == (0.0, 0)
    assert result.js_divergence == 0
    assert result.reference.sum() == pytest.approx(1)


def test_a_missing_mode_is_found_in_its_bins():
    centres = np.array([[0.0, 0], [50, 0], [0, 50], [50, 50]])
    real = (centres[:, None] + RNG.standard_normal((4, 500, 2))).reshape(-1, 2)
    result = ndb(real[:1500], real, bins=4)
    assert result.different == 4  # one is empty, three have a third in place of a quarter
    empty = int(np.argmin(result.samples))
    assert result.samples[empty] == 0
    assert result.z[empty] > 0
    assert sorted(result.samples)[1:] == pytest.approx([1 / 3] * 3)
    expected = scipy.spatial.distance.jensenshannon([0.25] * 4, [1 / 3, 1 / 3, 1 / 3, 0]) ** 2
    assert result.js_divergence == pytest.approx(expected)


@pytest.mark.parametrize("other", [[math.nan, 0.5], [0.5, 0.6], [1.5, -0.5], [1.0], [0.2, 0.3, 0.5]])
def test_what_is_no_histogram_has_no_divergence(other):
    for pair in (([0.5, 0.5], other), (other, [0.5, 0.5])):
        with pytest.raises(ValueError, match="expected two histograms"):
            js_divergence(*pair)


def test_the_result_is_a_function_of_the_seed():
    other = RNG.standard_normal((500, 4))
    a, b, c = (ndb(other, REAL, bins=30, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(a.z, b.z)
    assert not np.array_equal(a.z, c.z)


def test_whitening_makes_units_irrelevant():
    units = np.array([1.0, 1e3, 1e-3, 7.0])
    other = 1.2 * RNG.standard_normal((500, 4))
    np.testing.assert_allclose(ndb(other * units, REAL * units, bins=10).z, ndb(other, REAL, bins=10).z, atol=1e-9)
    constant = np.concatenate([REAL, np.full((3000, 1), 3.0)], axis=1)
    assert np.isfinite(ndb(constant, constant, bins=10).z).all()


def test_the_test_is_the_chi_square_test_of_a_two_by_two_table():
    for a, b, m, n in [(10, 30, 100, 200), (5, 5, 50, 70), (0, 9, 100, 100)]:
        z = proportion_z([a / m], [b / n], m, n)
        chi2 = scipy.stats.chi2_contingency([[a, m - a], [b, n - b]], correction=False)
        assert z[0] ** 2 == pytest.approx(chi2.statistic)
        assert two_sided_p(z)[0] == pytest.approx(chi2.pvalue)
    np.testing.assert_array_equal(proportion_z([0, 1], [0, 1], 10, 20), [0, 0])


def test_js_divergence_is_scipy_s():
    p, q = RNG.dirichlet(np.ones(7), 2)
    assert js_divergence(p, q) == pytest.approx(scipy.spatial.distance.jensenshannon(p, q) ** 2)
    assert js_divergence([1, 0], [0, 1]) == pytest.approx(math.log(2))


@pytest.mark.parametrize(
    ("samples", "options", "words"),
    [
        (REAL[:, :2], {}, "one width; got 2 and 4"),
        (REAL, {"bins": 1}, "bins must be between 2 and the 3000 real features; got 1"),
        (REAL, {"significance": 1.0}, "significance must be between 0 and 1"),
        (REAL * np.nan, {}, "samples must be finite; 3000 rows are not"),
        (
            np.zeros((9, 4)),
            {"reference": np.zeros((200, 4))},
            "at least 100 different features, one for .* bin; got 1$",
        ),
        (
            REAL,
            {"reference": REAL.round(), "bins": 2900},
            r"at least 2900 different features, one for .* bin; got \d+$",
        ),
        (REAL[0], {}, r"samples must be features \[N, D\]"),
    ],
)
def test_refusals(samples, options, words):
    with pytest.raises(ValueError, match=words):
        ndb(samples, **{"reference": REAL, **options})
