"""The wavelet loss against sums over PyWavelets' coefficients."""

import numpy as np
import pytest
import pywt
import torch

from specreg.losses import wavelet
from specreg.losses.functional import wavelet_bands


def pair(shape, dtype=torch.float64):
    g = torch.Generator().manual_seed(0)
    return tuple(torch.randn(shape, generator=g, dtype=dtype) for _ in range(2))


def reference(x0_hat, x0, name, levels, mode, gamma=lambda level, band: 1.0, reduction="mean"):
    """Σ γ |W − Ŵ| over both images' own PyWavelets transforms."""
    axes = tuple(range(2, x0.ndim))
    out = []
    for a, b in zip(x0_hat.numpy(), x0.numpy(), strict=True):
        ca, cb = (pywt.wavedecn(x[None], name, mode=mode, level=levels, axes=axes) for x in (a, b))
        bands = [((levels, "a" * len(axes)), np.abs(ca[0] - cb[0]))]
        for level, (da, db) in zip(range(levels, 0, -1), zip(ca[1:], cb[1:], strict=True), strict=True):
            bands += [((level, key), np.abs(da[key] - db[key])) for key in da]
        total = sum(gamma(*key) * w.sum() for key, w in bands)
        out.append(total / sum(w.size for _, w in bands) if reduction == "mean" else total)
    return np.array(out)


@pytest.mark.parametrize("name", ["haar", "bior1.3", "db4", "sym5"])
@pytest.mark.parametrize("mode", ["periodization", "periodic", "zero", "symmetric", "reflect"])
@pytest.mark.parametrize("shape", [(2, 2, 40), (2, 1, 24, 21), (1, 2, 8, 9, 10)], ids=str)
def test_value_equals_pywavelets(name, mode, shape):
    x0_hat, x0 = pair(shape)
    for reduction in ("mean", "sum"):
        ours = wavelet(x0_hat, x0, wavelet=name, levels=2, mode=mode, reduction=reduction)
        expected = reference(x0_hat, x0, name, 2, mode, reduction=reduction)
        np.testing.assert_allclose(ours.numpy(), expected, rtol=1e-9)


def test_default_levels_are_the_deepest_useful_ones():
    x0_hat, x0 = pair((2, 1, 32, 32))
    np.testing.assert_allclose(
        wavelet(x0_hat, x0, wavelet="bior1.3"),
        reference(x0_hat, x0, "bior1.3", 2, "periodization"),
        rtol=1e-9,
    )
    np.testing.assert_allclose(wavelet(x0_hat, x0), reference(x0_hat, x0, "haar", 5, "periodization"), rtol=1e-9)


@pytest.mark.parametrize(("shape", "most"), [((16, 16), 4), ((16, 2), 1), ((1, 32), 1), ((17,), 5), ((33, 64, 5), 3)])
@pytest.mark.parametrize("name", ["haar", "db4"])
def test_more_levels_than_halve_the_shortest_axis_are_refused(shape, most, name):
    x0_hat, x0 = pair((2, 1, *shape))
    assert wavelet(x0_hat, x0, wavelet=name, levels=most).shape == (2,)
    shown = "×".join(map(str, shape))
    for measure in (wavelet, wavelet_bands):
        for levels in (most + 1, 20):
            with pytest.raises(ValueError, match=f"at most {most} for samples of {shown}, .*; got {levels}"):
                measure(x0_hat, x0, wavelet=name, levels=levels)


def test_band_weights_by_level_and_by_band():
    x0_hat, x0 = pair((2, 1, 16, 16))
    by_level = wavelet(x0_hat, x0, levels=3, band_weights=[4.0, 2.0, 0.5])
    expected = reference(x0_hat, x0, "haar", 3, "periodization", lambda level, _: [4.0, 2.0, 0.5][level - 1])
    np.testing.assert_allclose(by_level.numpy(), expected, rtol=1e-9)

    gamma = {(1, "dd"): 3.0, (3, "aa"): 0.0}
    expected = reference(x0_hat, x0, "haar", 3, "periodization", lambda *key: gamma.get(key, 1.0))
    for spelling in (gamma, {"1dd": 3.0, "3aa": 0.0}):
        by_band = wavelet(x0_hat, x0, levels=3, band_weights=spelling)
        np.testing.assert_allclose(by_band.numpy(), expected, rtol=1e-9)


def test_band_weights_that_fit_no_band_are_refused():
    x = torch.zeros(1, 1, 8, 8)
    with pytest.raises(ValueError, match="one number for each of 2 levels; got 3"):
        wavelet(x, x, levels=2, band_weights=[1, 1, 1])
    with pytest.raises(ValueError, match=r"names '3dd'; the bands of 2 levels are 1\w\w.*2aa"):
        wavelet(x, x, levels=2, band_weights={(3, "dd"): 1.0})


@pytest.mark.parametrize("name", ["haar", "bior1.3"])
def test_gradcheck(name):
    x0_hat, x0 = pair((2, 1, 7, 8))
    x0_hat.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: wavelet(x, x0, wavelet=name, levels=2), x0_hat, eps=1e-7, atol=1e-6)


def test_haar_of_a_constant_error_is_known():
    """A constant difference c on 2^k × 2^k has one coefficient, c·2^k: the mean is |c| / 2^k."""
    x0 = torch.zeros(1, 1, 16, 16)
    assert float(wavelet(x0 + 0.5, x0)) == pytest.approx(0.5 / 16, rel=1e-6)


FLAT = {
    "zeros": torch.zeros(1, 1, 8, 8),
    "ones": torch.ones(1, 1, 8, 8),
    "denormal": torch.full((1, 1, 8, 8), 1e-44),
    "one pixel": torch.full((1, 1, 1, 1), 0.3),
}


@pytest.mark.parametrize("x", FLAT.values(), ids=FLAT)
def test_gradients_are_finite_and_bounded_everywhere(x):
    x0_hat = x.clone().requires_grad_()
    value = wavelet(x0_hat, torch.zeros_like(x))
    value.sum().backward()
    assert value.isfinite().all()
    assert x0_hat.grad.isfinite().all()
    assert x0_hat.grad.norm() <= 1.0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32_and_autocast_stays_out(dtype):
    x0_hat, x0 = (x.to(dtype) for x in pair((2, 1, 8, 8)))
    expected = wavelet(x0_hat.float(), x0.float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = wavelet(x0_hat, x0)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, expected, rtol=0, atol=0)


def test_non_finite_x0_is_refused():
    x0 = torch.zeros(3, 1, 8, 8)
    x0[2, 0, 1, 1] = float("nan")
    with pytest.raises(ValueError, match=r"x0 must be finite.*\[2\]"):
        wavelet(torch.zeros_like(x0), x0)
