"""Properties of every loss for any shape from 1 to 70 an axis, dtype, stride and scale (hypothesis)."""

import pytest
import torch

pytest.importorskip("hypothesis")

from hypothesis import given, settings
from hypothesis import strategies as st

from signals import shapes, signal, strided
from specreg import losses

SETTINGS = settings(deadline=None, derandomize=True, max_examples=50)
STFT = {"fft_sizes": (8, 16), "hop_sizes": (2, 4), "win_lengths": (8, 16)}
LOSSES = {
    "amplitude": ("amplitude", {}),
    "sum of amplitudes": ("amplitude", {"reduction": "sum"}),
    "frequency": ("amplitude_phase", {"coupling": "frequency"}),
    "norm": ("amplitude_phase", {"coupling": "norm"}),
    "projection": ("amplitude_phase", {"coupling": "projection"}),
    "haar": ("haar", {}),
    "db2": ("db2", {}),
    "bior1.3, symmetric": ("bior1.3", {"mode": "symmetric"}),
    "amplitude+haar": ("amplitude+haar", {}),
    "mr_stft": ("mr_stft", STFT),
    "dct": ("dct:l1", {}),
    "dct, amplitude": ("dct:amplitude", {}),
    "windowed": ("fft(hann,detrend=plane):amplitude", {}),
    "swt": ("swt(db2):l1", {}),
    "log_power": ("fft:log_power", {}),
}
FOURIER = ("amplitude", "sum of amplitudes", "frequency", "norm", "projection")

names = st.sampled_from(sorted(LOSSES))
seeds = st.integers(0, 2**32)


def made(name, shape):
    """Return the loss over all axes, and a shape that it takes: sound is long and has one axis."""
    loss, options = LOSSES[name]
    if name == "mr_stft":
        return losses.build(loss, **options), (*shape[:2], 9 + shape[-1])
    return losses.build(loss, ndim=len(shape) - 2, **options), shape


def pairs(shape, seed, scale=1.0, dtype=torch.float64):
    return tuple(signal(shape, seed + k, scale, dtype) for k in range(2))


def relative(name):
    """Spectral convergence, log amplitudes and log powers do not grow with the signal."""
    return name in ("mr_stft", "log_power")


@SETTINGS
@given(name=names, shape=shapes(), seed=seeds, exponent=st.integers(-30, 30), way=st.integers(0, 2),
       dtype=st.sampled_from((torch.float16, torch.bfloat16, torch.float32, torch.float64)))  # fmt: skip
def test_values_and_gradients_are_finite_and_not_negative(name, shape, seed, exponent, way, dtype):
    exponent = max(-6, min(4, exponent)) if dtype == torch.float16 else exponent
    exponent = min(exponent, 16) if name == "mr_stft" and dtype != torch.float64 else exponent  # squares are summed
    loss, shape = made(name, shape)
    x0_hat, x0 = (strided(x, way) for x in pairs(shape, seed, 10.0**exponent, dtype))
    x0_hat.requires_grad_()
    value = loss(x0_hat, x0)
    assert value.shape == shape[:1]
    assert value.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert bool(value.isfinite().all())
    assert bool((value >= 0).all())
    (gradient,) = torch.autograd.grad(value.sum(), x0_hat)
    assert gradient.shape == x0_hat.shape
    assert bool(gradient.isfinite().all())


@SETTINGS
@given(name=names, shape=shapes(), seed=seeds, exponent=st.integers(-25, 25))
def test_equal_inputs_cost_nothing(name, shape, seed, exponent):
    loss, shape = made(name, shape)
    x = signal(shape, seed, 10.0**exponent, torch.float32)
    assert float(loss(x, x).max()) <= 1e-5 * float(x.abs().max()) * (x[0].numel() if "sum" in name else 1)


@SETTINGS
@given(name=names, shape=shapes(), seed=seeds)
def test_the_sign_does_not_matter(name, shape, seed):
    loss, shape = made(name, shape)
    x0_hat, x0 = pairs(shape, seed)
    torch.testing.assert_close(loss(-x0_hat, -x0), loss(x0_hat, x0), rtol=1e-8, atol=1e-12)


@SETTINGS
@given(name=names.filter(lambda name: not relative(name)), shape=shapes(), seed=seeds, exponent=st.integers(-60, 60))
def test_values_grow_with_the_scale(name, shape, seed, exponent):
    loss, shape = made(name, shape)
    scale = 2.0**exponent
    x0_hat, x0 = pairs(shape, seed)
    torch.testing.assert_close(loss(scale * x0_hat, scale * x0), scale * loss(x0_hat, x0), rtol=1e-8, atol=0)


@SETTINGS
@given(name=st.sampled_from(FOURIER), shape=shapes(), seed=seeds, data=st.data())
def test_fourier_losses_do_not_see_shifts_of_both(name, shape, seed, data):
    loss, shape = made(name, shape)
    axes = tuple(range(2, len(shape)))
    by = tuple(data.draw(st.integers(-100, 100)) for _ in axes)
    x0_hat, x0 = pairs(shape, seed)
    value = loss(x0_hat, x0)
    torch.testing.assert_close(loss(x0_hat.roll(by, axes), x0.roll(by, axes)), value, rtol=1e-7, atol=1e-10)
    if name == "amplitude":  # nor of one alone
        torch.testing.assert_close(loss(x0_hat.roll(by, axes), x0), value, rtol=1e-7, atol=1e-10)


@SETTINGS
@given(name=names, shape=shapes(batch=4), seed=seeds, way=st.integers(0, 2), data=st.data())
def test_samples_are_alone_and_channels_alike(name, shape, seed, way, data):
    """A batch in another order gives the values in that order; channels in another order give the same ones."""
    loss, shape = made(name, shape)
    x0_hat, x0 = (strided(x, way) for x in pairs(shape, seed))
    value = loss(x0_hat, x0)
    order = data.draw(st.permutations(range(shape[0])))
    torch.testing.assert_close(loss(x0_hat[order], x0[order]), value[order], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(loss(x0_hat[:1], x0[:1]), value[:1], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(loss(x0_hat.flip(1), x0.flip(1)), value, rtol=1e-9, atol=1e-12)


@SETTINGS
@given(name=names.filter(lambda name: name != "mr_stft"), shape=shapes(), seed=seeds)
def test_axes_of_space_are_alike(name, shape, seed):
    loss, shape = made(name, shape)
    x0_hat, x0 = pairs(shape, seed)
    order = (0, 1, *range(2, len(shape))[::-1])
    torch.testing.assert_close(loss(x0_hat.permute(order), x0.permute(order)), loss(x0_hat, x0), rtol=1e-7, atol=1e-10)


@SETTINGS
@given(name=names, shape=shapes(), seed=seeds, dtype=st.sampled_from((torch.float16, torch.bfloat16)))
def test_half_precision_is_computed_in_float32(name, shape, seed, dtype):
    loss, shape = made(name, shape)
    x0_hat, x0 = pairs(shape, seed, dtype=dtype)
    torch.testing.assert_close(loss(x0_hat, x0), loss(x0_hat.float(), x0.float()), rtol=1e-6, atol=1e-7)


@SETTINGS
@given(
    name=names.filter(lambda name: name not in ("mr_stft", "norm", "frequency", "projection", "log_power")),
    shape=shapes(),
    seed=seeds,
)
def test_distances_obey_the_triangle(name, shape, seed):
    loss, shape = made(name, shape)
    a, b, c = (signal(shape, seed + k, 1.0, torch.float64) for k in range(3))
    assert bool((loss(a, c) <= (loss(a, b) + loss(b, c)) * (1 + 1e-9)).all())
    torch.testing.assert_close(loss(a, b), loss(b, a), rtol=1e-9, atol=1e-12)
