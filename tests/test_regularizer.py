import math

import pytest
import torch

import specreg
from specreg import noise_weights

X0_HAT, X0 = torch.randn(2, 4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
LEVEL = specreg.NoiseLevel.edm(torch.tensor([0.1, 0.5, 2.0, 10.0]))


def test_term_is_lambda_times_noise_weight_times_loss():
    regularizer = specreg.SpectralRegularizer("amplitude", weight=0.3, noise_weight=lambda level: level.sigma**2)
    term = regularizer(X0_HAT, X0, LEVEL)
    expected = specreg.losses.amplitude(X0_HAT, X0)
    torch.testing.assert_close(term.per_sample, expected)
    torch.testing.assert_close(term.weight, 0.3 * LEVEL.sigma**2)
    torch.testing.assert_close(term.loss, (0.3 * LEVEL.sigma**2 * expected).mean())


def test_edm_weight_is_the_papers():
    sigma, sigma_data = LEVEL.sigma, 0.5
    expected = (sigma**2 + sigma_data**2) / (sigma * sigma_data) ** 2
    torch.testing.assert_close(noise_weights.EDMWeight()(LEVEL), expected)
    paper = specreg.SpectralRegularizer("amplitude", weight="edm")(X0_HAT, X0, LEVEL)
    torch.testing.assert_close(paper.weight, expected)


@pytest.mark.parametrize("alpha_bar", [0.9999, 0.5, 0.001])
def test_noise_weights_mean_the_same_on_every_schedule(alpha_bar):
    """The same SNR written as DDPM, EDM and flow levels has the same weight."""
    alpha_bar = torch.tensor([alpha_bar], dtype=torch.float64)
    sigma = ((1 - alpha_bar) / alpha_bar).sqrt()
    levels = [
        specreg.NoiseLevel.ddpm(alpha_bar),
        specreg.NoiseLevel.edm(sigma),
        specreg.NoiseLevel.flow(sigma / (1 + sigma)),
    ]
    for name in noise_weights.NOISE_WEIGHTS:
        weights = [noise_weights.build(name)(level).item() for level in levels]
        assert weights == pytest.approx([weights[0]] * 3, rel=1e-9)


def test_snr_weight_and_gates_have_their_closed_forms():
    snr = 1 / LEVEL.sigma**2
    torch.testing.assert_close(noise_weights.SNR(power=1.0, clip=5.0)(LEVEL), snr.clamp(max=5))
    torch.testing.assert_close(noise_weights.SNR(power=0.5, clip=1.0)(LEVEL), snr.clamp(max=1).sqrt())
    assert noise_weights.HardGate(low=0.0)(LEVEL).tolist() == [1, 1, 0, 0]
    assert noise_weights.HardGate(low=-2.0, high=2.0)(LEVEL).tolist() == [0, 1, 1, 0]
    gate = noise_weights.SmoothGate(center=math.log(4), width=0.5)(LEVEL)
    assert gate[1].item() == pytest.approx(0.5)  # log SNR of sigma 0.5 is log 4
    assert gate[0] > 0.99
    assert gate[3] < 1e-3


def test_lambda_zero_leaves_the_graph_alone_and_still_reports_the_loss():
    x0_hat = X0_HAT.clone().requires_grad_()
    term = specreg.SpectralRegularizer("amplitude_phase", weight=0.0)(x0_hat, X0, LEVEL)
    assert not term.loss.requires_grad
    assert term.loss.item() == 0.0
    torch.testing.assert_close(term.per_sample, specreg.losses.amplitude_phase(X0_HAT, X0))
    clean = specreg.NoiseLevel.edm(torch.tensor(0.0))  # where λ_EDM is infinite
    assert (specreg.SpectralRegularizer("haar", weight=0.0, noise_weight="edm")(X0_HAT, X0, clean).weight == 0).all()


def test_one_level_for_the_whole_batch():
    regularizer = specreg.SpectralRegularizer("haar", weight=2.0, noise_weight="snr")
    one = regularizer(X0_HAT, X0, specreg.NoiseLevel.edm(torch.tensor(3.0)))
    four = regularizer(X0_HAT, X0, specreg.NoiseLevel.edm(torch.full((4,), 3.0)))
    torch.testing.assert_close(one.weight, four.weight)
    torch.testing.assert_close(one.loss, four.loss)


def test_bands_come_on_request():
    assert specreg.SpectralRegularizer("haar")(X0_HAT, X0, LEVEL).by_band == {}
    bands = specreg.SpectralRegularizer("haar", by_band=True)(X0_HAT, X0, LEVEL).by_band
    assert all(value.shape == (4,) for value in bands.values())
    with pytest.raises(TypeError, match=r"by_band=True needs a loss with a by_band method"):
        specreg.SpectralRegularizer(specreg.losses.amplitude, by_band=True)


def test_any_callable_is_a_loss():
    term = specreg.SpectralRegularizer(lambda a, b: (a - b).abs().flatten(1).mean(1), weight=1.0)(X0_HAT, X0, LEVEL)
    torch.testing.assert_close(term.loss, (X0_HAT - X0).abs().mean())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"weight": -0.1}, "finite number of at least 0; got -0.1"),
        ({"weight": math.nan}, "finite number of at least 0; got nan"),
        ({"weight": "emd"}, "did you mean 'edm'"),
        ({"weight": "edm", "noise_weight": "snr"}, 'weight="edm" sets the noise weight'),
        ({"noise_weight": "constnat"}, "did you mean 'constant'"),
        ({"loss": "harr"}, "did you mean 'haar'"),
    ],
)
def test_bad_options_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        specreg.SpectralRegularizer(**options)


def test_noise_weights_of_another_batch_are_refused():
    regularizer = specreg.SpectralRegularizer("haar", noise_weight=lambda level: torch.ones(3))
    with pytest.raises(ValueError, match=r"one a sample, \[4\], or one for all; got \[3\]"):
        regularizer(X0_HAT, X0, LEVEL)


def test_unknown_noise_weight_options_are_refused():
    with pytest.raises(ValueError, match=r"no option 'powr' .did you mean 'power'"):
        noise_weights.build("snr", powr=1.0)
