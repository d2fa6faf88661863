import math
import subprocess
import sys

import pytest
import torch

import specreg
from specreg import AutoWeight, NoiseLevel, SpectralRegularizer, _checks, recover_x0
from specreg.auto_weight import gradient_norms

PREDICTIONS = ["epsilon", "v", "x0", "flow", "score", "edm"]


def batch(prediction, *, seed=0, dtype=torch.float32, size=4):
    """A network's output for some noisy batch, its base loss and x0_hat."""
    g = torch.Generator().manual_seed(seed)
    x0, noise, off = (torch.randn(size, 3, 16, 16, generator=g, dtype=dtype) for _ in range(3))
    t = torch.linspace(0.2, 0.7, size, dtype=dtype)
    level = NoiseLevel.edm(t) if prediction in ("edm", "score") else NoiseLevel.flow(t)
    if prediction in ("epsilon", "v", "x0"):
        level = NoiseLevel.ddpm(1 - t)
    x_t = level.diffuse(x0, noise)
    wanted = specreg.diffusion.target(x0, noise, level, prediction=prediction)
    output = (wanted + 0.3 * off).requires_grad_()
    x0_hat = recover_x0(output, x_t, level, prediction=prediction)
    return x0, x0_hat, level, (output - wanted).square(), output


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("convention", ["mean", "sum over pixels"])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_ratio_holds_for_every_prediction_and_convention(prediction, convention, reduction):
    x0, x0_hat, level, squares, output = batch(prediction)
    base = squares.mean() if convention == "mean" else squares.flatten(1).sum(1).mean()
    loss = specreg.losses.Amplitude(reduction=reduction)
    reg = SpectralRegularizer(loss, weight=AutoWeight(0.25), noise_weight="snr")
    term = reg(x0_hat, x0, level, base_loss=base, output=output)
    base_gradient, spectral_gradient = (torch.autograd.grad(x, output, retain_graph=True)[0] for x in (base, term.loss))
    assert float(spectral_gradient.norm() / base_gradient.norm()) == pytest.approx(0.25, rel=1e-4)
    assert float(term.gradient_ratio) == pytest.approx(0.25, rel=1e-4)
    assert torch.equal(term.weight, term.lam * level.snr.clamp_max(1).sqrt())


def test_lambda_is_a_geometric_mean_over_calls():
    auto = AutoWeight(0.5, smoothing=0.9)
    assert float(auto.value) == 0
    ratios = [2.0, 8.0, 0.5, 3.0]
    logs = 0.0
    for n, ratio in enumerate(ratios, 1):
        lam = auto.update(torch.tensor(ratio), torch.tensor(1.0))
        logs = 0.9 * logs + 0.1 * math.log(ratio)
        assert float(lam) == pytest.approx(0.5 * math.exp(logs / (1 - 0.9**n)), rel=1e-5)
    assert float(auto.value) == float(lam)


@pytest.mark.parametrize("bad", [(0.0, 1.0), (1.0, 0.0), (0.0, 0.0), (math.nan, 1.0), (1.0, math.inf)])
def test_a_bad_measurement_changes_nothing(bad):
    auto = AutoWeight(0.5)
    assert float(auto.update(torch.tensor(bad[0]), torch.tensor(bad[1]))) == 0
    auto.update(torch.tensor(3.0), torch.tensor(1.0))
    before = float(auto.value)
    assert float(auto.update(torch.tensor(bad[0]), torch.tensor(bad[1]))) == before == pytest.approx(1.5)
    assert int(auto.skipped) == 2


def test_lambda_stays_within_bounds():
    auto = AutoWeight(1.0, smoothing=0.0, bounds=(0.1, 10.0))
    assert float(auto.update(torch.tensor(1e20), torch.tensor(1e-20))) == 10
    assert float(auto.update(torch.tensor(1e-20), torch.tensor(1e20))) == pytest.approx(0.1)


def test_perfect_predictions_and_zeros_give_no_nan():
    x0 = torch.zeros(2, 1, 8, 8)
    output = torch.zeros(2, 1, 8, 8, requires_grad=True)
    reg = SpectralRegularizer("amplitude_phase", weight=AutoWeight())
    term = reg(output * 1.0, x0, NoiseLevel.flow(torch.tensor([0.5])), base_loss=output.square().mean(), output=output)
    term.loss.backward()
    assert float(term.loss.detach()) == 0
    assert float(term.lam) == 0
    assert torch.equal(output.grad, torch.zeros_like(output))


def test_lambda_belongs_to_no_graph_and_backward_gives_the_terms_own_gradient():
    x0, x0_hat, level, squares, output = batch("v")
    reg = SpectralRegularizer("haar", weight=AutoWeight())
    term = reg(x0_hat, x0, level, base_loss=squares.mean(), output=output)
    assert not term.lam.requires_grad
    (automatic,) = torch.autograd.grad(squares.mean() + term.loss, output, retain_graph=True)
    constant = SpectralRegularizer("haar", weight=float(term.lam))(x0_hat, x0, level)
    (expected,) = torch.autograd.grad(squares.mean() + constant.loss, output)
    torch.testing.assert_close(automatic, expected)


@pytest.mark.parametrize("scale", [1e-4, 1.0])
@pytest.mark.parametrize("summed", [False, True])
def test_half_precision_outputs_are_measured_as_float32_ones_are(summed, scale):
    """Gradients at a float16 output are float16: those of a mean vanish there, those of a sum overflow if scaled."""
    x0, _, level, _, output = batch("v", size=8)
    x_t = level.diffuse(x0, torch.randn(x0.shape, generator=torch.Generator().manual_seed(3)))
    lambdas = []
    for dtype in (torch.float16, torch.float32):
        o = output.detach().half().to(dtype).requires_grad_()
        squares = (o.float() - 0.99 * output.detach()).square()
        base = scale * (squares.flatten(1).sum(1).mean() if summed else squares.mean())
        reg = SpectralRegularizer("amplitude", weight=AutoWeight(ratio=0.5))
        term = reg(recover_x0(o, x_t, level, prediction="v"), x0, level, base_loss=base, output=o)
        assert float(term.gradient_ratio) == pytest.approx(0.5, rel=1e-3)
        lambdas.append(float(term.lam))
    assert lambdas[0] == pytest.approx(lambdas[1], rel=2e-2)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_casting_the_module_leaves_lambda_in_float32(dtype):
    reg = SpectralRegularizer("amplitude", weight=AutoWeight(), warmup=4)
    reg.weight.update(torch.tensor(1.2345), torch.tensor(1.0))
    before = reg.weight.value.clone()
    reg.to(dtype)
    assert reg.weight.value.dtype == torch.float32
    assert torch.equal(reg.weight.value, before)


def test_a_constant_lambda_can_be_measured_too_and_is_not_changed_by_it():
    x0, x0_hat, level, squares, output = batch("epsilon")
    reg = SpectralRegularizer("amplitude", weight=0.3)
    plain = reg(x0_hat, x0, level)
    measured = reg(x0_hat, x0, level, base_loss=squares.mean(), output=output)
    assert plain.gradient_ratio is None
    assert torch.equal(plain.loss, measured.loss)
    base, spectral = gradient_norms(squares.mean(), plain.loss, output)
    assert float(measured.gradient_ratio) == pytest.approx(float(spectral / base), rel=1e-5)
    assert float(plain.lam) == pytest.approx(0.3)


def test_evaluation_neither_learns_nor_needs_the_base_loss():
    x0, x0_hat, level, squares, output = batch("v")
    reg = SpectralRegularizer("amplitude", weight=AutoWeight(), warmup=10)
    reg(x0_hat, x0, level, base_loss=squares.mean(), output=output)
    before = {name: value.clone() for name, value in reg.state_dict().items()}
    term = reg.eval()(x0_hat, x0, level)
    with torch.no_grad():
        assert torch.equal(reg.train()(x0_hat, x0, level).lam, term.lam)
    assert all(torch.equal(before[name], value) for name, value in reg.state_dict().items())
    assert float(term.lam) == pytest.approx(float(reg.weight.value) / 10)


def test_state_dict_carries_lambda_and_ramp():
    reg, other = (SpectralRegularizer("amplitude", weight=AutoWeight(), warmup=5) for _ in range(2))
    for seed in range(3):
        x0, x0_hat, level, squares, output = batch("v", seed=seed)
        reg(x0_hat, x0, level, base_loss=squares.mean(), output=output)
    other.load_state_dict(reg.state_dict())
    x0, x0_hat, level, squares, output = batch("v", seed=9)
    a, b = (r(x0_hat, x0, level, base_loss=squares.mean(), output=output) for r in (reg, other))
    assert torch.equal(a.lam, b.lam)
    assert torch.equal(a.loss, b.loss)


@pytest.mark.parametrize(
    ("ramp", "factors"),
    [("linear", [0.25, 0.5, 0.75, 1, 1]), ("cosine", [(1 - math.cos(math.pi * k / 4)) / 2 for k in (1, 2, 3, 4, 4)])],
)
def test_ramps_of_a_constant_lambda(ramp, factors):
    x0, x0_hat, level, _, _ = batch("x0")
    reg = SpectralRegularizer("amplitude", weight=2.0, warmup=4, ramp=ramp)
    assert [float(reg(x0_hat, x0, level).lam.detach()) for _ in factors] == pytest.approx([2 * f for f in factors])


def test_what_is_missing_is_said():
    x0, x0_hat, level, squares, output = batch("v")
    reg = SpectralRegularizer("amplitude", weight=AutoWeight())
    with pytest.raises(TypeError, match="AutoWeight, the default λ, needs both base_loss= and output="):
        reg(x0_hat, x0, level)
    with pytest.raises(TypeError, match=r"base_loss must be the scalar that is minimized.*got shape \[4\]"):
        reg(x0_hat, x0, level, base_loss=squares.flatten(1).mean(1), output=output)
    with pytest.raises(TypeError, match="got float"):
        reg(x0_hat, x0, level, base_loss=0.5, output=output)
    with pytest.raises(TypeError, match=r"weight .λ. must be a number, an AutoWeight, auto, auto:RATIO or edm"):
        SpectralRegularizer("amplitude", weight=None)
    with pytest.raises(TypeError, match="AutoWeight's options are numbers"):
        AutoWeight("0.1")
    with pytest.raises(TypeError, match="got only one of them"):
        SpectralRegularizer("amplitude", weight=0.1)(x0_hat, x0, level, base_loss=squares.mean())
    with pytest.raises(ValueError, match="output must require a gradient"):
        reg(x0_hat, x0, level, base_loss=squares.mean(), output=output.detach())
    with pytest.raises(ValueError, match="x0_hat must be computed from output"):
        reg(x0_hat.detach(), x0, level, base_loss=squares.mean(), output=output)
    with pytest.raises(ValueError, match="base_loss must be computed from output"):
        reg(x0_hat, x0, level, base_loss=squares.mean().detach(), output=output)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"ratio": 0}, "ratio must be a positive finite number; got 0"),
        ({"ratio": math.inf}, "ratio must be"),
        ({"smoothing": 1.0}, "smoothing must be at least 0 and below 1; got 1.0"),
        ({"bounds": (2.0, 1.0)}, "bounds must be two numbers"),
    ],
)
def test_bad_options_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        AutoWeight(**options)


@pytest.mark.parametrize("options", [{"warmup": -1}, {"warmup": 2.5}, {"ramp": "steep"}])
def test_bad_ramps_are_refused(options):
    with pytest.raises(ValueError, match=r"warmup must be|ramp must be"):
        SpectralRegularizer("amplitude", **options)


def test_repr_says_how_lambda_is_found():
    shown = repr(SpectralRegularizer("amplitude", weight=AutoWeight(0.2), band_weight="wiener", warmup=7))
    for words in ("AutoWeight(ratio=0.2", "Wiener(power=1.0)", "warmup=7, ramp='linear'"):
        assert words in shown


RANKS = """
import sys, torch
from specreg.auto_weight import AutoWeight, gradient_norms
rank, store = int(sys.argv[1]), sys.argv[2]
torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
x = (torch.arange(6.0).reshape(2, 3) + 1)[rank].requires_grad_()
base, spectral = gradient_norms(x.square().mean(), (x * (rank + 1)).abs().mean(), x)
print(float(AutoWeight(1.0).update(base, spectral)))
"""


def test_ranks_agree_on_the_lambda_of_the_global_batch(tmp_path):
    command = [sys.executable, "-c", RANKS]
    ranks = [
        subprocess.Popen([*command, str(r), str(tmp_path / "store")], stdout=subprocess.PIPE, text=True) for r in (0, 1)
    ]
    values = [float(rank.communicate(timeout=120)[0]) for rank in ranks]
    base = math.sqrt(sum((2 * k) ** 2 for k in range(1, 7)))  # gradients of a mean over 3, up to that factor
    spectral = math.sqrt(3 * 1**2 + 3 * 2**2)
    assert values[0] == values[1] == pytest.approx(base / spectral)


def test_outputs_in_float64_are_measured():
    """vector_norm does not narrow: a norm asked for in float32 of a float64 gradient raises."""
    output = torch.randn(2, 1, 8, 8, dtype=torch.float64, requires_grad=True)
    regularizer = SpectralRegularizer("amplitude", weight=AutoWeight(ratio=0.5))
    level = NoiseLevel.flow(torch.tensor([0.2, 0.7]))
    x0 = torch.zeros_like(output)
    term = regularizer.from_output(output, x0, level, prediction="x0", x0=x0)
    assert float(term.gradient_ratio) == pytest.approx(0.5)


def test_a_weight_that_is_never_measured_says_so(monkeypatch):
    monkeypatch.setattr(_checks, "_WARNED", set())
    weight = AutoWeight()
    for _ in range(19):
        weight.update(torch.ones(()), torch.zeros(()))
    with pytest.warns(UserWarning, match="could measure none of the first 20 calls, so λ is still 0"):
        weight.update(torch.ones(()), torch.zeros(()))
