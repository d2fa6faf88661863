from __future__ import annotations

import math

import diffusers
import numpy as np
import pytest
import torch

from specreg.diffusion import NoiseLevel


@pytest.fixture(autouse=True)
def _same_numbers_every_run():
    torch.manual_seed(0)


def test_snr_of_every_constructor():
    levels = [
        NoiseLevel.ddpm(torch.tensor([0.8, 0.5])),
        NoiseLevel.edm(torch.tensor([0.5, 1.0])),
        NoiseLevel.flow(torch.tensor([1 / 3, 0.5])),
    ]
    for level in levels:
        torch.testing.assert_close(level.snr, torch.tensor([4.0, 1.0]))
        torch.testing.assert_close(level.log_snr, torch.tensor([math.log(4), 0.0]))
        assert len(level) == 2


def test_vp_keeps_its_digits_at_small_t():
    t = np.array([1e-5, 1e-3, 0.5, 1.0])
    exponent = 0.5 * 19.9 * t**2 + 0.1 * t
    level = NoiseLevel.vp(torch.tensor(t, dtype=torch.float32))
    np.testing.assert_allclose(level.alpha, np.exp(-exponent / 2), rtol=1e-6)
    np.testing.assert_allclose(level.sigma, np.sqrt(-np.expm1(-exponent)), rtol=1e-6)
    np.testing.assert_allclose(level.snr, 1 / np.expm1(exponent), rtol=1e-5)


def test_snr_limits():
    clean, noise = NoiseLevel.flow(torch.tensor(0.0)), NoiseLevel.flow(torch.tensor(1.0))
    assert clean.log_snr == math.inf
    assert noise.log_snr == -math.inf
    assert NoiseLevel.edm(torch.tensor(1e-30)).log_snr == pytest.approx(60 * math.log(10))  # snr overflows


def test_dtypes_and_scalars():
    level = NoiseLevel.edm(torch.tensor(2.0, dtype=torch.bfloat16))
    assert level.alpha.shape == level.sigma.shape == (1,)
    assert level.alpha.dtype == level.sigma.dtype == torch.float32
    assert NoiseLevel(torch.ones(2), torch.ones(2, dtype=torch.float64)).alpha.dtype == torch.float64
    assert level.to("meta").sigma.device.type == "meta"  # nothing is read off the CPU


@pytest.mark.parametrize(
    ("alpha", "sigma", "error", "message"),
    [
        (torch.ones(2), torch.ones(3), ValueError, r"same shape; got \[2\] and \[3\]"),
        (torch.ones(2, 3), torch.ones(2, 3), ValueError, r"one value per sample.* got \[2, 3\] .one for each token"),
        (torch.ones(1), -torch.ones(1), ValueError, "sigma must be finite and not negative"),
        (torch.full((1,), math.nan), torch.ones(1), ValueError, "alpha must be finite"),
        (torch.ones(1), torch.full((1,), math.inf), ValueError, "sigma must be finite"),
        (torch.ones(1, dtype=torch.int64), torch.ones(1), TypeError, "alpha must be a real floating-point"),
        (torch.ones(1), 1.0, TypeError, "sigma must be a torch.Tensor"),
    ],
)
def test_refusals(alpha, sigma, error, message):
    with pytest.raises(error, match=message):
        NoiseLevel(alpha, sigma)


def test_slips_in_the_constructors_are_refused():
    with pytest.raises(
        TypeError, match=r"alphas_cumprod_t must be .*, alphas_cumprod\[t\] and not t itself; got torch.int64"
    ):
        NoiseLevel.ddpm(torch.tensor([3, 999]))
    with pytest.raises(ValueError, match=r"alphas_cumprod_t must be from 0 to 1, alphas_cumprod\[t\]; got \[3, 999\]"):
        NoiseLevel.ddpm(torch.tensor([3.0, 999.0]))
    with pytest.raises(ValueError, match=r"t must be from 0 to 1, timesteps divided by their number; got \[500\]"):
        NoiseLevel.flow(torch.tensor([500.0]))  # a diffusers timestep, not t in [0, 1]
    with pytest.raises(ValueError, match=r"got \[nan, 0.5, 0.5, …\]"):
        NoiseLevel.flow(torch.tensor([math.nan, 0.5, 0.5, 0.5]))


@pytest.mark.parametrize("bound", [0.0, 1.0])
def test_both_ends_of_the_schedules_are_levels(bound):
    at = torch.tensor([bound])
    for level in (NoiseLevel.ddpm(at), NoiseLevel.flow(at), NoiseLevel.flow(at, data_at=1)):
        assert float(level.alpha + level.sigma) == 1.0  # all signal or all noise


@pytest.mark.parametrize("timesteps", [10, [10, 20], np.array([10, 20])])
def test_timesteps_must_be_a_tensor(timesteps):
    with pytest.raises(
        TypeError, match=rf"timesteps must be a torch.Tensor of shape \[B\]; got {type(timesteps).__name__}"
    ):
        NoiseLevel.from_diffusers(diffusers.DDPMScheduler(), timesteps)


@pytest.mark.parametrize(
    ("slip", "named"), [(lambda s: type(s), "the class DDPMScheduler"), (lambda s: s.config, "FrozenDict")]
)
def test_a_scheduler_is_the_object(slip, named):
    with pytest.raises(TypeError, match=f"expected a diffusers scheduler with add_noise or scale_noise; got {named}"):
        NoiseLevel.from_diffusers(slip(diffusers.DDPMScheduler()), torch.tensor([1]))


def test_a_level_on_another_device_is_refused():
    """The meta device stands for an accelerator."""
    level = NoiseLevel.edm(torch.ones(2))
    with pytest.raises(ValueError, match="the noise level and the samples must be on one device; got cpu and meta"):
        level.diffuse(torch.ones(2, 3, device="meta"), torch.ones(2, 3, device="meta"))


@pytest.mark.parametrize("shape", [(4, 4), (4, 1, 4), (4, 3, 5, 7)])
@pytest.mark.parametrize("batch", [1, 4])
def test_diffuse_scales_samples_not_columns(shape, batch):
    level = NoiseLevel.flow(torch.linspace(0.1, 0.9, batch))
    x0, noise = torch.randn(2, *shape)
    x_t = level.diffuse(x0, noise)
    for k in range(shape[0]):
        alpha, sigma = level.alpha[k % batch].item(), level.sigma[k % batch].item()
        torch.testing.assert_close(x_t[k], alpha * x0[k] + sigma * noise[k])


def test_diffuse_dtypes_and_shapes():
    level = NoiseLevel.flow(torch.tensor([0.25, 0.5], dtype=torch.float64))
    x = torch.ones(2, 3)
    assert level.diffuse(x, x).dtype == torch.float32
    assert level.diffuse(x.half(), x.half()).dtype == torch.float32
    assert level.diffuse(x, x.double()).dtype == torch.float64
    with pytest.raises(ValueError, match=r"level has 2 values; expected 1 or B for a batch \[3, 2\]"):
        level.diffuse(x.mT, x.mT)
    with pytest.raises(ValueError, match=r"one shape; got \[2, 3\] and \[3, 2\]"):
        level.diffuse(x, x.mT)


SCHEDULERS = [
    diffusers.DDPMScheduler(),
    diffusers.DDIMScheduler(beta_schedule="squaredcos_cap_v2"),
    diffusers.EulerDiscreteScheduler(),
    diffusers.EDMEulerScheduler(),
    diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
]


@pytest.mark.parametrize("scheduler", SCHEDULERS, ids=lambda s: type(s).__name__)
def test_from_diffusers_noises_as_the_scheduler_does(scheduler):
    timesteps = scheduler.timesteps[[5, 400, 950]]
    level = NoiseLevel.from_diffusers(scheduler, timesteps)
    x0, noise = torch.randn(2, 3, 2, 3, 3)
    if hasattr(scheduler, "add_noise"):
        x_t = scheduler.add_noise(x0, noise, timesteps)
    else:
        x_t = scheduler.scale_noise(x0, timesteps, noise)
    torch.testing.assert_close(level.diffuse(x0, noise), x_t)
    assert len(NoiseLevel.from_diffusers(scheduler, timesteps[0])) == 1


def test_from_diffusers_finds_each_family():
    alpha_bar = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64).neg().add(1).cumprod(0)[[0, 999]].float()
    edges = torch.tensor([0, 999])
    ddpm = NoiseLevel.from_diffusers(diffusers.DDPMScheduler(), edges)
    torch.testing.assert_close(ddpm.alpha, NoiseLevel.ddpm(alpha_bar).alpha, rtol=1e-4, atol=0)
    torch.testing.assert_close(ddpm.sigma, NoiseLevel.ddpm(alpha_bar).sigma, rtol=1e-3, atol=0)

    euler = diffusers.EulerDiscreteScheduler(beta_schedule="linear", beta_start=1e-4, beta_end=0.02)
    ve = NoiseLevel.from_diffusers(euler, edges.float())
    assert ve.alpha.tolist() == [1, 1]
    torch.testing.assert_close(ve.snr, ddpm.snr, rtol=1e-3, atol=0)

    flow = diffusers.FlowMatchEulerDiscreteScheduler()
    level = NoiseLevel.from_diffusers(flow, flow.timesteps[[249]])
    torch.testing.assert_close(level.sigma, torch.tensor([0.751]))
    torch.testing.assert_close(level.alpha, torch.tensor([0.249]))


def test_from_diffusers_refusals():
    euler = diffusers.EulerDiscreteScheduler()
    with pytest.raises(ValueError, match=r"EulerDiscreteScheduler: expected whole timesteps .* got \[0.5\]"):
        NoiseLevel.from_diffusers(euler, torch.tensor([0.5]))
    with pytest.raises(TypeError, match="add_noise or scale_noise; got object"):
        NoiseLevel.from_diffusers(object(), torch.tensor([1]))


def test_compiles_without_a_graph_break():
    @torch.compile(fullgraph=True, backend="eager")
    def step(alpha_bar, x0, noise):
        level = NoiseLevel.ddpm(alpha_bar)
        return level.diffuse(x0, noise), level.log_snr

    alpha_bar, (x0, noise) = torch.tensor([0.3, 0.9]), torch.randn(2, 2, 5)
    level = NoiseLevel.ddpm(alpha_bar)
    x_t, log_snr = step(alpha_bar, x0, noise)
    torch.testing.assert_close(x_t, level.diffuse(x0, noise))
    torch.testing.assert_close(log_snr, level.log_snr)


def test_levels_with_trailing_axes_of_one_are_per_sample():
    level = NoiseLevel.edm(torch.tensor([0.5, 2.0]).reshape(2, 1, 1, 1))
    assert level.sigma.tolist() == [0.5, 2.0]
    assert NoiseLevel.edm(torch.full((1, 1, 1, 1), 3.0)).sigma.tolist() == [3.0]


def test_a_flow_may_have_its_data_at_one():
    t = torch.tensor([0.25, 1.0])
    mirrored, usual = NoiseLevel.flow(t, data_at=1), NoiseLevel.flow(1 - t)
    assert torch.equal(mirrored.alpha, usual.alpha)
    assert torch.equal(mirrored.sigma, usual.sigma)
    with pytest.raises(ValueError, match="data_at must be 0 or 1"):
        NoiseLevel.flow(t, data_at=2)
