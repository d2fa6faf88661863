import numpy as np
import pytest
import torch

import specreg
from specreg import objectives
from specreg.models.diffwave import DiffWave, DiffWaveConfig

CONFIG = DiffWaveConfig(residual_layers=2, residual_channels=8, dilation_cycle_length=2, n_mels=4, hop_samples=16)
TABLE = CONFIG.alphas_cumprod
G = torch.Generator().manual_seed(0)
X0, NOISE = 0.3 * torch.randn(2, 3, 1, 128, generator=G)
MEL = {"mel": torch.rand(3, 4, 8, generator=G)}
T = torch.tensor([0, 20, 49])
ALPHA = TABLE[T].sqrt().float()[:, None, None]
SIGMA = (1 - TABLE[T]).sqrt().float()[:, None, None]


@pytest.fixture
def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = DiffWave(CONFIG)
        torch.nn.init.normal_(network.output_projection.weight, std=0.1)
    return network


def test_base_loss_is_the_mean_absolute_error_on_the_noise(network):
    terms = objectives.diffwave(TABLE)(network, X0, T, NOISE, MEL)
    x_t = ALPHA * X0 + SIGMA * NOISE
    output = network(x_t, T, **MEL)
    torch.testing.assert_close(terms.base, (output - NOISE).abs().flatten(1).mean(1))
    torch.testing.assert_close(terms.loss, terms.base.mean())
    torch.testing.assert_close(terms.x0_hat, (x_t - SIGMA * output) / ALPHA, rtol=1e-4, atol=1e-5)
    assert terms.spectral is None


@pytest.mark.parametrize("name", ["amplitude", "amplitude_phase", "haar", "bior1.3"])
def test_total_is_base_plus_lambda_times_the_summed_loss_of_x0_hat(network, name):
    loss = specreg.losses.build(name, reduction="sum")
    regularizer = specreg.SpectralRegularizer(loss, weight=1e-4, noise_weight="constant")
    terms = objectives.diffwave(TABLE, regularizer)(network, X0, T, NOISE, MEL)
    torch.testing.assert_close(terms.loss, terms.base.mean() + 1e-4 * loss(terms.x0_hat, X0).mean())
    terms.loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def test_a_sum_is_a_mean_of_a_larger_lambda(network):
    gradients = []
    for reduction, lam in (("sum", 1e-4), ("mean", 1e-4 * 128)):
        regularizer = specreg.SpectralRegularizer(specreg.losses.build("amplitude", reduction=reduction), weight=lam)
        network.zero_grad()
        objectives.diffwave(TABLE, regularizer)(network, X0, T, NOISE, MEL).loss.backward()
        gradients.append(network.skip_projection.weight.grad.clone())
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("updates", [1, 2, 5])
def test_a_perfect_network_has_no_loss_at_all(updates):
    """For x_t on the line from x0 to noise the exact ε is known at every level, so unrolling stays on the line."""
    objective = objectives.diffwave(TABLE, specreg.SpectralRegularizer("haar", weight=1.0), updates=updates)

    def perfect(x, t):
        level = objective.level(t)
        alpha, sigma = (v.to(x)[:, None, None] for v in (level.alpha, level.sigma))
        return (x - alpha * X0) / sigma

    terms = objective(perfect, X0, T, NOISE)
    torch.testing.assert_close(terms.x0_hat, X0, rtol=0, atol=1e-5)
    assert terms.base.max() < 1e-4
    assert terms.spectral.per_sample.max() < 1e-4


def test_two_updates_are_two_network_calls_of_deterministic_ddim(network):
    calls = []

    def counting(x, t, mel):
        calls.append(t)
        return network(x, t, mel)

    terms = objectives.diffwave(TABLE, updates=2)(counting, X0, T, NOISE, MEL)
    assert len(calls) == 2
    torch.testing.assert_close(calls[1], T / 2)
    x_t = ALPHA * X0 + SIGMA * NOISE
    eps = network(x_t, T, **MEL)
    roots = TABLE.sqrt().float()
    alpha = torch.stack([roots[0], roots[10], (roots[24] + roots[25]) / 2])[:, None, None]
    sigma = (1 - alpha**2).sqrt()
    x = alpha * (x_t - SIGMA * eps) / ALPHA + sigma * eps
    torch.testing.assert_close(terms.x0_hat, (x - sigma * network(x, T / 2, **MEL)) / alpha, rtol=1e-3, atol=1e-4)


def test_unrolling_can_be_checkpointed(network):
    gradients = []
    for checkpoint in (False, True):
        objective = objectives.diffwave(
            TABLE, specreg.SpectralRegularizer("amplitude", weight=0.1), updates=3, recompute=checkpoint
        )
        network.zero_grad()
        objective(network, X0, T, NOISE, MEL).loss.backward()
        gradients.append([p.grad.clone() for p in network.parameters()])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("updates", [1, 2])
def test_auto_weight_holds_its_ratio(network, updates):
    auto = specreg.AutoWeight(ratio=0.25)
    objective = objectives.diffwave(TABLE, specreg.SpectralRegularizer("haar", weight=auto), updates=updates)
    term = objective(network, X0, T, NOISE, MEL).spectral
    assert term.gradient_ratio.item() == pytest.approx(0.25, rel=1e-3)
    constant = objectives.diffwave(TABLE, specreg.SpectralRegularizer("haar", weight=float(term.lam)), updates=updates)
    assert constant(network, X0, T, NOISE, MEL, measure_ratio=True).spectral.gradient_ratio.item() == pytest.approx(
        0.25, rel=1e-3
    )


def test_lambda_zero_is_bit_identical_to_no_term(network):
    gradients = []
    for regularizer in (None, specreg.SpectralRegularizer("amplitude_phase", weight=0.0)):
        network.zero_grad()
        objectives.diffwave(TABLE, regularizer)(network, X0, T, NOISE, MEL).loss.backward()
        gradients.append(network.skip_projection.weight.grad.clone())
    assert torch.equal(*gradients)


def test_the_term_stays_outside_autocast(network):
    seen = []

    class Probe(torch.nn.Module):
        def forward(self, x0_hat, x0):
            seen.append((torch.is_autocast_enabled("cpu"), x0_hat.dtype))
            return (x0_hat - x0).abs().flatten(1).mean(1)

    def half(x, t, mel):
        assert torch.is_autocast_enabled("cpu")
        return network(x, t, mel)

    objective = objectives.diffwave(TABLE, specreg.SpectralRegularizer(Probe(), weight=1.0))
    with torch.autocast("cpu", torch.bfloat16):
        terms = objective(half, X0, T, NOISE, MEL)
    assert seen == [(False, torch.float32)]
    assert (terms.base.dtype, terms.loss.dtype) == (torch.float32, torch.float32)


def test_predict_x0_is_the_estimate_of_one_call(network):
    """Samplers make one call a step, however many updates the term unrolls in training."""
    terms = objectives.diffwave(TABLE)(network, X0, T, NOISE, MEL)
    unrolled = objectives.diffwave(TABLE, updates=2)
    found = unrolled.predict_x0(network, unrolled.level(T).diffuse(X0, NOISE), T, MEL)
    torch.testing.assert_close(found, terms.x0_hat, rtol=0, atol=0)


def test_times_are_training_steps():
    objective = objectives.diffwave(TABLE)
    drawn = {objective.time.draw(np.random.default_rng(k)) for k in range(1000)}
    assert drawn == set(range(50))
    assert objective.time.grid(5).tolist() == [5, 15, 25, 35, 45]
    torch.testing.assert_close(objective.level(torch.tensor([0, 49])).alpha, TABLE[[0, 49]].sqrt())
    assert objective.level(torch.tensor([10.5])).alpha.item() == pytest.approx(TABLE[[10, 11]].sqrt().mean().item())


def test_no_updates_are_refused():
    with pytest.raises(ValueError, match="updates must be a whole number of at least 1; got 0"):
        objectives.diffwave(TABLE, updates=0)
