from __future__ import annotations

import typing

import diffusers
import pytest
import torch
from torch import nn

from specreg.diffusion import (
    NoiseLevel,
    Prediction,
    alphas_cumprod,
    coefficients,
    ddim_estimate,
    recover_x0,
    target,
)

PREDICTIONS = typing.get_args(Prediction)
T = torch.linspace(0.02, 0.98, 5, dtype=torch.float64)
LEVELS = {
    "ddpm": NoiseLevel.ddpm(alphas_cumprod("linear")[[0, 100, 400, 700, 999]]),
    "vp": NoiseLevel.vp(T),
    "edm": NoiseLevel.edm((4 * T - 2).exp()),
    "flow": NoiseLevel.flow(T),
    "neither": NoiseLevel(0.3 + T, 2 * T**2),
}


@pytest.fixture(autouse=True)
def _same_numbers_every_run():
    torch.manual_seed(0)


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("level", LEVELS.values(), ids=LEVELS.keys())
@pytest.mark.parametrize("width", [5, 7])  # B == W and B != W
def test_the_perfect_network_gives_back_x0(level, prediction, width):
    x0, noise = torch.randn(2, 5, 3, 4, width, dtype=torch.float64)
    x_t = level.diffuse(x0, noise)
    output = target(x0, noise, level, prediction=prediction, sigma_data=0.7)
    x0_hat = recover_x0(output, x_t, level, prediction=prediction, sigma_data=0.7)
    torch.testing.assert_close(x0_hat, x0, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_one_level_for_the_batch_is_that_level_for_each(prediction):
    x_t, output = torch.randn(2, 4, 4)
    one = recover_x0(output, x_t, NoiseLevel.vp(torch.tensor(0.3)), prediction=prediction)
    each = recover_x0(output, x_t, NoiseLevel.vp(torch.full((4,), 0.3)), prediction=prediction)
    torch.testing.assert_close(one, each, rtol=0, atol=0)


def test_targets_by_definition():
    level = NoiseLevel.ddpm(torch.tensor([0.64, 0.09], dtype=torch.float64))
    x0, noise = torch.randn(2, 2, 3, dtype=torch.float64)
    alpha, sigma = level.alpha[:, None], level.sigma[:, None]
    x_t = alpha * x0 + sigma * noise
    # The score of p(x_t | x0) = N(alpha x0, sigma²), by autograd.
    point = x_t.clone().requires_grad_()
    log_p = torch.distributions.Normal(alpha * x0, sigma.expand_as(x0)).log_prob(point).sum()
    (score,) = torch.autograd.grad(log_p, point)
    s = sigma / alpha
    c_skip, c_out = 0.25 / (s**2 + 0.25), s * 0.5 / (s**2 + 0.25).sqrt()
    expected = {
        "epsilon": noise,
        "v": alpha * noise - sigma * x0,
        "x0": x0,
        "flow": noise - x0,
        "score": score,
        "edm": (x0 - c_skip * x_t / alpha) / c_out,
    }
    for prediction, value in expected.items():
        torch.testing.assert_close(target(x0, noise, level, prediction=prediction), value)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("cls", [diffusers.DDPMScheduler, diffusers.DDIMScheduler])
def test_ddpm_and_ddim_agree_with_diffusers(cls, prediction_type):
    scheduler = cls(prediction_type=prediction_type, clip_sample=False)
    scheduler.set_timesteps(1000)
    x_t, output = torch.randn(2, 4, 3, 4, 4)
    timesteps = torch.tensor([0, 300, 600, 999])
    theirs = torch.cat(
        [scheduler.step(output[[k]], int(t), x_t[[k]]).pred_original_sample for k, t in enumerate(timesteps)]
    )
    level = NoiseLevel.from_diffusers(scheduler, timesteps)
    ours = recover_x0(output, x_t, level, prediction=scheduler.config.prediction_type)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
def test_euler_agrees_with_diffusers(prediction_type):
    x_t, output = torch.randn(2, 1, 3, 4, 4)
    for index in (0, 10, 19):
        scheduler = diffusers.EulerDiscreteScheduler(prediction_type=prediction_type)
        scheduler.set_timesteps(20)
        t = scheduler.timesteps[index]
        level = NoiseLevel.from_diffusers(scheduler, t)
        scheduler.is_scale_input_called = True
        theirs = scheduler.step(output, t, x_t).pred_original_sample
        ours = recover_x0(output, x_t, level, prediction=prediction_type)
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_flow_agrees_with_diffusers():
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=2.0)
    scheduler.set_timesteps(sigmas=[0.7])  # the next sigma is 0: its one step lands on x0_hat
    x_t, output = torch.randn(2, 1, 3, 4, 4)
    level = NoiseLevel.from_diffusers(scheduler, scheduler.timesteps)
    theirs = scheduler.step(output, scheduler.timesteps[0], x_t).prev_sample
    torch.testing.assert_close(recover_x0(output, x_t, level, prediction="flow"), theirs)
    assert 0.7 < level.sigma.item() < 0.9  # shifted


def test_edm_agrees_with_diffusers():
    scheduler = diffusers.EDMEulerScheduler(sigma_data=0.4)
    x_t, output = torch.randn(2, 3, 3, 4, 4)
    sigma = torch.tensor([0.002, 0.5, 80.0])
    theirs = scheduler.precondition_outputs(x_t, output, sigma[:, None, None, None])
    ours = recover_x0(output, x_t, NoiseLevel.edm(sigma), prediction="edm", sigma_data=0.4)
    torch.testing.assert_close(ours, theirs)


def test_pure_noise():
    level = NoiseLevel.flow(torch.tensor([0.5, 1.0]))
    x = torch.randn(2, 3)
    for prediction in ("epsilon", "score"):
        with pytest.raises(ValueError, match=rf"'{prediction}' does not determine x0 where alpha = 0"):
            recover_x0(x, x, level, prediction=prediction)
    for prediction in ("v", "x0", "flow", "edm"):
        output = target(x, torch.randn(2, 3), level, prediction=prediction)
        x_t = level.diffuse(x, torch.zeros(2, 3))
        assert bool(recover_x0(output, x_t, level, prediction=prediction).isfinite().all())


def test_refusals():
    level, x = NoiseLevel.flow(torch.tensor([0.5, 0.6])), torch.randn(2, 3)
    with pytest.raises(ValueError, match=r"prediction must be one of epsilon, .*did you mean 'epsilon'"):
        coefficients(level, "epsilom")
    with pytest.raises(ValueError, match=r"one shape; got \[2, 3\] and \[2, 1\]"):
        recover_x0(x[:, :1], x, level, prediction="x0")
    with pytest.raises(ValueError, match=r"level has 2 values; expected 1 or B for a batch \[3, 2\]"):
        recover_x0(x.mT, x.mT, level, prediction="x0")


def test_half_precision_is_computed_in_float32_under_autocast():
    level = NoiseLevel.ddpm(alphas_cumprod("linear")[[999]].float())
    x_t, output = torch.randn(2, 1, 64).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        x0_hat = recover_x0(output, x_t, level, prediction="epsilon")
    assert x0_hat.dtype == torch.float32
    expected = (x_t.double() - level.sigma.double() * output.double()) / level.alpha.double()
    torch.testing.assert_close(x0_hat.double(), expected, rtol=1e-5, atol=1e-4)


def test_compiles_without_a_graph_break():
    @torch.compile(fullgraph=True, backend="eager")
    def estimate(output, x_t, alpha_bar):
        return recover_x0(output, x_t, NoiseLevel.ddpm(alpha_bar), prediction="v_prediction")

    output, x_t, alpha_bar = torch.randn(4, 3), torch.randn(4, 3), torch.rand(4)
    expected = recover_x0(output, x_t, NoiseLevel.ddpm(alpha_bar), prediction="v")
    torch.testing.assert_close(estimate(output, x_t, alpha_bar), expected)


def falling_levels(steps, schedule):
    """`steps` levels from t = 0.9 down, the last one step above 0."""
    return [schedule(t[None]) for t in torch.linspace(0.9, 0, steps + 1, dtype=torch.float64)[:-1]]


@pytest.mark.parametrize("schedule", [NoiseLevel.flow, NoiseLevel.edm])
def test_ddim_estimate_converges_at_first_order_to_the_probability_flow(schedule):
    std = 0.6

    def denoise(x, level):  # exact for x0 ~ N(0, std²)
        return level.alpha * std**2 * x / (level.alpha**2 * std**2 + level.sigma**2)

    x_t = torch.randn(4, 3, dtype=torch.float64)
    start = schedule(torch.tensor(0.9, dtype=torch.float64))
    # The flow carries x_t, of variance alpha² std² + sigma², to the same quantile of N(0, std²).
    exact = x_t * std / (start.alpha**2 * std**2 + start.sigma**2).sqrt()
    errors = torch.stack(
        [(ddim_estimate(denoise, x_t, falling_levels(n, schedule)) - exact).abs().max() for n in (1, 32, 64, 128, 256)]
    )
    orders = (errors[1:-1] / errors[2:]).log2()
    torch.testing.assert_close(orders, torch.ones_like(orders), rtol=0.05, atol=0)
    assert errors[-1] < 0.05 * errors[0]


def test_ddim_estimate_of_one_level_is_one_call():
    x_t, level = torch.randn(2, 3), NoiseLevel.flow(torch.tensor([0.3, 0.8]))
    assert torch.equal(ddim_estimate(lambda x, at: x * at.alpha[:, None], x_t, [level]), x_t * level.alpha[:, None])


def test_ddim_estimate_follows_diffusers_ddim():
    scheduler = diffusers.DDIMScheduler(101, clip_sample=False, prediction_type="sample")
    scheduler.set_timesteps(10)
    x_t, weight = torch.randn(3, 2, 4, 4), torch.randn(4, 4) / 3
    levels = [NoiseLevel.from_diffusers(scheduler, t) for t in scheduler.timesteps]
    x = x_t
    for t in scheduler.timesteps:
        step = scheduler.step((x @ weight).tanh(), int(t), x)
        x = step.prev_sample
    ours = ddim_estimate(lambda x, level: (x @ weight).tanh(), x_t, levels)
    torch.testing.assert_close(ours, step.pred_original_sample, rtol=1e-4, atol=1e-5)


class Counting(nn.Module):
    """A small network that counts its calls, with dropout so that recomputation must replay it."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.Dropout(0.5), nn.Linear(16, 3)).double()
        self.calls = 0

    def forward(self, x, level):
        self.calls += 1
        return self.net(x) * level.alpha[:, None]


def test_ddim_estimate_gradients():
    net, x_t = Counting().eval(), torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    levels = falling_levels(3, NoiseLevel.flow)
    assert torch.autograd.gradcheck(lambda x: ddim_estimate(net, x, levels), x_t)

    weight, at = net.net[0].weight, (2, 1)
    loss = ddim_estimate(net, x_t, levels).square().sum()
    (gradient,) = torch.autograd.grad(loss, weight)
    losses = []
    for shift in (1e-5, -1e-5):
        with torch.no_grad():
            weight[at] += shift
            losses.append(ddim_estimate(net, x_t, levels).square().sum().item())
            weight[at] -= shift
    assert gradient[at].item() == pytest.approx((losses[0] - losses[1]) / 2e-5, rel=1e-6)


def test_checkpointing_recomputes_and_changes_no_gradient():
    x_t, levels, gradients, saved = (
        torch.randn(2, 3, dtype=torch.float64),
        falling_levels(4, NoiseLevel.flow),
        [],
        [],
    )
    net = Counting()
    for checkpoint in (False, True):
        net.calls, sizes = 0, []
        torch.manual_seed(0)
        with torch.autograd.graph.saved_tensors_hooks(lambda x, s=sizes: (s.append(x.numel()), x)[1], lambda x: x):
            loss = ddim_estimate(net, x_t, levels, checkpoint=checkpoint).square().sum()
        saved.append(sum(sizes))
        gradients.append(torch.autograd.grad(loss, list(net.parameters())))
        assert net.calls == (8 if checkpoint else 4)
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))
    assert saved[1] < saved[0] / 3


def test_ddim_estimate_refuses_levels_that_do_not_fall():
    x, levels = torch.randn(1, 3), falling_levels(3, NoiseLevel.flow)
    clean = NoiseLevel.flow(torch.zeros(1))
    for bad in (levels[::-1], [clean, clean]):
        with pytest.raises(ValueError, match=r"levels\[1\] does not follow levels\[0\]"):
            ddim_estimate(lambda x, level: x, x, bad)
    with pytest.raises(ValueError, match="got none"):
        ddim_estimate(lambda x, level: x, x, [])
