"""Properties of the transforms for any shape from 1 to 70 an axis, dtype, stride and scale (hypothesis)."""

import math

import pytest
import torch

pytest.importorskip("hypothesis")

from hypothesis import given, settings
from hypothesis import strategies as st

from signals import shapes, signal
from specreg.transforms.fourier import bin_weights, half_spectrum
from specreg.transforms.radial import band_index, band_sizes, power_spectrum
from specreg.transforms.wavelet import MODES, max_levels, wavedecn

SETTINGS = settings(deadline=None, derandomize=True, max_examples=60)
WAVELETS = ("haar", "db2", "db4", "sym5", "bior1.3", "coif1")
ORTHOGONAL = ("haar", "db2", "db4", "sym5", "coif1")

seeds = st.integers(0, 2**32)
factors = st.floats(-3, 3, allow_subnormal=False)  # what torch 2.4 compiled in this process flushes them
wavelets, modes = st.sampled_from(WAVELETS), st.sampled_from(MODES)


def coefficients(found):
    """All coefficients in one vector per sample."""
    parts = [found.approx, *(band for detail in found.details for band in detail.values())]
    return torch.cat([part.flatten(1) for part in parts], dim=1)


def energy(x):
    return x.double().square().flatten(1).sum(1)


def close(found, expected, x, tolerance=1e-5):
    """Equal up to rounding, which is relative to the largest value of the signal."""
    limit = tolerance * float(x.double().abs().max()) * math.sqrt(x[0].numel())
    torch.testing.assert_close(found.to(torch.complex128 if found.is_complex() else torch.float64),
                               expected.to(torch.complex128 if found.is_complex() else torch.float64),
                               rtol=0, atol=limit + 1e-44)  # fmt: skip


@SETTINGS
@given(shape=shapes(), seed=seeds, exponent=st.integers(-14, 14))
def test_the_spectrum_keeps_energy(shape, seed, exponent):
    x = signal(shape, seed, 10.0**exponent, torch.float32)
    power = half_spectrum(x, ndim=len(shape) - 2).abs().double().square() * bin_weights(shape[-1], dtype=torch.float64)
    torch.testing.assert_close(power.flatten(1).sum(1), energy(x), rtol=1e-4, atol=0)


@SETTINGS
@given(shape=shapes(), seed=seeds, exponent=st.integers(-30, 30), a=factors, b=factors)
def test_the_spectrum_is_linear(shape, seed, exponent, a, b):
    x, y = (signal(shape, seed + k, 10.0**exponent, torch.float64) for k in range(2))
    transform = lambda z: half_spectrum(z, ndim=len(shape) - 2)  # noqa: E731
    close(transform(a * x + b * y), a * transform(x) + b * transform(y), 6 * x.abs() + 6 * y.abs(), 1e-12)


@SETTINGS
@given(shape=shapes(), seed=seeds, data=st.data())
def test_amplitudes_do_not_see_circular_shifts(shape, seed, data):
    x = signal(shape, seed, 1.0, torch.float64)
    axes = tuple(range(2 - len(shape), 0))
    by = tuple(data.draw(st.integers(-100, 100)) for _ in axes)
    close(half_spectrum(x.roll(by, axes), ndim=len(axes)).abs(), half_spectrum(x, ndim=len(axes)).abs(), x, 1e-12)


@SETTINGS
@given(shape=shapes(), bands=st.integers(1, 90))
def test_bands_hold_every_coefficient_once(shape, bands):
    space = shape[2:]
    assert band_sizes(space, bands).sum() == math.prod(space)
    assert 0 <= band_index(space, bands).min() <= band_index(space, bands).max() < bands


@SETTINGS
@given(shape=shapes(), seed=seeds, exponent=st.integers(-14, 14), data=st.data())
def test_power_spectra_keep_energy_and_see_neither_shift_nor_sign(shape, seed, exponent, data):
    x = signal(shape, seed, 10.0**exponent, torch.float32)
    found = power_spectrum(x, layout=None, ndim=len(shape) - 2)
    total = (found.power.double() * found.size.double()).sum(1) * shape[1]
    torch.testing.assert_close(total, energy(x), rtol=1e-4, atol=0)
    axes = tuple(range(2 - len(shape), 0))
    moved = x.roll(tuple(data.draw(st.integers(-100, 100)) for _ in axes), axes)
    for other in (-x, moved):
        again = power_spectrum(other, ndim=len(shape) - 2).power
        torch.testing.assert_close(again, found.power, rtol=1e-3, atol=1e-5 * float(found.power.max()))
    torch.testing.assert_close(power_spectrum(2 * x, ndim=len(shape) - 2).power, 4 * found.power)


@SETTINGS
@given(shape=shapes(most=40), wavelet=wavelets, mode=modes, seed=seeds, exponent=st.integers(-30, 30),
       a=factors, b=factors)  # fmt: skip
def test_wavelets_are_linear(shape, wavelet, mode, seed, exponent, a, b):
    if mode == "reflect" and min(shape[2:]) == 1:
        return
    x, y = (signal(shape, seed + k, 10.0**exponent, torch.float64) for k in range(2))
    transform = lambda z: coefficients(wavedecn(z, wavelet, levels=1, mode=mode, ndim=len(shape) - 2))  # noqa: E731
    close(transform(a * x + b * y), a * transform(x) + b * transform(y), 9 * (x.abs() + y.abs()), 1e-12)


@SETTINGS
@given(ndim=st.integers(1, 3), halves=st.integers(1, 8), levels=st.integers(1, 3), data=st.data(),
       wavelet=st.sampled_from(ORTHOGONAL), seed=seeds, exponent=st.integers(-14, 14))  # fmt: skip
def test_orthogonal_wavelets_keep_energy(ndim, halves, levels, data, wavelet, seed, exponent):
    """With periodization, on sizes that every level halves."""
    levels = min(levels, 2 if ndim == 3 else 3)
    shape = (2, 1, *(2**levels * data.draw(st.integers(1, halves if ndim < 3 else 3)) for _ in range(ndim)))
    x = signal(shape, seed, 10.0**exponent, torch.float32)
    found = wavedecn(x, wavelet, levels=levels, mode="periodization", ndim=ndim)
    torch.testing.assert_close(energy(coefficients(found)), energy(x), rtol=1e-4, atol=0)


@SETTINGS
@given(shape=shapes(most=32), wavelet=wavelets, seed=seeds, data=st.data())
def test_wavelets_move_with_the_signal(shape, wavelet, seed, data):
    """Periodization: a circular shift by two along an axis of even size shifts the first level by one."""
    shape = (*shape[:2], *(size + size % 2 for size in shape[2:]))
    axis = data.draw(st.integers(2, len(shape) - 1))
    x = signal(shape, seed, 1.0, torch.float64)
    of = lambda z: wavedecn(z, wavelet, levels=1, ndim=len(shape) - 2)  # noqa: E731
    moved, still = of(x.roll(2, axis)), of(x)
    close(moved.approx, still.approx.roll(1, axis), x, 1e-10)
    for key, band in still.details[0].items():
        close(moved.details[0][key], band.roll(1, axis), x, 1e-10)


@SETTINGS
@given(shape=shapes(), wavelet=wavelets, seed=seeds, dtype=st.sampled_from((torch.float16, torch.float32)))
def test_wavelets_do_not_depend_on_strides(shape, wavelet, seed, dtype):
    x = signal(shape, seed, 1.0, dtype)
    other = torch.stack([x, x], dim=-1)[..., 0].transpose(0, 1).contiguous().transpose(0, 1)
    levels = min(2, max_levels(shape[2:], wavelet))
    first, second = (coefficients(wavedecn(z, wavelet, levels=levels, ndim=len(shape) - 2)) for z in (x, other))
    assert torch.equal(first, second)
