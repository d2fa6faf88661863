"""The map of denoising errors against quantities known in closed form."""

import pytest
import torch

from specreg import SpectralRegularizer, objectives
from specreg.denoising import denoising_map
from specreg.diffusion import NoiseLevel, alphas_cumprod
from specreg.transforms import fourier, radial

SCHEDULE = alphas_cumprod("cosine", 100).float()


def images(count=32, side=16):
    return torch.randn(count, 1, side, side, generator=torch.Generator().manual_seed(1))


def test_a_network_that_predicts_nothing_has_error_and_energy_in_closed_form():
    """x0_hat = (x_t − σ·0)/α = x0 + (σ/α)·ε: the error is white with power σ²/α² at every level and band."""
    objective = objectives.ddpm(SCHEDULE, "epsilon")
    found = denoising_map(objective, lambda x_t, t: torch.zeros_like(x_t), images(256), levels=5, bands=4)
    level = NoiseLevel.ddpm(SCHEDULE[found.timesteps])
    assert found.timesteps.tolist() == [10, 30, 50, 70, 90]
    torch.testing.assert_close(found.log_snr.float(), level.log_snr)
    expected = (1 / level.snr).double()[:, None].expand(5, 4)
    torch.testing.assert_close(found.error / expected, torch.ones(5, 4, dtype=torch.float64), rtol=0.05, atol=0)
    assert found.pull is None
    assert found.error_db() == pytest.approx(float(-10 * level.log_snr.mean() / torch.log(torch.tensor(10.0))), abs=0.2)


def test_a_blurring_network_loses_what_it_removes():
    x0 = images()
    spectrum = fourier.half_spectrum(x0, ndim=2)
    low = radial.frequency_grid((16, 16)) < 0.25
    blurred = torch.fft.irfftn(spectrum * low, s=(16, 16), dim=(-2, -1), norm="ortho")
    found = denoising_map(objectives.ddpm(SCHEDULE, "x0"), lambda x_t, t: blurred.clone(), x0, levels=3, bands=4)
    record = found.record()
    assert record["edges"] == [0, 0.125, 0.25, 0.375, 0.5]
    for row in record["energy_db"]:
        assert row[:2] == pytest.approx([0, 0], abs=1e-4)
        assert max(row[2:]) < -100
    assert max(row[0] for row in record["error_db"]) < -100
    for row in record["error_db"]:
        assert row[2:] == pytest.approx([0, 0], abs=1e-4)
    assert found.error_db(low=0.25) == pytest.approx(0, abs=1e-4)
    share = (x0 - blurred).square().sum() / x0.square().sum()
    assert found.error_db() == pytest.approx(float(10 * share.log10()), abs=1e-4)


@pytest.mark.parametrize("recompute", [False, True])
def test_pull_on_an_estimate_of_two_updates_runs_through_the_second_call(recompute):
    x0 = images(4)
    regularizer = SpectralRegularizer("haar", weight=0.3, noise_weight="constant")
    objective = objectives.ddpm(SCHEDULE, "v", regularizer, updates=2, recompute=recompute)
    found = denoising_map(objective, lambda x_t, t: torch.tanh(x_t), x0, levels=1, bands=1, seed=7)

    streams = [torch.Generator().manual_seed(7 + i) for i in range(len(x0))]
    noise = torch.stack([torch.randn(x0.shape[1:], generator=stream) for stream in streams])
    outputs = []

    def network(x_t, t):
        outputs.append(torch.tanh(x_t.requires_grad_()))
        return outputs[-1]

    t = torch.full((len(x0),), int(found.timesteps))
    terms = objectives.ddpm(SCHEDULE, "v", regularizer, updates=2)(network, x0, t, noise)
    (base,) = torch.autograd.grad(terms.base.mean(), outputs[0], retain_graph=True)
    (spectral,) = torch.autograd.grad(terms.spectral.loss, outputs[0])
    assert found.pull.item() == pytest.approx(float(spectral.square().mean() / base.square().mean()), rel=1e-5)


@pytest.mark.parametrize("prediction", ["epsilon", "x0", "v"])
def test_pull_is_the_gradient_ratio_in_each_band(prediction):
    x0, g = images(4), torch.Generator().manual_seed(2)
    answers = torch.randn(3, *x0.shape, generator=g)
    regularizer = SpectralRegularizer("haar", weight=0.3, noise_weight="snr")
    objective = objectives.ddpm(SCHEDULE, prediction, regularizer)
    calls = iter(range(3))
    found = denoising_map(objective, lambda x_t, t: answers[next(calls)], x0, levels=3, bands=1, seed=7)
    streams = [torch.Generator().manual_seed(7 + i) for i in range(len(x0))]
    noise = torch.stack([torch.randn(3, *x0.shape[1:], generator=stream) for stream in streams])
    for row, timestep in enumerate(found.timesteps.tolist()):
        output = answers[row].clone().requires_grad_()
        terms = objective(lambda x_t, t, output=output: output, x0, torch.full((4,), timestep), noise[:, row])
        base, spectral = (
            torch.autograd.grad(x, output, retain_graph=True)[0] for x in (terms.base.mean(), terms.spectral.loss)
        )
        assert float(found.pull[row, 0].sqrt()) == pytest.approx(float(spectral.norm() / base.norm()), rel=1e-3)


def test_the_noise_of_an_image_does_not_depend_on_the_others():
    objective = objectives.ddpm(SCHEDULE, "x0")

    def network(x_t, t):
        return 0.5 * x_t

    whole, half = (denoising_map(objective, network, images()[:n], levels=2, bands=2) for n in (2, 1))
    other = denoising_map(objective, network, images()[1:2], levels=2, bands=2, seed=1)
    torch.testing.assert_close(whole.error, (half.error + other.error) / 2)


def test_the_error_is_the_energy_ratio_of_parseval():
    """Data and errors with most of their energy in few coefficients: bands count by their size."""
    g = torch.Generator().manual_seed(0)
    slope = radial.frequency_grid((16, 16)).clamp_min(1 / 16) ** -1.5
    white = torch.randn(2, 8, 1, 16, 16, generator=g)
    x0, off = (
        torch.fft.irfft2(torch.fft.rfft2(w) * s).float() for w, s in zip(white, (slope, slope.sqrt()), strict=True)
    )
    found = denoising_map(objectives.ddpm(SCHEDULE, "x0"), lambda x_t, t: x0 + 0.3 * off, x0, levels=2)
    expected = 10 * float(((0.3 * off).double().square().sum() / x0.double().square().sum()).log10())
    assert found.error_db() == pytest.approx(expected, abs=1e-4)


def test_a_regularizer_in_training_stays_in_training():
    regularizer = SpectralRegularizer("haar", weight=0.3)
    denoising_map(objectives.ddpm(SCHEDULE, "x0", regularizer), lambda x_t, t: 0.5 * x_t, images(2), levels=1)
    assert regularizer.training


def test_a_diverged_network_has_no_score():
    from specreg.denoising import _db

    assert _db(torch.tensor([float("nan")])).isnan().all()
    assert _db(torch.tensor([0.0, float("inf")])).tolist() == [-200.0, 200.0]


@pytest.mark.parametrize("scale", [1.0, 0.5, 1.25])
def test_the_posterior_mean_of_gaussian_data_is_calibrated_and_its_multiples_are_not(scale):
    """Data of a known spectrum P, the Wiener filter c·α·P/(α²P + σ²): the gain is 1/c at every level and band."""
    side, g = 16, torch.Generator().manual_seed(0)
    power = radial.frequency_grid((side, side)).clamp_min(1 / side) ** -2 / 64
    white = torch.fft.rfft2(torch.randn(400, 1, side, side, generator=g))
    x0 = torch.fft.irfft2(white * power.sqrt(), s=(side, side)).float()
    objective = objectives.ddpm(SCHEDULE, "x0")

    def wiener(x_t, t):
        level = objective.level(t[:1])
        shrink = level.alpha * power / (level.alpha**2 * power + level.sigma**2)
        return scale * torch.fft.irfft2(torch.fft.rfft2(x_t) * shrink, s=(side, side)).float()

    found = denoising_map(objective, wiener, x0, levels=4, bands=4)
    expected = torch.full((4, 4), 1 / scale, dtype=torch.float64)
    torch.testing.assert_close(found.gain[:3], expected[:3], rtol=0.06, atol=0)
    torch.testing.assert_close(
        found.gain[3], expected[3], rtol=0.25, atol=0
    )  # almost only noise: few effective samples
    assert found.record()["gain"] == found.gain.tolist()
    nothing = denoising_map(objective, lambda x_t, t: torch.zeros_like(x_t), x0[:4], levels=1, bands=2)
    assert nothing.record()["gain"] == [[None, None]]
