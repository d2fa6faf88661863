"""Samplers against diffusers, closed forms and measured orders of convergence."""

import itertools
import math

import diffusers
import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from specreg import _checks
from specreg.diffusion import Churn, StackedGenerator, alphas_cumprod, ancestral, ddim, flow, heun, samplers

SHAPE = (1, 2, 4, 4)
TABLE = alphas_cumprod("cosine", 101)


@pytest.fixture(autouse=True)
def _same_numbers_every_run():
    torch.manual_seed(0)


def predict(x, t):
    """A nonlinear, time-dependent stand-in for a network."""
    return (x.roll(1, -1) * (1.5 - t[:, None, None, None] / 101)).tanh()


def pointwise(x, t):
    """As `predict`, of products only: their bits do not depend on where in memory a value lies."""
    return x * 0.7 + x * x * (t[:, None, None, None] / 500)


class Replay:
    """A generator of recorded noise, oldest first."""

    def __init__(self, noises):
        self.noises = list(noises)

    def randn(self, shape, dtype=torch.float32):
        return self.noises.pop(0).to(dtype)


def diffusers_ddim(eta, noises, latents, *, clip=False):
    """The same update by diffusers, at t = 100, 90, …, 0.

    With 11 steps its own linspace takes x to t − 101 // 11 = t − 9 and then calls it x at t − 10, so it is
    told of 10 steps, whose stride is the spacing.
    """
    scheduler = diffusers.DDIMScheduler(
        101,
        beta_schedule="squaredcos_cap_v2",
        timestep_spacing="linspace",
        clip_sample=clip,
        set_alpha_to_one=True,
        prediction_type="sample",
    )
    scheduler.set_timesteps(11)
    assert scheduler.timesteps.tolist() == list(range(100, -1, -10))
    scheduler.num_inference_steps = 10
    x = latents
    for t, noise in zip(scheduler.timesteps, noises, strict=True):
        output = predict(x, t[None]) * (3 if clip else 1)
        x = scheduler.step(output, t, x, eta, use_clipped_model_output=clip, variance_noise=noise).prev_sample
    return x


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim_matches_diffusers(eta):
    latents, noises = torch.randn(SHAPE), torch.randn(11, *SHAPE)
    ours = ddim(predict, latents, TABLE, steps=11, eta=eta, generator=Replay(noises) if eta else None)
    torch.testing.assert_close(ours, diffusers_ddim(eta, noises, latents), rtol=1e-4, atol=1e-5)


def test_clipped_ddim_matches_diffusers():
    latents, noises = torch.randn(SHAPE), torch.randn(11, *SHAPE)
    ours = ddim(lambda x, t: 3 * predict(x, t), latents, TABLE, steps=11, clip=(-1, 1))
    torch.testing.assert_close(ours, diffusers_ddim(0.0, noises, latents, clip=True), rtol=1e-3, atol=1e-4)
    assert ours.abs().max() <= 1


def test_ancestral_matches_diffusers():
    scheduler = diffusers.DDPMScheduler(
        101,
        beta_schedule="squaredcos_cap_v2",
        variance_type="fixed_small",
        clip_sample=False,
        prediction_type="sample",
    )
    latents, generator = torch.randn(SHAPE), torch.Generator().manual_seed(7)
    x = latents
    for t in range(100, -1, -1):
        x = scheduler.step(predict(x, torch.tensor([t])), t, x, generator=generator).prev_sample
    ours = ancestral(predict, latents, TABLE, generator=StackedGenerator([7]))
    torch.testing.assert_close(ours, x, rtol=1e-4, atol=1e-5)


def test_ancestral_is_ddim_of_eta_one_at_every_step():
    latents = torch.randn(3, 2, 4, 4, dtype=torch.float64)
    seeds = [4, 5, 6]
    by_ddim = ddim(predict, latents, TABLE, steps=101, eta=1.0, generator=StackedGenerator(seeds))
    by_ddpm = ancestral(predict, latents, TABLE, generator=StackedGenerator(seeds))
    torch.testing.assert_close(by_ddim, by_ddpm)


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_samples_of_an_exact_denoiser_have_the_data_s_spread(eta):
    table, std = alphas_cumprod("linear"), 0.5

    def denoise(x, t):  # exact for x0 ~ N(0, std²)
        alpha_bar = table[t][:, None].float()
        return alpha_bar.sqrt() * std**2 * x / (alpha_bar * std**2 + 1 - alpha_bar)

    generator = StackedGenerator(range(8))
    samples = ddim(denoise, generator.randn((8, 4096)), table, steps=1000, eta=eta, generator=generator)
    assert samples.std().item() == pytest.approx(std, rel=0.02)


@pytest.mark.parametrize("steps", [1, 2, 7, 50, 101])
def test_timesteps_run_evenly_from_the_last_to_zero(steps):
    seen = []

    def record(x, t):
        assert t.dtype == torch.int64
        assert t.shape == (3,)
        seen.append(t[0].item())
        return torch.full_like(x, len(seen))

    x = ddim(record, torch.randn(3, 5), TABLE, steps=steps)
    assert seen == np.linspace(100, 0, steps).round().astype(int).tolist()
    assert bool((x == steps).all())  # the last update returns x0_hat itself


@pytest.mark.parametrize("sampler", ["ddim", "ancestral"])
def test_a_sample_depends_on_its_seed_and_not_on_its_batch(sampler):
    def sample(seeds):
        generator = StackedGenerator(seeds)
        latents = generator.randn((len(seeds), 3, 5, 5))
        if sampler == "ancestral":
            return ancestral(pointwise, latents, TABLE, generator=generator, clip=(-2, 2))
        return ddim(pointwise, latents, TABLE, steps=10, eta=0.8, generator=generator, clip=(-2, 2))

    seeds = [11, 2**40, 0, 11]
    batch = sample(seeds)
    assert all(torch.equal(batch[[k]], sample([seed])) for k, seed in enumerate(seeds))
    assert torch.equal(batch[0], batch[3])
    assert not torch.equal(batch[0], batch[1])


def test_stacked_generator_draws_torch_s_own_streams():
    ours = StackedGenerator([3, 4]).randn((2, 5, 6), torch.float64)
    for k, seed in enumerate([3, 4]):
        theirs = torch.randn(5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        assert torch.equal(ours[k], theirs)
    with pytest.raises(ValueError, match=r"batch of 2, one sample per seed; got shape \[3, 4\]"):
        StackedGenerator([1, 2]).randn((3, 4))


def test_sampling_keeps_no_graph_and_runs_in_float32():
    weight = torch.ones((), requires_grad=True)
    x = ddim(lambda x, t: (weight * x).bfloat16(), torch.randn(1, 4).bfloat16(), TABLE, steps=3)
    assert not x.requires_grad
    assert x.dtype == torch.float32


MEAN, STD = 0.7, 0.5


def conditional_mean(x, t):
    """E[x0 | x_t] for x0 ~ N(MEAN, STD²) on the straight path x_t = (1 − t)·x0 + t·ε."""
    t = t[:, None]
    gain = (1 - t) * STD**2 / ((1 - t) ** 2 * STD**2 + t**2)
    return MEAN + gain * (x.to(t) - (1 - t) * MEAN)


@pytest.mark.parametrize(("second_order", "order"), [(True, 2), (False, 1)])
def test_flow_converges_with_its_order_to_the_exact_solution(second_order, order):
    """The probability-flow ODE moves x by quantiles: MEAN + STD times the latents."""
    latents = torch.tensor([[-1.3, 0.2, 2.0]], dtype=torch.float64)

    def error(steps):
        found = flow(conditional_mean, latents, steps=steps, second_order=second_order)
        return float((found - (MEAN + STD * latents)).norm())

    errors = [error(steps) for steps in (32, 64, 128)]
    orders = [math.log2(coarse / fine) for coarse, fine in itertools.pairwise(errors)]
    assert orders == pytest.approx([order, order], abs=0.2)
    assert errors[-1] < (1e-3 if second_order else 2e-2)


def test_euler_steps_of_flow_are_diffusers_flow_matching():
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000)
    scheduler.set_timesteps(sigmas=[i / 8 for i in range(8, 0, -1)])
    latents = torch.randn(SHAPE)
    x = latents
    for t in scheduler.timesteps:
        time = t / 1000
        velocity = (x - pointwise(x, time[None] * 100)) / time
        x = scheduler.step(velocity, t, x).prev_sample
    ours = flow(lambda x, t: pointwise(x, t * 100), latents, steps=8, second_order=False)
    torch.testing.assert_close(ours.float(), x, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("second_order", "calls"), [(True, 9), (False, 5)])
def test_flow_calls_the_network_from_1_downwards_and_clips(second_order, calls):
    seen = []

    def denoise(x, t):
        assert (x.dtype, t.dtype, t.shape) == (torch.float32, torch.float64, (2,))
        seen.append(t[0].item())
        return 3 * torch.ones_like(x)

    x = flow(denoise, torch.randn(2, 4), steps=5, second_order=second_order, clip=(-1, 1))
    assert len(seen) == calls
    assert seen[0] == 1.0
    assert min(seen) == pytest.approx(0.2)
    torch.testing.assert_close(x, torch.ones(2, 4, dtype=torch.float64))  # the last step returns x0_hat itself
    with pytest.raises(ValueError, match="steps must be at least 1; got 0"):
        flow(denoise, torch.randn(2, 4), steps=0)
    with pytest.raises(ValueError, match=r"shape of x_t, \[2, 4\]; got \[2, 1\]"):
        flow(lambda x, t: x[:, :1], torch.randn(2, 4))


class Wide(TorchDispatchMode):
    """Counts the results of operations that are float64 and hold a batch."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        self.count += isinstance(out, torch.Tensor) and out.dtype == torch.float64 and out.shape[:1] == (3,)
        return out


def samples_of(sampler):
    latents = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    if sampler == "flow":
        return flow(lambda x, t: 0.5 * x * t[:, None].float(), latents, steps=4)
    generator = StackedGenerator([1, 2, 3])
    return heun(lambda x, s: 0.5 * x, latents, steps=4, churn=Churn(10.0), generator=generator)


@pytest.mark.parametrize("sampler", ["heun", "flow"])
def test_a_device_without_float64_gets_none(sampler, monkeypatch):
    """MPS refuses float64 tensors; here the CPU plays that device."""
    expected = samples_of(sampler)
    assert expected.dtype == torch.float64
    assert [_checks.widest_dtype(device) for device in ("cpu", "cuda:1", "mps")] == [
        torch.float64, torch.float64, torch.float32,
    ]  # fmt: skip
    with Wide() as wide:
        samples_of(sampler)
    assert wide.count > 8
    monkeypatch.setattr(samplers, "widest_dtype", lambda device: torch.float32)
    monkeypatch.setattr(StackedGenerator, "randn", lambda self, shape, dtype: torch.full(shape, 0.5))
    with Wide() as narrow:
        found = samples_of(sampler)
    assert narrow.count == 0
    assert found.dtype == torch.float32
    monkeypatch.undo()
    monkeypatch.setattr(samplers, "widest_dtype", lambda device: torch.float32)
    torch.testing.assert_close(samples_of(sampler).double(), expected, rtol=1e-4, atol=1e-4)


def test_refusals():
    x = torch.randn(1, 4)
    with pytest.raises(ValueError, match="between 1 and the 101 training timesteps; got 102"):
        ddim(predict, x, TABLE, steps=102)
    with pytest.raises(ValueError, match="pass generator="):
        ddim(predict, x, TABLE, eta=0.5)
    with pytest.raises(ValueError, match="eta must be between 0 and 1; got -1"):
        ddim(predict, x, TABLE, eta=-1)
    with pytest.raises(ValueError, match=r"shape of x_t, \[1, 4\]; got \[1, 2\]"):
        ddim(lambda x, t: x[:, :2], x, TABLE)
