import numpy as np
import pytest
import scipy.stats
import torch

import specreg
from specreg import objectives
from specreg.diffusion import alphas_cumprod, noise_density
from specreg.diffusion.noise_density import LogNormal, LogUniform, VPTime

G = torch.Generator().manual_seed(0)
X0, NOISE = torch.randn(2, 5, 1, 8, 8, generator=G)
T = torch.tensor([0, 10, 300, 700, 999])
SCHEDULE = alphas_cumprod("cosine")


class Scale(torch.nn.Module):
    """A network with one weight, whose gradients can be written down."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(0.7))

    def forward(self, x, t):
        return self.weight * x


@pytest.mark.parametrize("prediction", ["epsilon", "v", "x0"])
def test_base_loss_is_the_mean_squared_error_on_the_prediction(prediction):
    alpha = SCHEDULE[T].sqrt().float()[:, None, None, None]
    sigma = (1 - SCHEDULE[T]).sqrt().float()[:, None, None, None]
    x_t = alpha * X0 + sigma * NOISE
    wanted = {"epsilon": NOISE, "v": alpha * NOISE - sigma * X0, "x0": X0}[prediction]
    terms = objectives.ddpm(SCHEDULE, prediction)(Scale(), X0, T, NOISE)
    torch.testing.assert_close(terms.base, (0.7 * x_t - wanted).square().flatten(1).mean(1), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(terms.loss, terms.base.mean())
    assert terms.spectral is None


@pytest.mark.parametrize("prediction", ["epsilon", "v", "x0"])
def test_a_perfect_network_has_no_loss_at_all(prediction):
    objective = objectives.ddpm(SCHEDULE, prediction, specreg.SpectralRegularizer("amplitude_phase", weight=1.0))
    level = objective.level(T)
    perfect = specreg.diffusion.target(X0, NOISE, level, prediction=prediction)
    terms = objective(lambda x, t: perfect, X0, T, NOISE)
    assert terms.base.max() == 0
    # From the noise, x0_hat is known to rounding times 1/alpha, 20,000 at t = 999.
    rounding = 4 * torch.finfo(torch.float32).eps / float(level.alpha.min())
    torch.testing.assert_close(terms.x0_hat, X0, rtol=0, atol=rounding)
    assert terms.spectral.per_sample.max() < rounding


def test_total_is_base_plus_lambda_times_spectral_loss_of_x0_hat():
    regularizer = specreg.SpectralRegularizer("haar", weight=0.25, noise_weight="snr")
    terms = objectives.ddpm(SCHEDULE, "v", regularizer)(Scale(), X0, T, NOISE)
    spectral = specreg.losses.wavelet(terms.x0_hat, X0, wavelet="haar")
    weight = 0.25 * (SCHEDULE[T] / (1 - SCHEDULE[T])).clamp(max=1).sqrt().float()
    torch.testing.assert_close(terms.loss, terms.base.mean() + (weight * spectral).mean())


def test_lambda_zero_is_bit_identical_to_no_term():
    gradients = []
    for regularizer in (None, specreg.SpectralRegularizer("amplitude_phase", weight=0.0)):
        network = Scale()
        terms = objectives.ddpm(SCHEDULE, "epsilon", regularizer)(network, X0, T, NOISE)
        terms.loss.backward()
        gradients.append((terms.loss.item(), network.weight.grad.item()))
    assert gradients[0] == gradients[1]


@pytest.mark.parametrize("prediction", ["epsilon", "v", "x0"])
def test_predict_x0_inverts_the_forward_process(prediction):
    objective = objectives.ddpm(SCHEDULE, prediction)
    level = objective.level(T[:4])
    x0, noise = X0[:4], NOISE[:4]
    perfect = specreg.diffusion.target(x0, noise, level, prediction=prediction)
    x0_hat = objective.predict_x0(lambda x, t: perfect, level.diffuse(x0, noise), T[:4])
    torch.testing.assert_close(x0_hat, x0, rtol=1e-3, atol=1e-4)


class Shrink(torch.nn.Module):
    """A denoiser with one weight; remembers its conditioning."""

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(0.7))
        self.seen = {}

    def forward(self, x, sigma, **condition):
        self.seen = condition
        return self.scale * x


def test_denoiser_objective_sums_pixels_and_weights_by_sigma():
    """w(σ)·‖D(x0 + σε; σ) − x0‖² in numpy."""
    x0, noise = torch.randn(3, 2, 8, 8), torch.randn(3, 2, 8, 8)
    sigma = torch.tensor([0.1, 0.5, 3.0])
    s = sigma.numpy()
    error = ((0.7 * (x0 + sigma[:, None, None, None] * noise) - x0).numpy() ** 2).sum((1, 2, 3))
    for objective, weight in [
        (objectives.denoiser(), (s**2 + 0.25) / (0.5 * s) ** 2),
        (objectives.denoiser(VPTime(), objectives.inverse_variance), 1 / s**2),
    ]:
        terms = objective(Shrink(), x0, sigma, noise)
        np.testing.assert_allclose(terms.base.detach(), weight * error, rtol=1e-5)
        assert terms.loss.item() == pytest.approx((weight * error).mean(), rel=1e-5)


@pytest.mark.parametrize(("noise_weight", "lam"), [("constant", 1), ("edm", None)])
def test_spectral_term_of_a_denoiser_is_lambda_times_the_loss_of_its_output(noise_weight, lam):
    x0, noise, sigma = torch.randn(2, 1, 8, 8), torch.randn(2, 1, 8, 8), torch.tensor([0.3, 2.0])
    loss = specreg.losses.Amplitude(reduction="sum")
    regularizer = specreg.SpectralRegularizer(loss, weight=1.0, noise_weight=noise_weight)
    model = Shrink()
    labels = torch.tensor([1, 0])
    terms = objectives.denoiser(regularizer=regularizer)(model, x0, sigma, noise, {"labels": labels})
    x0_hat = 0.7 * (x0 + sigma[:, None, None, None] * noise)
    amplitude = [np.abs(np.fft.fft2(x.numpy(), norm="ortho")) for x in (x0, x0_hat)]
    per_sample = np.abs(amplitude[0] - amplitude[1]).sum((1, 2, 3))
    weights = np.ones(2) if lam else (sigma.numpy() ** 2 + 0.25) / (0.5 * sigma.numpy()) ** 2
    assert terms.spectral.loss.item() == pytest.approx(float((weights * per_sample).mean()), rel=1e-4)
    assert terms.loss.item() == pytest.approx((terms.base.mean() + terms.spectral.loss).item(), rel=1e-6)
    assert model.seen == {"labels": labels}


def test_training_densities_of_sigma():
    """Quantiles against scipy's distributions and the formulas of method.md."""
    u = np.array([0.05, 0.5, 0.9])
    edm, vp, ve = LogNormal(), VPTime(), LogUniform()
    np.testing.assert_allclose([edm(q) for q in u], scipy.stats.lognorm(s=1.2, scale=np.exp(-1.2)).ppf(u), rtol=1e-9)
    t = 1e-5 + u * (1 - 1e-5)
    np.testing.assert_allclose([vp(q) for q in u], np.sqrt(np.exp(19.9 * t**2 / 2 + 0.1 * t) - 1), rtol=1e-6)
    np.testing.assert_allclose([ve(q) for q in u], np.exp(np.log(0.02) + u * np.log(5000)), rtol=1e-9)
    rng = np.random.default_rng(0)
    drawn = np.log([objectives.denoiser().time.draw(rng) for _ in range(4000)])
    assert (drawn.mean(), drawn.std()) == pytest.approx((-1.2, 1.2), abs=0.06)
    times = objectives.denoiser().time.grid(4)
    assert (times.diff() > 0).all()
    with pytest.raises(ValueError, match="noise density must be one of edm, vp, ve"):
        noise_density.build("edn")
