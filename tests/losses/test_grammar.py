"""TRANSFORM:COMPARISON: every combination beside an outside oracle or a closed form."""

import itertools
import math
import warnings

import numpy as np
import pytest
import pywt
import scipy.fft
import torch

from specreg import losses
from specreg.losses import band_comparisons, build
from specreg.losses.comparisons import AmplitudeAndPhase, AmplitudeL1, CoefficientL1
from specreg.losses.spectra import Fourier, ShortTime
from specreg.losses.subbands import Decimated

SPHERES = ("sht", "sht(legendre-gauss)", "sht(lobatto)")
TRANSFORMS = ("fft", "fft(hann,detrend=plane)", "dct", "patches(4)", "stft(8)", "dwt(db2)", "swt(haar)")
COMPARISONS = (
    "amplitude", "amplitude_phase", "amplitude_phase(projection)", "l1", "log_power", "log_power(by=coefficient)",
    "log_power(bands=4,over=batch)", "amse", "binned_power", "focal", "focal(alpha=0.5,log=true,over=batch)",
)  # fmt: skip
REAL = ("dct", "dwt(db2)", "swt(haar)")
COMBINATIONS = [
    f"{transform}:{comparison}"
    for transform, comparison in itertools.product(TRANSFORMS, COMPARISONS)
    if not (transform in REAL and "phase" in comparison)
]


def pair(*shape, seed=0, dtype=torch.float64):
    g = torch.Generator().manual_seed(seed)
    x0 = torch.randn(shape, generator=g, dtype=torch.float64)
    return (x0 + 0.5 * torch.randn(shape, generator=g, dtype=torch.float64)).to(dtype), x0.to(dtype)


def shape_for(name):
    return (2, 2, 16) if name.startswith("stft") else (2, 2, 8, 16)


def gradient_of(loss, x0_hat, x0):
    x = x0_hat.detach().clone().requires_grad_()
    value = loss(x, x0)
    return value.detach(), torch.autograd.grad(value.sum(), x)[0]


# --- the paper's losses are entries of the table -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("short", "options", "transform", "comparison"),
    [
        ("amplitude", {}, Fourier(), AmplitudeL1()),
        ("amplitude_phase", {"coupling": "frequency"}, Fourier(), AmplitudeAndPhase()),
        ("amplitude_phase", {"coupling": "projection"}, Fourier(), AmplitudeAndPhase("projection")),
        *(
            ("db2", {"levels": 2, "mode": mode}, Decimated("db2", 2, mode), CoefficientL1())
            for mode in ("periodization", "zero", "symmetric", "reflect")
        ),
    ],
)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_fast_losses_equal_their_transform_and_comparison(short, options, transform, comparison, reduction):
    for shape in ((3, 2, 14), (2, 3, 12, 15), (2, 1, 6, 8, 10)):
        x0_hat, x0 = pair(*shape)
        fast = build(short, reduction=reduction, **options)
        plain = losses.Compared(transform, comparison, reduction=reduction)
        value, gradient = gradient_of(fast, x0_hat, x0)
        found, slope = gradient_of(plain, x0_hat, x0)
        torch.testing.assert_close(found, value)
        torch.testing.assert_close(slope, gradient)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("fft:amplitude", losses.Amplitude),
        ("fft:amplitude_phase(norm)", losses.AmplitudePhase),
        ("dwt(bior1.3, levels=2):l1", losses.Wavelet),
        ("dwt:l1", losses.Wavelet),
        ("fft(hann):amplitude", losses.Compared),
    ],
)
def test_fast_implementations_are_taken_where_they_have_the_options(name, kind):
    assert type(build(name)) is kind
    assert type(build("fft:amplitude", weights=[1.0, 2.0])) is losses.Compared


# --- transforms beside libraries ---------------------------------------------------------------------------------


def test_dct_coefficients_are_scipys():
    x0_hat, x0 = pair(2, 3, 9, 14)
    for axes in (1, 2):
        expected = np.abs(scipy.fft.dctn((x0_hat - x0).numpy(), axes=tuple(range(-axes, 0)), norm="ortho"))
        found = build("dct:l1", ndim=axes)(x0_hat, x0)
        np.testing.assert_allclose(found, expected.reshape(2, -1).mean(1), rtol=1e-12)


@pytest.mark.parametrize("wavelet", ["haar", "db4", "bior1.3", "bior3.1", "sym5"])
def test_swt_bands_are_pywavelets(wavelet):
    from specreg.transforms.wavelet_bands import stationary

    _, x = pair(1, 1, 16, 24)
    found = stationary(x[0, 0], wavelet, levels=3, ndim=2)
    expected = pywt.swtn(x[0, 0].numpy(), wavelet, level=3)[::-1]
    for level, name in itertools.product((1, 2, 3), ("ad", "da", "dd")):
        np.testing.assert_allclose(found[f"{level}{name}"], expected[level - 1][name], atol=1e-12)
    np.testing.assert_allclose(found["3aa"], expected[2]["aa"], atol=1e-12)


@pytest.mark.parametrize(("wavelet", "levels"), [("haar", 2), ("db2", 1), ("bior1.3", 2)])
def test_the_stationary_loss_is_the_mean_of_the_decimated_over_all_shifts(wavelet, levels):
    x0_hat, x0 = pair(2, 2, 8, 8)
    shifts = list(itertools.product(range(2**levels), repeat=2))
    decimated = build(wavelet, levels=levels)
    mean = sum(decimated(x0_hat.roll(s, (2, 3)), x0.roll(s, (2, 3))) for s in shifts) / len(shifts)
    torch.testing.assert_close(build(f"swt({wavelet}, levels={levels}):l1")(x0_hat, x0), mean)


def test_patches_are_the_transform_of_each_patch():
    x0_hat, x0 = pair(2, 2, 12, 12)
    whole = build("fft:amplitude")
    for stride in (4, 2):
        starts = list(itertools.product(range(0, 9, stride), repeat=2))
        each = [whole(*(x[..., i : i + 4, j : j + 4] for x in (x0_hat, x0))) for i, j in starts]
        found = build(f"patches(4, stride={stride}):amplitude")(x0_hat, x0)
        torch.testing.assert_close(found, sum(each) / len(each))


def test_short_time_spectra_are_scipys():
    from scipy.signal import stft

    _, x = pair(1, 1, 100)
    (found,) = ShortTime((16,)).coefficients(x, 1)
    window = np.sin(np.pi * (np.arange(16) + 0.5) / 16) ** 2
    _, _, expected = stft(
        np.pad(x[0, 0].numpy(), 8, mode="reflect"), window=window, nperseg=16, noverlap=12, boundary=None, padded=False,
        scaling="psd", fs=1.0, return_onesided=True,
    )  # fmt: skip
    np.testing.assert_allclose(found[0, 0].abs().numpy().T, np.abs(expected), rtol=1e-10)


def test_windows_and_trends_leave_out_what_they_should():
    rows = torch.arange(8.0, dtype=torch.float64)[:, None] * 0.7
    plane = (3.0 + rows - 0.2 * torch.arange(16.0, dtype=torch.float64)).expand(1, 1, 8, 16)
    _, x0 = pair(1, 1, 8, 16)
    assert float(build("fft(detrend=plane):amplitude")(x0 + plane, x0)) < 1e-12
    assert float(build("fft(detrend=mean):amplitude")(x0 + 5, x0)) < 1e-12
    assert float(build("fft(hann):amplitude")(x0 + 5, x0)) > 0.1
    noise = torch.randn(400, 1, 8, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    windowed = build("fft(hann):l1")(noise, 0 * noise).mean()
    torch.testing.assert_close(windowed, build("fft:l1")(noise, 0 * noise).mean(), rtol=0.05, atol=0)


# --- the sphere --------------------------------------------------------------------------------------------------


def on_sphere(nlat, nlon, degree, order, grid="equiangular"):
    """Re Y_lm on the grid, of unit mean square over the sphere."""
    from scipy.special import sph_harm_y
    from torch_harmonics.quadrature import precompute_latitudes

    theta = precompute_latitudes(nlat, grid=grid)[0].numpy()
    phi = 2 * np.pi * np.arange(nlon) / nlon
    y = sph_harm_y(degree, order, theta[:, None], phi[None]).real
    return torch.from_numpy(y * math.sqrt(4 * math.pi * (2 if order else 1)))[None, None]


@pytest.mark.parametrize("grid", ["equiangular", "legendre-gauss", "lobatto"])
@pytest.mark.parametrize(("degree", "order"), [(0, 0), (1, 0), (3, 2), (7, 7)])
def test_a_spherical_harmonic_is_one_coefficient(grid, degree, order):
    pytest.importorskip("torch_harmonics")
    from specreg.transforms.sphere import coefficient_count, degrees, harmonics

    found = harmonics(on_sphere(17, 32, degree, order, grid), grid=grid)[0, 0]
    number, share = degrees(17, 32, grid)
    by_degree = torch.zeros(40, dtype=torch.float64).index_add_(0, number, share * found.abs().square())
    assert float(by_degree[degree]) == pytest.approx(coefficient_count(17, 32, grid))
    assert float(by_degree.sum()) == pytest.approx(float(by_degree[degree]))


def test_losses_on_the_sphere_do_not_see_rotations_about_the_axis_but_see_degrees():
    pytest.importorskip("torch_harmonics")
    x0 = on_sphere(17, 32, 5, 3) + 0.1 * on_sphere(17, 32, 8, 1)
    weak = on_sphere(17, 32, 5, 3) + 0.05 * on_sphere(17, 32, 8, 1)
    loss = build("sht:log_power", tolerance=1e-12)
    assert float(loss(x0.roll(5, -1), x0)) < 1e-8
    assert float(loss(weak, x0)) * 8 == pytest.approx(math.log(4), rel=1e-6)  # one of the degrees 1 … 8
    twice = build("sht:amse")(2 * x0, x0)  # amplitudes alone, so it is the squared error
    assert float(twice) == pytest.approx(1.01, rel=1e-6)


def test_areas_count_by_their_size_on_the_sphere():
    """A difference in the rows at the poles weighs little, and a large lmax sees finer rows."""
    pytest.importorskip("torch_harmonics")
    _, x0 = pair(1, 1, 17, 32)
    near_pole, equator = x0.clone(), x0.clone()
    near_pole[:, :, 0] += 1
    equator[:, :, 8] += 1
    loss = build("sht:l1")
    assert float(loss(near_pole, x0)) < 0.1 * float(loss(equator, x0))
    with pytest.raises(ValueError, match="lmax must be from 1 to 17"):
        build("sht(lmax=18):l1")(x0, x0)
    assert float(build("sht(lmax=17):amplitude")(x0, 0 * x0)) != float(build("sht:amplitude")(x0, 0 * x0))


# --- comparisons beside libraries, formulas, closed forms --------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("fft:focal", {}),
        ("fft:focal(alpha=0.5,log=true)", {"alpha": 0.5, "log_matrix": True}),
        ("fft:focal(over=batch)", {"batch_matrix": True}),
        ("patches(4):focal(2.0)", {"alpha": 2.0, "patch_factor": 3}),
    ],
)
def test_focal_is_focal_frequency_loss(name, options):
    package = pytest.importorskip("focal_frequency_loss")
    x0_hat, x0 = pair(2, 3, 12, 12)
    value, gradient = gradient_of(lambda x, y: build(name)(x, y).mean(), x0_hat, x0)
    expected, slope = gradient_of(package.FocalFrequencyLoss(**options), x0_hat, x0)
    torch.testing.assert_close(value, expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(gradient, slope, rtol=1e-6, atol=1e-9)


def shells(n):
    """Number of the shell of each coefficient of a full spectrum of n × n; the corners are one."""
    k = np.fft.fftfreq(n) * n
    return np.minimum(np.round(np.hypot(k[:, None], k[None])).astype(int), n // 2 + 1)


def numpy_powers(x0_hat, x0):
    spectra = [np.fft.fft2(x.numpy(), norm="ortho") for x in (x0_hat, x0)]
    number = shells(x0.shape[-1])
    for shell in range(number.max() + 1):
        yield [F[..., number == shell] for F in spectra]


def test_amse_is_its_formula_and_parts_add_up():
    x0_hat, x0 = pair(2, 3, 12, 12)
    amplitude = decorrelation = 0.0
    for F_hat, F in numpy_powers(x0_hat, x0):
        P_hat, P = ((np.abs(f) ** 2).sum(-1) for f in (F_hat, F))
        coherence = (F_hat * F.conj()).real.sum(-1) / np.sqrt(P_hat * P)
        amplitude = amplitude + (np.sqrt(P_hat) - np.sqrt(P)) ** 2
        decorrelation = decorrelation + 2 * np.maximum(P_hat, P) * (1 - coherence)
    loss = build("fft:amse")
    np.testing.assert_allclose(loss(x0_hat, x0), (amplitude + decorrelation).mean(1) / 144, rtol=1e-10)
    bands = loss.by_band(x0_hat, x0)
    np.testing.assert_allclose(bands["amplitude"], amplitude.mean(1) / 144, rtol=1e-10)
    np.testing.assert_allclose(bands["decorrelation"], decorrelation.mean(1) / 144, rtol=1e-10)


def test_amse_is_the_squared_error_where_powers_agree_and_dearer_elsewhere():
    x0_hat, x0 = pair(2, 1, 16, 16)
    shifted = x0.roll(3, -1)
    torch.testing.assert_close(build("fft:amse")(shifted, x0), (shifted - x0).square().mean((1, 2, 3)))
    for faint in (0.5 * x0_hat, 0.1 * x0_hat):
        assert bool((build("fft:amse")(faint, x0) > (faint - x0).square().mean((1, 2, 3))).all())


def test_log_power_and_binned_power_of_a_scaled_sample():
    _, x0 = pair(2, 1, 16, 16)
    for name in ("fft:log_power", "dct:log_power", "fft:log_power(by=coefficient)", "patches(8):log_power(bands=3)"):
        found = build(name, tolerance=1e-14)(0.5 * x0, x0)
        torch.testing.assert_close(found, torch.full_like(found, math.log(4)), rtol=1e-3, atol=0)
    found = build("fft:binned_power", tolerance=1e-14)(0.5 * x0, x0)
    torch.testing.assert_close(found, torch.full_like(found, 0.75**2), rtol=1e-3, atol=0)


def test_log_power_by_band_is_its_formula():
    x0_hat, x0 = pair(2, 2, 10, 10)
    errors, ratios, pooled = [], [], []
    for F_hat, F in list(numpy_powers(x0_hat, x0))[1:]:  # without the mean
        P_hat, P = ((np.abs(f) ** 2).mean(-1) + 1e-6 for f in (F_hat, F))
        errors.append(np.abs(np.log(P_hat / P)))
        ratios.append((1 - P_hat / P) ** 2)
        pooled.append(np.abs(np.log(P_hat.mean(0) / P.mean(0))))
    np.testing.assert_allclose(build("fft:log_power")(x0_hat, x0), np.mean(errors, (0, 2)), rtol=1e-9)
    np.testing.assert_allclose(build("fft:binned_power")(x0_hat, x0), np.mean(ratios, (0, 2)), rtol=1e-9)
    over_batch = build("fft:log_power", over="batch")(x0_hat, x0)
    np.testing.assert_allclose(over_batch, [np.mean(pooled)] * 2, rtol=1e-9)


def test_what_lies_below_the_tolerance_does_not_count():
    _, x0 = pair(2, 1, 16, 16)
    loud, silent = build("fft:log_power", tolerance=1e-12), build("fft:log_power", tolerance=1e-4)
    tiny = 1e-4 * x0
    assert float(loud(3 * tiny, tiny).min()) > 2
    assert float(silent(3 * tiny, tiny).max()) < 1e-2
    x = torch.zeros_like(x0).requires_grad_()
    (gradient,) = torch.autograd.grad(silent(x, x0).sum(), x)
    assert float(gradient.abs().max()) == 0


# --- what they promise together ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", COMBINATIONS)
def test_gradients_are_those_of_finite_differences(name, monkeypatch):
    # amse holds gradients where a band is almost silent; a patch of this batch has such a band
    monkeypatch.setattr(band_comparisons, "PHASE_GRADIENT_LIMIT", 1e6)
    loss = build(name, layout=None)
    x0_hat, x0 = pair(*shape_for(name), seed=3)
    if "focal" in name:  # its weights have no gradient
        fixed, f = gradient_of(loss, x0_hat, x0)[1], x0_hat - x0
        assert bool(((fixed * f).sum() > 0) & fixed.isfinite().all())
        return
    fast = "amse" not in name  # a random direction may miss a single band
    assert torch.autograd.gradcheck(lambda x: loss(x, x0), x0_hat.requires_grad_(), fast_mode=fast, atol=1e-4)


@pytest.mark.parametrize("name", COMBINATIONS)
def test_values_and_gradients_are_finite_whatever_the_input(name):
    shape, g = shape_for(name), torch.Generator().manual_seed(0)
    squares = any(part in name for part in ("focal", "amse", "binned"))
    sizes = (0.0, 1e-30, 1e-18, 1e-6, 1.0, 1e5, *(() if squares else (1e16, 1e30)))
    for size_hat, size in itertools.product(sizes, sizes):
        if "binned" in name and size_hat > 1e6 * max(size, 1e-3):
            continue  # the square of their ratio overflows
        x0_hat, x0 = (s * torch.randn(shape, generator=g) for s in (size_hat, size))
        value, gradient = gradient_of(build(name), x0_hat, x0)
        assert value.shape == (2,)
        assert bool(value.isfinite().all() & (value >= 0).all() & gradient.isfinite().all()), (size_hat, size)


@pytest.mark.parametrize("name", COMBINATIONS)
def test_equal_samples_cost_nothing_and_dtypes_are_kept(name):
    _, x0 = pair(*shape_for(name))
    assert float(build(name)(x0, x0).abs().max()) < 1e-12
    for dtype, computed in ((torch.bfloat16, torch.float32), (torch.float64, torch.float64)):
        x = x0.to(dtype).requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            value = build(name)(x, 1.5 * x0.to(dtype))
        assert value.dtype == computed
        assert torch.autograd.grad(value.sum(), x)[0].dtype == dtype


@pytest.mark.parametrize("name", [name for name in COMBINATIONS if "over=batch" not in name])
def test_samples_are_independent_and_frequency_weights_multiply(name):
    x0_hat, x0 = pair(*shape_for(name))
    loss = build(name)
    both = loss(x0_hat, x0)
    torch.testing.assert_close(torch.cat([loss(x0_hat[i : i + 1], x0[i : i + 1]) for i in range(2)]), both)
    factors = torch.tensor([[2.0], [0.5]], dtype=torch.float64)
    weighted = loss(x0_hat, x0, lambda frequency: factors.expand(2, len(frequency)))
    torch.testing.assert_close(weighted, both * factors[:, 0])


@pytest.mark.parametrize("name", ["fft(hann):amplitude", "dct:log_power", "patches(4):amse", "swt(db2):l1",
                                  "dwt(db2):focal", "fft:binned_power", "fft(tukey):amplitude_phase"])  # fmt: skip
def test_a_compiled_graph_is_whole_and_equal(name):
    torch.compiler.reset()
    x0_hat, x0 = pair(*shape_for(name))
    loss = build(name)
    compiled = torch.compile(lambda x, y: 2.0 * loss(1.0 * x, y), fullgraph=True, backend="aot_eager")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = gradient_of(compiled, x0_hat, x0)
    for a, b in zip(found, gradient_of(lambda x, y: 2.0 * loss(x, y), x0_hat, x0), strict=True):
        torch.testing.assert_close(a, b)


def test_the_sphere_compiles():
    pytest.importorskip("torch_harmonics")
    torch.compiler.reset()
    x0_hat, x0 = pair(2, 1, 9, 16)
    loss = build("sht:amse")
    compiled = torch.compile(lambda x, y: loss(x, y), backend="aot_eager")
    for a, b in zip(gradient_of(compiled, x0_hat, x0), gradient_of(loss, x0_hat, x0), strict=True):
        torch.testing.assert_close(a, b)


def test_layouts_volumes_and_frames():
    x0_hat, x0 = pair(2, 3, 4, 8, 8)
    frames = build("dct:log_power", ndim=2)
    each = torch.stack([frames(x0_hat[:, :, k], x0[:, :, k]) for k in range(4)]).mean(0)
    torch.testing.assert_close(frames(x0_hat, x0), each)
    last = [x.movedim(1, -1) for x in (x0_hat, x0)]
    torch.testing.assert_close(build("dct:amse", layout="bdhwc")(*last), build("dct:amse")(x0_hat, x0))
    assert build("swt(haar):l1")(x0_hat, x0).shape == (2,)


def test_weights_of_channels_levels_areas_and_wavenumbers():
    x0_hat, x0 = pair(2, 3, 4, 8, 8)
    single = build("fft:l1", ndim=2)
    by_row = torch.stack([
        single(x0_hat[:, c : c + 1, d : d + 1], x0[:, c : c + 1, d : d + 1]) for c in range(3) for d in range(4)
    ])  # fmt: skip
    channels = [1.0, 0.0, 3.0]
    expected = (by_row.view(3, 4, 2) * torch.tensor(channels, dtype=torch.float64)[:, None, None]).mean((0, 1))
    torch.testing.assert_close(build("fft:l1", ndim=2, weights=channels)(x0_hat, x0), expected)
    levels = [[1.0, 0.0, 0.0, 2.0]]
    expected = (by_row.view(3, 4, 2) * torch.tensor(levels, dtype=torch.float64)[:, :, None]).mean((0, 1))
    torch.testing.assert_close(build("fft:l1", ndim=2, weights=levels)(x0_hat, x0), expected)
    low, high = (build("fft:l1", frequency_weights=w)(x0_hat, x0) for w in ([1.0, 0.0], [0.0, 1.0]))
    torch.testing.assert_close(low + high, build("fft:l1")(x0_hat, x0))
    with pytest.raises(ValueError, match=r"weights must broadcast to the axes .* \[3, 4\]; got \[5\]"):
        build("fft:l1", ndim=2, weights=[1.0] * 5)(x0_hat, x0)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("fft:l2", "by Parseval a squared error .* take l1, or focal"),
        ("dct:mse", "by Parseval"),
        ("ftt:l1", "transform must be one of .*did you mean 'fft'"),
        ("fft:amplitud", "comparison must be one of .*did you mean 'amplitude'"),
        ("dct:amplitude_phase", "needs complex coefficients, and dct has real ones"),
        ("patches(x=3):l1", "'patches' has no option 'x'; it has size, stride, window"),
        ("patches(4, stride=8):l1", "stride of patches must be at most their size, 4; got 8"),
        ("patches(0):l1", "size of patches must be a whole number of at least 1; got 0"),
        ("stft(2):l1", "sizes of stft must be whole numbers of at least 4"),
        ("fft(kaiser):l1", "window must be one of hann, tukey, none; got 'kaiser'"),
        ("swt(db4,haar):l1", "takes one option without a name"),
        ("swt(dbb4):l1", "wavelet must be a discrete wavelet"),
        ("fft:amplitude(", "expected a comparison such as"),
        ("fft:l1:l1", "a loss is written TRANSFORM:COMPARISON"),
        ("fft:log_power(tolerance=0)", "tolerance must be a positive finite power; got 0"),
        ("fft:log_power(by=coefficient,bands=3)", "bands and over='batch' of log_power are of bands"),
        ("fft:amse(bands=0)", "bands must be a whole number of at least 1, or None; got 0"),
        ("fft:focal(alpha=-1)", "alpha of focal must be a positive finite number; got -1"),
        ("sht(grid=gauss):l1", "grid must be one of"),
    ],
)
def test_what_is_not_in_the_grammar_is_refused_in_a_sentence(name, message):
    with pytest.raises(ValueError, match=message):
        build(name)


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        (
            "patches(8):l1",
            (1, 1, 12, 16),
            r"patches of 8 at every 8 samples must cover the samples to their ends; got 12",
        ),
        ("stft(64):l1", (1, 1, 32), "stft of 64 needs more than half as many samples; got 32"),
        ("stft(8):l1", (1, 1, 32, 32), "stft transforms 1 axes; got samples of 32×32"),
        ("sht:l1", (1, 1, 32), "sht transforms 2 axes"),
        ("dwt(levels=6):amse", (1, 1, 16, 16), "levels must be at most 4"),
    ],
)
def test_samples_that_do_not_fit_are_refused(name, shape, message):
    x = torch.zeros(shape)
    with pytest.raises(ValueError, match=message):
        build(name)(x, x)


def test_options_go_where_they_belong_and_sums_mix_all_kinds():
    loss = build("patches:log_power", size=4, tolerance=1e-3, reduction="sum")
    assert (loss.transform.size, loss.comparison.tolerance, loss.reduction) == (4, 1e-3, "sum")
    with pytest.raises(ValueError, match=r"no option 'toleranc' ?.*did you mean 'tolerance'"):
        build("fft:log_power", toleranc=1.0)
    x0_hat, x0 = pair(2, 1, 8, 8)
    total = build("amplitude+swt(db2, levels=1):l1+fft:amse")(x0_hat, x0)
    parts = [build(name)(x0_hat, x0) for name in ("amplitude", "swt(db2, levels=1):l1", "fft:amse")]
    torch.testing.assert_close(total, sum(parts))
    assert "Stationary(wavelet='db2', levels=1)" in repr(build("swt(db2, levels=1):l1"))


@pytest.mark.parametrize("scale", [0.5, 0.05, 1e-3])
def test_amse_of_a_band_that_is_only_too_weak_pulls_as_its_amplitude_does(scale):
    """All phases are right, so coherence is 1 and stays so along F̂: the derivative in scale is that of (â − a)²."""
    _, x0 = pair(1, 1, 8, 8)
    loss = build("fft:amse")
    _, gradient = gradient_of(loss, scale * x0, x0)
    expected = 2 * (scale - 1) * x0.square().mean()
    torch.testing.assert_close((gradient * x0).sum(), expected, rtol=1e-6, atol=0)


def test_none_is_a_window_a_trend_and_no_number():
    """What the documentation lists as "none" can be written, with a name or without."""
    x0_hat, x0 = pair(2, 1, 8, 8)
    plain = build("fft:l1")(x0_hat, x0)
    for name in ("fft(none):l1", "fft(window=none):l1", "fft(detrend=none, window=none):l1"):
        torch.testing.assert_close(build(name)(x0_hat, x0), plain)
    assert build("patches(4, stride=none, window=none):l1").transform == build("patches(4):l1").transform
    assert build("fft:log_power(bands=none)").comparison.bands is None


def test_non_finite_data_are_named():
    x = torch.zeros(2, 1, 8, 8)
    bad = x.clone()
    bad[1, 0, 3, 3] = float("nan")
    with pytest.raises(ValueError, match=r"x0 must be finite; it holds NaN or infinity in sample\(s\) \[1\]"):
        build("dct:l1")(x, bad)
