"""Frechet distance against analytic Gaussians and scipy's matrix square root; Inception weights read safely."""

import numpy as np
import pytest
import scipy.linalg
import torch

from specreg.metrics import features
from specreg.metrics.frechet import (
    FeatureAccumulator,
    GaussianStatistics,
    frechet_distance,
    load_statistics,
    save_statistics,
)


def gaussian(mean, covariance):
    return GaussianStatistics(torch.as_tensor(mean).double(), torch.as_tensor(covariance).double(), None)


def covariance(rng, d):
    root = rng.standard_normal((d, d))
    return root @ root.T


def accumulated(x, parts=3):
    sums = FeatureAccumulator(x.shape[1])
    for part in np.array_split(x, parts):
        sums.add(torch.from_numpy(part))
    return sums.statistics()


def test_one_dimension_and_diagonals_in_closed_form():
    """(μ − ν)² + (s − t)², summed over axes that do not mix."""
    a = gaussian([1.0, -2.0, 0.0], np.diag([4.0, 9.0, 0.0]))
    b = gaussian([0.0, 2.0, 0.5], np.diag([1.0, 25.0, 4.0]))
    expected = 1 + 16 + 0.25 + (2 - 1) ** 2 + (3 - 5) ** 2 + (0 - 2) ** 2
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-12)
    assert frechet_distance(b, a) == pytest.approx(expected, rel=1e-12)


def test_scaled_and_shifted_copies_in_closed_form():
    rng = np.random.default_rng(0)
    c, shift = covariance(rng, 20), rng.standard_normal(20)
    a, b = gaussian(np.zeros(20), c), gaussian(shift, 2.25 * c)
    expected = shift @ shift + (1.5 - 1) ** 2 * np.trace(c)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-10)


def test_general_covariances_against_scipy_s_square_root():
    rng = np.random.default_rng(1)
    a, b = covariance(rng, 15), covariance(rng, 15)
    root = scipy.linalg.sqrtm(a @ b)
    expected = np.trace(a) + np.trace(b) - 2 * np.trace(root).real
    assert frechet_distance(gaussian(np.zeros(15), a), gaussian(np.zeros(15), b)) == pytest.approx(expected, rel=1e-8)


def test_never_negative_with_fewer_samples_than_dimensions():
    rng = np.random.default_rng(2)
    for n in (2, 5, 30):
        x = rng.standard_normal((n, 64)) * 1e3
        same = accumulated(x), accumulated(x[::-1].copy())
        found = frechet_distance(*same)
        assert 0 <= found < 1e-6 * 64e6
        other = frechet_distance(same[0], accumulated(rng.standard_normal((n, 64)) * 1e3))
        assert np.isfinite(other)
        assert other > 0


def test_statistics_are_numpy_s_and_survive_parts_and_files(tmp_path):
    x = np.random.default_rng(3).standard_normal((57, 6)) + 100.0
    found = accumulated(x, parts=4)
    np.testing.assert_allclose(found.mean, x.mean(0), rtol=1e-12)
    np.testing.assert_allclose(found.covariance, np.cov(x, rowvar=False), rtol=1e-8)
    assert found.samples == 57
    sums = FeatureAccumulator(6)
    sums.add(torch.from_numpy(x[:30]))
    again = FeatureAccumulator(6)
    again.restore(sums.state())
    again.add(torch.from_numpy(x[30:]))
    np.testing.assert_allclose(again.statistics().covariance, found.covariance, rtol=1e-8)
    save_statistics(tmp_path / "s.npz", found)
    loaded = load_statistics(tmp_path / "s.npz")
    assert torch.equal(loaded.covariance, found.covariance)
    np.savez(tmp_path / "edm.npz", mu=x.mean(0), sigma=np.cov(x, rowvar=False))
    assert frechet_distance(load_statistics(tmp_path / "edm.npz"), found) < 1e-9


def test_what_is_wrong_is_said(tmp_path):
    sums = FeatureAccumulator(3)
    with pytest.raises(ValueError, match=r"features must be \[N, 3\]; got \[2, 4\]"):
        sums.add(torch.zeros(2, 4))
    with pytest.raises(ValueError, match="1 of 2 rows are not"):
        sums.add(torch.tensor([[0.0, 1, 2], [float("nan"), 0, 0]]))
    with pytest.raises(ValueError, match="at least 2 samples; got 0"):
        sums.statistics()
    np.savez(tmp_path / "x.npz", a=1)
    with pytest.raises(ValueError, match=r"x\.npz: .*expected arrays mu and sigma; got a"):
        load_statistics(tmp_path / "x.npz")
    np.savez(tmp_path / "y.npz", mu=np.zeros(2), sigma=np.array([object()]))
    with pytest.raises(ValueError, match=r"y\.npz"):
        load_statistics(tmp_path / "y.npz")


@pytest.mark.parametrize("name", ["mu", "sigma"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_statistics_that_are_not_finite_are_refused(tmp_path, name, value):
    arrays = {"mu": np.zeros(2), "sigma": np.eye(2)}
    arrays[name].flat[0] = value
    np.savez(tmp_path / "x.npz", **arrays)
    size = arrays[name].size
    with pytest.raises(ValueError, match=rf"x\.npz: expected finite {name}; 1 of {size} values are NaN or infinite"):
        load_statistics(tmp_path / "x.npz")
    broken = GaussianStatistics(*(torch.from_numpy(array) for array in arrays.values()), None)
    whole = GaussianStatistics(torch.zeros(2).double(), torch.eye(2).double(), None)
    for pair in ((broken, whole), (whole, broken)):
        with pytest.raises(ValueError, match="expected a finite mean and covariance"):
            frechet_distance(*pair)


def test_matrices_that_are_no_covariance_are_refused(tmp_path):
    np.savez(tmp_path / "x.npz", mu=np.zeros(2), sigma=np.array([[1.0, 2.0], [0.0, 1.0]]))
    with pytest.raises(ValueError, match=r"x\.npz: expected a symmetric sigma"):
        load_statistics(tmp_path / "x.npz")
    whole, mirrored = (GaussianStatistics(torch.zeros(2).double(), s * torch.eye(2).double(), None) for s in (1, -1))
    with pytest.raises(ValueError, match="without negative eigenvalues; got -1 to -1"):
        frechet_distance(whole, mirrored)


def test_missing_weights_say_what_to_fetch(tmp_path, monkeypatch):
    monkeypatch.delenv(features.INCEPTION_VARIABLE, raising=False)
    with pytest.raises(features.WeightsMissing, match=r"fetch it and pass --inception FILE or set SPECREG_INCEPTION"):
        features.find_inception()
    monkeypatch.setenv(features.INCEPTION_VARIABLE, str(tmp_path / "w.pth"))
    with pytest.raises(features.WeightsMissing, match=r"w\.pth"):
        features.find_inception()
    (tmp_path / "w.pth").write_bytes(b"x")
    assert features.find_inception() == tmp_path / "w.pth"


def test_inception_features_of_random_weights(tmp_path, monkeypatch):
    """The wiring: uint8 in, 2048 numbers out, per image, grey as colour; files with code and other files refused."""
    module = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    kind = module.FeatureExtractorInceptionV3
    with monkeypatch.context() as patch, torch.random.fork_rng():
        torch.manual_seed(0)
        patch.setattr(module, "load_state_dict_from_url", lambda *a, **k: {})
        patch.setattr(kind, "load_state_dict", lambda self, state: None)
        state = kind("x", ["2048"]).state_dict()
    torch.save(state, tmp_path / "random.pth")
    with pytest.raises(ValueError, match="expected a SHA-256 that begins with 6726825d"):
        features.InceptionFeatures(tmp_path / "random.pth")
    extract = features.InceptionFeatures(tmp_path / "random.pth", verify=False)
    images = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    found = extract(images)
    assert found.shape == (3, 2048)
    torch.testing.assert_close(found[1:2], extract(images[1:2]), rtol=1e-3, atol=1e-5)
    grey = images[:, :1]
    torch.testing.assert_close(extract(grey), extract(grey.repeat(1, 3, 1, 1)))
    with pytest.raises(ValueError, match="images must be uint8"):
        extract(images.float())
    (tmp_path / "bad.pth").write_bytes(b"\x80\x04cos\nsystem\n(Vtouch x\ntR.")
    with pytest.raises(ValueError, match=r"bad\.pth: cannot be read as a torch file .* it holds os\.system"):
        features.InceptionFeatures(tmp_path / "bad.pth", verify=False)
