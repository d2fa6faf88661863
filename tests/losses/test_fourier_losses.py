"""The Fourier losses against plain full-spectrum FFTs: numpy for values, autograd for gradients."""

import math

import numpy as np
import pytest
import torch

from specreg.losses import amplitude, amplitude_phase

COUPLINGS = ["frequency", "norm", "projection"]
SHAPES = [(3, 2, 16), (3, 2, 15), (2, 3, 8, 9), (2, 1, 9, 8), (2, 2, 4, 5, 6), (2, 1, 1, 1), (2, 1, 1, 7)]


def reference(x0_hat, x0, kind, *, norm="ortho", reduction="mean", axes=None):
    """Eqs. 14 and 15 as they read, full complex spectra, numpy float64."""
    axes = axes or tuple(range(2, x0.ndim))
    F_hat, F = (np.fft.fftn(x, axes=axes, norm=norm) for x in (x0_hat, x0))
    d = np.abs(np.abs(F_hat) - np.abs(F))
    delta = np.abs(np.angle(F_hat * F.conj()))
    reduce = {"mean": np.mean, "sum": np.sum}[reduction]
    per_sample = tuple(range(1, x0.ndim))
    if kind == "amplitude":
        return reduce(d, axis=per_sample)
    if kind == "frequency":
        return reduce(d * (1 + delta), axis=per_sample)
    if kind == "norm":
        return reduce(d, axis=per_sample) * (1 + reduce(delta, axis=per_sample))
    return reduce(d + np.abs(F_hat) * (1 - np.cos(delta)), axis=per_sample)


def reference_torch(x0_hat, x0, kind):
    """The same in torch, mean reduction, for autograd; valid where no amplitude vanishes."""
    axes = tuple(range(2, x0.ndim))
    F_hat, F = torch.fft.fftn(x0_hat, dim=axes, norm="ortho"), torch.fft.fftn(x0, dim=axes, norm="ortho")
    d = (F_hat.abs() - F.abs()).abs()
    delta = (F_hat * F.conj()).angle()
    if kind == "amplitude":
        return d.flatten(1).mean(1)
    if kind == "frequency":
        return (d * (1 + delta.abs())).flatten(1).mean(1)
    if kind == "norm":
        return d.flatten(1).mean(1) * (1 + delta.abs().flatten(1).mean(1))
    return (d + F_hat.abs() * (1 - delta.cos())).flatten(1).mean(1)


def loss(kind, x0_hat, x0, **options):
    if kind == "amplitude":
        return amplitude(x0_hat, x0, **options)
    return amplitude_phase(x0_hat, x0, coupling=kind, **options)


def pair(shape, seed=0, dtype=torch.float64):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=g, dtype=dtype), torch.randn(shape, generator=g, dtype=dtype)


@pytest.mark.parametrize("kind", ["amplitude", *COUPLINGS])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("norm", ["ortho", "backward", "forward"])
def test_value_equals_the_equations_on_full_spectra(kind, shape, reduction, norm):
    x0_hat, x0 = pair(shape)
    ours = loss(kind, x0_hat, x0, norm=norm, reduction=reduction)
    expected = reference(x0_hat.numpy(), x0.numpy(), kind, norm=norm, reduction=reduction)
    np.testing.assert_allclose(ours.numpy(), expected, rtol=1e-10)


def close_pair(shape):
    """x0 with all amplitudes well away from 0 and x0_hat near enough that no kink lies between."""
    g = torch.Generator().manual_seed(1)
    x0 = torch.randn(shape, generator=g, dtype=torch.float64)
    axes = tuple(range(2, x0.ndim))
    F = torch.fft.rfftn(x0, dim=axes, norm="ortho")
    x0 = torch.fft.irfftn(F / F.abs() * (1 + 0.3 * F.abs()), s=shape[2:], dim=axes, norm="ortho")
    return x0 + 0.1 * torch.randn(shape, generator=g, dtype=torch.float64), x0


@pytest.mark.parametrize("kind", ["amplitude", *COUPLINGS])
@pytest.mark.parametrize("shape", [(2, 2, 11), (2, 1, 6, 7), (1, 1, 4, 3, 4)], ids=str)
def test_gradient_equals_autograd_of_the_plain_form(kind, shape):
    x0_hat, x0 = close_pair(shape)
    a, b = x0_hat.clone().requires_grad_(), x0_hat.clone().requires_grad_()
    scale = torch.linspace(0.5, 2, shape[0], dtype=torch.float64)
    (loss(kind, a, x0) * scale).sum().backward()
    (reference_torch(b, x0, kind) * scale).sum().backward()
    torch.testing.assert_close(a.grad, b.grad, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", ["amplitude", *COUPLINGS])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("norm", ["ortho", "backward", "forward"])
def test_gradcheck(kind, reduction, norm):
    x0_hat, x0 = close_pair((2, 1, 5, 6))
    x0_hat.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x: loss(kind, x, x0, reduction=reduction, norm=norm), x0_hat, eps=1e-7, atol=1e-5
    )


def test_one_problem_in_one_two_and_three_dimensions_has_one_answer():
    x0_hat, x0 = pair((2, 3, 12))
    for kind in ["amplitude", *COUPLINGS]:
        results = []
        for shape in [(2, 3, 12), (2, 3, 1, 12), (2, 3, 1, 1, 12)]:
            x = x0_hat.reshape(shape).clone().requires_grad_()
            value = loss(kind, x, x0.reshape(shape))
            value.sum().backward()
            results.append((value.detach(), x.grad.reshape(2, 3, 12)))
        for value, gradient in results[1:]:
            torch.testing.assert_close(value, results[0][0], rtol=1e-12, atol=0)
            torch.testing.assert_close(gradient, results[0][1], rtol=1e-10, atol=1e-14)


def test_ndim_transforms_every_frame_on_its_own():
    x0_hat, x0 = pair((2, 3, 4, 6, 5))
    expected = reference(x0_hat.numpy(), x0.numpy(), "frequency", axes=(3, 4))
    np.testing.assert_allclose(amplitude_phase(x0_hat, x0, ndim=2).numpy(), expected, rtol=1e-10)


def test_two_dimensional_audio_is_one_channel():
    x0_hat, x0 = pair((2, 40))
    torch.testing.assert_close(amplitude(x0_hat, x0), amplitude(x0_hat[:, None], x0[:, None]), rtol=0, atol=0)


def test_a_shifted_copy_is_free_for_all_but_projection():
    _, x0 = pair((2, 1, 8, 8))
    shifted = x0.roll((1, 2), dims=(-2, -1))
    assert amplitude(shifted, x0).max() < 1e-12
    assert amplitude_phase(shifted, x0, coupling="frequency").max() < 1e-12
    assert amplitude_phase(shifted, x0, coupling="norm").max() < 1e-12
    assert amplitude_phase(shifted, x0, coupling="projection").min() > 0.1


def test_phase_differences_are_wrapped():
    n = torch.arange(16, dtype=torch.float64)
    wave = lambda phase: torch.cos(2 * math.pi * 3 * n / 16 + phase)[None, None]  # noqa: E731
    x0, x0_hat = wave(3.0), 2 * wave(-3.0)  # 6.0 apart as written, 2π − 6 apart on the circle
    A = 2.0  # |F| of a unit cosine in its two bins, orthonormal DFT of 16 samples
    expected = 2 * A * (1 + 2 * math.pi - 6.0)
    assert amplitude_phase(x0_hat, x0, reduction="sum").item() == pytest.approx(expected, rel=1e-9)


EXTREMES = {
    "zeros": torch.zeros(2, 1, 8, 8),
    "ones": torch.ones(2, 1, 8, 8),
    "denormal": torch.full((2, 1, 8, 8), 1e-42),
    "denormal noise": torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(5)) * 1e-41,
    "tiny noise": torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(6)) * 1e-25,
    "huge": torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(7)) * 1e15,
    "noise": torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(8)),
    "one pixel": torch.zeros(2, 1, 8, 8).index_put_(tuple(torch.tensor([0, 0, 3, 4])), torch.tensor(1.0)),
    "checkerboard": (torch.arange(8)[:, None] // 2 + torch.arange(8) // 2)
    .remainder(2)
    .mul(2.0)
    .sub(1)
    .expand(2, 1, 8, 8),
}


@pytest.mark.parametrize("kind", ["amplitude", *COUPLINGS])
@pytest.mark.parametrize("hat", EXTREMES, ids=str)
@pytest.mark.parametrize("truth", EXTREMES, ids=str)
def test_gradients_are_finite_and_bounded_everywhere(kind, hat, truth):
    x0_hat = EXTREMES[hat].clone().requires_grad_()
    value = loss(kind, x0_hat, EXTREMES[truth], reduction="mean")
    value.sum().backward()
    assert value.isfinite().all()
    assert x0_hat.grad.isfinite().all()
    # ∂L/∂F̂ is at most (1 + π) along F̂ and the documented limit across it, over 64 coefficients; the
    # orthonormal transform keeps the norm of the 64 of them.
    across = 0 if kind in ("amplitude", "projection") else 10
    assert x0_hat.grad.flatten(1).norm(dim=1).max() <= 1.01 * math.hypot(1 + math.pi, across) / 8


def test_identical_inputs_give_zero_and_zero_gradient():
    _, x0 = pair((2, 1, 8, 8), dtype=torch.float32)
    for kind in ["amplitude", *COUPLINGS]:
        x = x0.clone().requires_grad_()
        value = loss(kind, x, x0)
        value.sum().backward()
        assert value.abs().max() < 1e-6
        assert x.grad.abs().max() < 1e-6


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_half_precision_is_computed_in_float32(dtype):
    x0_hat, x0 = (x.to(dtype) for x in pair((2, 1, 9, 7)))
    x0_hat.requires_grad_()
    value = amplitude_phase(x0_hat, x0)
    value.sum().backward()
    work = torch.float64 if dtype == torch.float64 else torch.float32
    assert value.dtype == work
    assert x0_hat.grad.dtype == dtype
    torch.testing.assert_close(value, amplitude_phase(x0_hat.to(work), x0.to(work)), rtol=0, atol=0)


def test_autocast_does_not_reach_inside():
    x0_hat, x0 = pair((2, 1, 8, 8), dtype=torch.float32)
    expected = amplitude_phase(x0_hat, x0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(amplitude_phase(x0_hat, x0), expected, rtol=0, atol=0)


def test_no_gradient_flows_to_x0():
    x0_hat, x0 = pair((2, 1, 8))
    x0.requires_grad_()
    assert not amplitude(x0_hat, x0).requires_grad
    x0_hat.requires_grad_()
    amplitude(x0_hat, x0).sum().backward()
    assert x0.grad is None


@pytest.mark.parametrize(
    ("x0_hat", "x0", "error", "words"),
    [
        (
            torch.zeros(2, 1, 8),
            torch.zeros(2, 1, 9),
            ValueError,
            r"same shape; got \[2, 1, 8\] and \[2, 1, 9\]",
        ),
        (torch.zeros(0, 1, 8), torch.zeros(0, 1, 8), ValueError, r"x0 is empty"),
        (torch.zeros(8), torch.zeros(8), ValueError, r"x0 must be \[B, T\] or \[B, C, \*space\]"),
        (
            torch.zeros(2, 8, dtype=torch.int64),
            torch.zeros(2, 8),
            TypeError,
            r"x0_hat must be a real floating",
        ),
        (
            torch.zeros(2, 8),
            torch.zeros(2, 8, dtype=torch.complex64),
            TypeError,
            r"x0 must be a real floating",
        ),
        (
            torch.zeros(2, 8),
            torch.tensor([[0.0] * 8, [math.nan] * 8]),
            ValueError,
            r"x0 must be finite.*\[1\]",
        ),
        (
            torch.zeros(2, 8),
            torch.tensor([[math.inf] * 8, [0.0] * 8]),
            ValueError,
            r"x0 must be finite.*\[0\]",
        ),
    ],
)
def test_bad_input_is_refused_by_name(x0_hat, x0, error, words):
    with pytest.raises(error, match=words):
        amplitude(x0_hat, x0)


def test_a_prediction_that_diverged_is_reported_not_hidden():
    assert amplitude(torch.full((1, 8), math.nan), torch.zeros(1, 8)).isnan().all()


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ({"norm": "orto"}, "did you mean 'ortho'"),
        ({"reduction": "avg"}, "mean, sum"),
        ({"coupling": "projektion"}, "did you mean 'projection'"),
        ({"ndim": 3}, "between 1 and the 1 spatial axes"),
    ],
)
def test_bad_options_are_refused(option, words):
    with pytest.raises(ValueError, match=words):
        amplitude_phase(torch.zeros(1, 8), torch.zeros(1, 8), **option)
