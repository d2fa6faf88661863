"""Preconditioning against Table 1 of Karras et al. 2022, and Heun's sampler on a problem with a closed form."""

import math

import numpy as np
import pytest
import torch

from specreg.diffusion import Churn, NoiseLevel, Preconditioned, StackedGenerator, ddim, edm_sigmas, heun, precond
from specreg.diffusion.parameterization import coefficients

SIGMA = torch.logspace(-2, 1.5, 7, dtype=torch.float64)


def test_edm_is_the_edm_parameterization():
    a, b = coefficients(NoiseLevel.edm(SIGMA), "edm")
    c = precond.EDM().coefficients(SIGMA)
    torch.testing.assert_close(c.c_skip, a)
    torch.testing.assert_close(c.c_out, b)
    torch.testing.assert_close(c.c_noise, SIGMA.log() / 4)
    # Unit variance of input and target, Eqs. 117 and 122
    torch.testing.assert_close(c.c_in**2 * (SIGMA**2 + 0.25), torch.ones_like(SIGMA))
    variance = ((1 - c.c_skip) ** 2 * 0.25 + c.c_skip**2 * SIGMA**2) / c.c_out**2
    torch.testing.assert_close(variance, torch.ones_like(SIGMA))


def test_vp_and_ve_ends_and_noise_conditioning():
    vp, ve = precond.VP(), precond.VE()
    assert vp.sigma_max == pytest.approx(math.sqrt(math.exp(19.9 / 2 + 0.1) - 1))
    assert vp.sigma_min == pytest.approx(1e-3, rel=1e-2)
    assert float(vp.coefficients(torch.tensor([vp.sigma_max])).c_noise) == pytest.approx(999, rel=1e-5)
    assert float(ve.coefficients(torch.tensor([2.0])).c_noise) == 0
    assert float(ve.coefficients(torch.tensor([3.0])).c_out) == 3


def test_iddpm_levels_follow_the_cosine_schedule():
    """Where C_1 does not act, u_j² + 1 is proportional to 1/ᾱ_j, from u_M = 0 (numpy, backwards in closed form)."""
    model = precond.IDDPM()
    u = model.levels().numpy()
    j = np.arange(1, 1001)
    alpha_bar = np.sin(0.5 * np.pi * j / 1000 / 1.008) ** 2
    expected = np.sqrt(alpha_bar[-1] / alpha_bar - 1)
    free = alpha_bar[:-1] / alpha_bar[1:] > 0.001
    assert free[1:].all()
    np.testing.assert_allclose(u[1:], expected, rtol=1e-6, atol=1e-8)
    assert (np.diff(u) < 0).all()
    sigma = torch.tensor([float(u[10]) * 1.0001, float(u[700])])
    assert model.coefficients(sigma).c_noise.tolist() == [989.0, 299.0]
    torch.testing.assert_close(model.round_sigma(sigma.double()), torch.from_numpy(u[[10, 700]]), rtol=1e-5, atol=0)


def test_wrapper_is_one_affine_line_whatever_the_batch():
    """B = W and B ≠ W: scalars must not be broadcast along the width."""

    class Raw(torch.nn.Module):
        def forward(self, x, c_noise):
            return 2 * x + c_noise[:, None, None, None]

    for batch in (2, 4):
        x, sigma = torch.randn(batch, 3, 4, 4), torch.rand(batch) + 0.1
        found = Preconditioned(Raw(), precond.EDM())(x, sigma)
        c = precond.EDM().coefficients(sigma)
        for i in range(batch):
            expected = c.c_skip[i] * x[i] + c.c_out[i] * (2 * c.c_in[i] * x[i] + c.c_noise[i])
            torch.testing.assert_close(found[i], expected)


def gaussian(x, sigma):
    """The ideal denoiser of N(0, 0.5²) data."""
    sigma = sigma[:, None]
    return (x.double() * 0.25 / (sigma**2 + 0.25)).double()


def exact(latents, sigma_max):
    return latents.double() * sigma_max * 0.5 / math.sqrt(sigma_max**2 + 0.25)


@pytest.mark.parametrize(("second_order", "order"), [(True, 2), (False, 1)])
def test_heun_converges_with_its_order_on_gaussian_data(second_order, order):
    latents = torch.ones(1, 1, dtype=torch.float64)

    def error(steps):
        found = heun(gaussian, latents, steps=steps, second_order=second_order, sigma_min=1e-3)
        return float((found - exact(latents, 80.0)).abs())

    coarse, fine = error(64), error(128)
    assert math.log2(coarse / fine) == pytest.approx(order, abs=0.35)


def test_churn_keeps_the_distribution_and_needs_its_generator():
    n = 4000
    generator = StackedGenerator(range(n))
    latents = generator.randn((n, 1))
    churn = Churn(40.0, 0.05, 50.0, 1.0)
    found = heun(gaussian, latents, steps=40, churn=churn, generator=generator)
    assert float(found.std()) == pytest.approx(0.5, rel=0.05)
    assert not torch.allclose(found, heun(gaussian, latents, steps=40))
    with pytest.raises(ValueError, match="pass generator"):
        heun(gaussian, latents, churn=churn)


class Counted(StackedGenerator):
    """Counts the numbers it is asked for."""

    drawn = 0

    def randn(self, shape, dtype=torch.float32):
        self.drawn += math.prod(shape)
        return super().randn(shape, dtype)


@pytest.mark.parametrize("churn", [None, Churn(), Churn(0.0, 0.1, 10.0), Churn(40.0, 200.0), Churn(40.0, noise=0.0)])
def test_no_noise_is_drawn_that_would_not_be_added(churn):
    generator = Counted([0])
    heun(gaussian, torch.ones(1, 3), steps=5, churn=churn, generator=generator)
    assert generator.drawn == 0


def test_churn_is_algorithm_2_of_the_paper():
    """By a transcription in NumPy that draws the same numbers: one array for each level in [S_tmin, S_tmax]."""
    steps, churn = 7, Churn(20.0, 0.05, 50.0, 1.003)
    latents = StackedGenerator([5, 6]).randn((2, 3), torch.float64)
    levels = np.append(edm_sigmas(steps).numpy(), 0.0)
    inside = (levels[:-1] >= churn.low) & (levels[:-1] <= churn.high)
    noises = StackedGenerator([5, 6])
    x = latents.numpy() * levels[0]

    def slope(x, t):
        return x * (1 - 0.25 / (t**2 + 0.25)) / t

    for i in range(steps):
        t_hat = levels[i]
        if inside[i]:
            t_hat = levels[i] * (1 + min(churn.amount / steps, math.sqrt(2) - 1))
            noise = churn.noise * noises.randn((2, 3), torch.float64).numpy()
            x = x + math.sqrt(t_hat**2 - levels[i] ** 2) * noise
        d = slope(x, t_hat)
        moved = x + (levels[i + 1] - t_hat) * d
        if levels[i + 1] > 0:
            moved = x + (levels[i + 1] - t_hat) * (d + slope(moved, levels[i + 1])) / 2
        x = moved
    generator = Counted([5, 6])
    found = heun(gaussian, latents, steps=steps, churn=churn, generator=generator)
    assert 0 < inside.sum() < steps
    assert generator.drawn == 6 * inside.sum()
    np.testing.assert_allclose(found, x, rtol=1e-6)  # the network sees x in float32


def test_samples_depend_on_their_own_seed_alone():
    def draw(seeds):
        generator = StackedGenerator(seeds)
        latents = generator.randn((len(seeds), 2))
        return heun(gaussian, latents, steps=6, churn=Churn(20.0), generator=generator)

    torch.testing.assert_close(draw([3, 4, 5])[1:2], draw([4]))
    labels = StackedGenerator([7, 8, 9]).randint(10)
    assert labels[1:2].tolist() == StackedGenerator([8]).randint(10).tolist()
    assert labels.dtype == torch.int64


def test_euler_steps_in_sigma_are_ddim():
    """DDIM on levels with alpha² + sigma² = 1 and Euler in σ/alpha are one update (Song et al. 2021, Eq. 14)."""
    sigmas = edm_sigmas(5, sigma_min=0.1, sigma_max=10)
    alphas_cumprod = (1 / (1 + sigmas.flip(0) ** 2)).double()
    latents = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def predict_x0(x_t, t):
        alpha_bar = alphas_cumprod[t]
        scaled = x_t / alpha_bar.sqrt()[:, None]
        return gaussian(scaled, (1 / alpha_bar - 1).sqrt())

    by_ddim = ddim(predict_x0, latents, alphas_cumprod, steps=5)
    # DDIM starts from unit variance; Euler from σ_max times the latents.
    scale = math.sqrt(1 + 10**2) / 10
    by_euler = heun(gaussian, latents * scale, steps=5, sigma_min=0.1, sigma_max=10, second_order=False)
    torch.testing.assert_close(by_ddim, by_euler, rtol=1e-6, atol=1e-7)


def test_levels_are_clipped_to_the_network_s_range():
    seen = []

    def predict_x0(x, sigma):
        seen.append(float(sigma[0]))
        return gaussian(x, sigma)

    heun(predict_x0, torch.ones(1, 1), steps=4, preconditioning=precond.VE())
    assert max(seen) == pytest.approx(80)
    assert min(seen) == pytest.approx(0.02)
    with pytest.raises(ValueError, match="0 < sigma_min < sigma_max"):
        edm_sigmas(3, sigma_min=2, sigma_max=1)
    with pytest.raises(ValueError, match="steps must be at least 1"):
        edm_sigmas(0)
