from __future__ import annotations

import diffusers
import numpy as np
import pytest
import torch

from specreg.diffusion import NoiseLevel, alphas_cumprod, fractional_timestep, vp_sigma, vp_t


@pytest.mark.parametrize("timesteps", [50, 1000])
@pytest.mark.parametrize(("schedule", "theirs"), [("linear", "linear"), ("cosine", "squaredcos_cap_v2")])
def test_alphas_cumprod_matches_diffusers(schedule, theirs, timesteps):
    ours = alphas_cumprod(schedule, timesteps)
    scheduler = diffusers.DDPMScheduler(timesteps, beta_schedule=theirs)
    assert ours.dtype == torch.float64
    assert ours.shape == (timesteps,)
    torch.testing.assert_close(ours.float(), scheduler.alphas_cumprod, rtol=1e-4, atol=1e-10)
    assert bool((ours.diff() < 0).all())


def test_linear_betas_are_options():
    expected = np.cumprod(1 - np.linspace(1e-4, 0.05, 50))  # DiffWave's
    np.testing.assert_allclose(alphas_cumprod("linear", 50, beta_end=0.05), expected, rtol=1e-13)


def test_alphas_cumprod_refusals():
    with pytest.raises(ValueError, match="did you mean 'cosine'"):
        alphas_cumprod("cosin")
    with pytest.raises(ValueError, match="at least 1; got 0"):
        alphas_cumprod("linear", 0)
    with pytest.raises(ValueError, match="beta_start <= beta_end"):
        alphas_cumprod("linear", beta_start=0.1)


def test_fractional_timestep_inverts_the_table():
    table = alphas_cumprod("linear", 50, beta_end=0.05)
    t = torch.arange(50)
    torch.testing.assert_close(fractional_timestep(table, NoiseLevel.ddpm(table[t])), t.double())
    # Halfway between two roots is halfway between two steps; EDM's scale of the same level changes nothing.
    halfway = (table[:-1].sqrt() + table[1:].sqrt()) / 2
    level = NoiseLevel.ddpm(halfway**2)
    for same in (level, NoiseLevel.edm(level.sigma / level.alpha)):
        torch.testing.assert_close(fractional_timestep(table, same), t[:-1].double() + 0.5, rtol=0, atol=1e-9)


def test_fractional_timestep_matches_numpy_and_stops_at_the_ends():
    table = alphas_cumprod("cosine", 100)
    level = NoiseLevel.edm(torch.tensor([0.0, 1e-3, 0.1, 1.0, 10.0, 1e9]))
    roots = 1 / np.sqrt(1 + level.sigma.double().numpy() ** 2)
    expected = np.interp(-roots, -table.sqrt().numpy(), np.arange(100))
    np.testing.assert_allclose(fractional_timestep(table, level), expected, atol=1e-9)
    assert fractional_timestep(table, level)[[0, -1]].tolist() == [0, 99]
    with pytest.raises(ValueError, match=r"T of at least 2; got \[1\]"):
        fractional_timestep(table[:1], level)


def test_vp_sigma_and_its_inverse():
    t = torch.tensor([[1e-5, 1e-3], [0.5, 1.0]], dtype=torch.float64)
    sigma = vp_sigma(t)
    np.testing.assert_allclose(sigma, np.sqrt(np.expm1(0.5 * 19.9 * t.numpy() ** 2 + 0.1 * t.numpy())), rtol=1e-12)
    assert sigma[1, 1].item() == pytest.approx(152.17, rel=1e-3)  # EDM's sigma_max of VP: √(e^10.05 − 1)
    torch.testing.assert_close(vp_t(sigma), t, rtol=1e-10, atol=0)
    torch.testing.assert_close(vp_t(vp_sigma(t.float())), t.float(), rtol=1e-5, atol=0)
    assert vp_t(torch.zeros(())).item() == 0
    torch.testing.assert_close(vp_t(vp_sigma(t, beta_d=9.0, beta_min=0.5), beta_d=9.0, beta_min=0.5), t)
