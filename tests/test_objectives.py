import pytest
import torch

import specreg
from specreg.diffusion import alphas_cumprod
from specreg.objectives import DDPMObjective

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
    terms = DDPMObjective(SCHEDULE, prediction)(Scale(), X0, T, NOISE)
    torch.testing.assert_close(terms.base, (0.7 * x_t - wanted).square().flatten(1).mean(1), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(terms.loss, terms.base.mean())
    assert terms.spectral is None


@pytest.mark.parametrize("prediction", ["epsilon", "v", "x0"])
def test_a_perfect_network_has_no_loss_at_all(prediction):
    objective = DDPMObjective(SCHEDULE, prediction, specreg.SpectralRegularizer("amplitude_phase", weight=1.0))
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
    terms = DDPMObjective(SCHEDULE, "v", regularizer)(Scale(), X0, T, NOISE)
    spectral = specreg.losses.wavelet(terms.x0_hat, X0, wavelet="haar")
    weight = 0.25 * (SCHEDULE[T] / (1 - SCHEDULE[T])).clamp(max=1).sqrt().float()
    torch.testing.assert_close(terms.loss, terms.base.mean() + (weight * spectral).mean())


def test_lambda_zero_is_bit_identical_to_no_term():
    gradients = []
    for regularizer in (None, specreg.SpectralRegularizer("amplitude_phase", weight=0.0)):
        network = Scale()
        terms = DDPMObjective(SCHEDULE, "epsilon", regularizer)(network, X0, T, NOISE)
        terms.loss.backward()
        gradients.append((terms.loss.item(), network.weight.grad.item()))
    assert gradients[0] == gradients[1]


@pytest.mark.parametrize("prediction", ["epsilon", "v", "x0"])
def test_predict_x0_inverts_the_forward_process(prediction):
    objective = DDPMObjective(SCHEDULE, prediction)
    level = objective.level(T[:4])
    x0, noise = X0[:4], NOISE[:4]
    perfect = specreg.diffusion.target(x0, noise, level, prediction=prediction)
    x0_hat = objective.predict_x0(lambda x, t: perfect, level.diffuse(x0, noise), T[:4])
    torch.testing.assert_close(x0_hat, x0, rtol=1e-3, atol=1e-4)
