"""Quantile functions against scipy's distributions."""

import numpy as np
import pytest
import scipy.special
import scipy.stats

from specreg.diffusion import noise_density

U = np.linspace(0.001, 0.999, 41)


@pytest.mark.parametrize(
    ("name", "options", "cdf"),
    [
        ("edm", {}, lambda x: scipy.stats.lognorm(1.2, scale=np.exp(-1.2)).cdf(x)),
        ("ve", {}, lambda x: scipy.stats.loguniform(0.02, 100).cdf(x)),
        ("uniform", {}, scipy.stats.uniform().cdf),
        ("logit_normal", {}, lambda t: scipy.stats.norm().cdf(scipy.special.logit(t))),
        ("logit_normal", {"mean": -0.5, "std": 1.5}, lambda t: scipy.stats.norm(-0.5, 1.5).cdf(scipy.special.logit(t))),
    ],
)
def test_the_distribution_function_gives_the_quantile_back(name, options, cdf):
    density = noise_density.build(name, **options)
    found = np.array([density(u) for u in U])
    np.testing.assert_allclose(cdf(found), U, rtol=1e-9)
    assert (np.diff(found) > 0).all()
    if name in ("uniform", "logit_normal"):
        assert 0 < found.min() < found.max() < 1


def test_a_logit_normal_density_favours_the_middle_times():
    """Stable Diffusion 3's: 68.3% of t between 1/(1 + e) and e/(1 + e)."""
    t = np.array([noise_density.build("logit_normal")((k + 0.5) / 10_000) for k in range(10_000)])
    assert np.mean(np.abs(t - 0.5) < np.e / (1 + np.e) - 0.5) == pytest.approx(0.6827, abs=1e-3)
    assert t.mean() == pytest.approx(0.5, abs=1e-6)


def test_bad_densities_are_refused():
    with pytest.raises(ValueError, match="did you mean 'logit_normal'"):
        noise_density.build("logitnormal")
    with pytest.raises(ValueError, match="'uniform' has no option 'mean'"):
        noise_density.build("uniform", mean=0.0)
    with pytest.raises(ValueError, match="std must be positive; got 0"):
        noise_density.build("logit_normal", std=0)
