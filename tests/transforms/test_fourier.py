import numpy as np
import pytest
import torch

from specreg.transforms import fourier

SHAPES = [(9,), (8,), (6, 5), (5, 6), (4, 3, 2), (3, 4, 5), (1,), (1, 1)]


def full_axes(shape):
    return tuple(range(-len(shape), 0))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("norm", fourier.NORMS)
def test_weighted_half_spectrum_sums_equal_full_spectrum_sums(shape, norm):
    x = np.random.default_rng(0).standard_normal((2, *shape))
    half = fourier.half_spectrum(torch.from_numpy(x), ndim=len(shape), norm=norm)
    weights = fourier.bin_weights(shape[-1], dtype=torch.float64)
    full = np.fft.fftn(x, axes=full_axes(shape), norm=norm)
    ours = (fourier.amplitude(half) * weights).flatten(1).sum(1).numpy()
    np.testing.assert_allclose(ours, np.abs(full).reshape(2, -1).sum(1), rtol=1e-12)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("norm", fourier.NORMS)
def test_adjoint_satisfies_its_inner_product(shape, norm):
    """<F x, g> over the full spectrum equals <x, F* g>."""
    rng = np.random.default_rng(1)
    x, y = (torch.from_numpy(rng.standard_normal(shape)) for _ in range(2))
    g = fourier.half_spectrum(y, ndim=len(shape))
    adjoint = fourier.half_spectrum_adjoint(g, shape=x.shape, ndim=len(shape), norm=norm)
    axes = full_axes(shape)
    Fx = np.fft.fftn(x.numpy(), axes=axes, norm=norm)
    inner = (Fx * np.fft.fftn(y.numpy(), axes=axes, norm="ortho").conj()).sum().real
    assert float((x * adjoint).sum()) == pytest.approx(inner, rel=1e-10)


def test_phase_difference_is_wrapped_and_survives_underflow():
    a, b = torch.tensor([3.0, -3.0, 0.5]), torch.tensor([-3.0, 3.0, 0.2])
    expected = torch.tensor([6.0 - 2 * torch.pi, 2 * torch.pi - 6.0, 0.3])
    for scale in (1.0, 1e-30):
        hat, truth = torch.polar(torch.full((3,), scale), a), torch.polar(torch.full((3,), scale), b)
        torch.testing.assert_close(fourier.phase_difference(hat, truth), expected, rtol=0, atol=1e-5)


def test_zero_coefficients_have_no_phase_difference():
    zero, one = torch.zeros(3, dtype=torch.complex64), torch.ones(3, dtype=torch.complex64) * 1j
    assert (fourier.phase_difference(zero, one) == 0).all()
    assert (fourier.phase_difference(one, zero) == 0).all()
    assert (fourier.phase(zero) == 0).all()
