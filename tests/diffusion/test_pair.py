"""The pair from output and target, and the check of a trainer's wiring, for every parameterization and every slip."""

import diffusers
import pytest
import torch

import specreg
from specreg import NoiseLevel, check_wiring, recover_x0, x0_pair
from specreg.diffusion import target as wanted_of

PREDICTIONS = ["epsilon", "v", "x0", "flow", "velocity", "score", "edm", "v_prediction", "pred_noise"]


def level_of(prediction, size=4):
    t = torch.linspace(0.15, 0.8, size)
    if prediction in ("edm", "score"):
        return NoiseLevel.edm(3 * t)
    return NoiseLevel.flow(t) if prediction in ("flow", "velocity") else NoiseLevel.ddpm(1 - t)


def step(prediction, *, seed=0, size=4, dtype=torch.float32):
    """x0, x_t, level and the regression target of a training step."""
    g = torch.Generator().manual_seed(seed)
    x0, noise = (torch.randn(size, 3, 8, 8, generator=g).to(dtype) for _ in range(2))
    level = level_of(prediction, size)
    return x0, level.diffuse(x0, noise).to(dtype), level, wanted_of(x0, noise, level, prediction=prediction).to(dtype)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_the_pair_is_that_of_x_t_where_x_t_is_right(prediction):
    x0, x_t, level, target = step(prediction)
    output = target + 0.3 * torch.randn(target.shape, generator=torch.Generator().manual_seed(1))
    expected = recover_x0(output, x_t, level, prediction=prediction)
    for known in ({"x0": x0}, {"x_t": x_t}):
        x0_hat, clean = x0_pair(output, target, level, prediction=prediction, **known)
        torch.testing.assert_close(x0_hat, expected, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(clean, x0, rtol=1e-4, atol=1e-4)
    x0_hat, clean = x0_pair(output, target, level, prediction=prediction)
    torch.testing.assert_close(x0_hat - clean, expected - x0, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("known", ["x0", "x_t", None])
def test_a_perfect_network_has_no_term_though_its_input_was_perturbed(known):
    """diffusers' --input_perturbation: x_t has other noise than the target; the term from x_t blames the network."""
    x0, _, level, target = step("epsilon")
    g = torch.Generator().manual_seed(5)
    perturbed = level.diffuse(x0, target + 0.1 * torch.randn(target.shape, generator=g))
    loss = "haar" if known is None else "amplitude"
    reg = specreg.SpectralRegularizer(loss, weight=1.0)
    given = {} if known is None else {known: x0 if known == "x0" else perturbed}
    term = reg.from_output(target, target, level, prediction="epsilon", **given)
    assert float(term.loss) < 1e-5
    old = reg(recover_x0(target, perturbed, level, prediction="epsilon"), x0, level)
    assert float(old.loss) > 0.01


def test_pairs_matched_again_have_the_right_difference():
    """OT-CFM: noise is permuted within the batch, so the target belongs to another noise than the trainer's `noise`."""
    x0, _, level, _ = step("velocity")
    noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(9))[[2, 0, 3, 1]]
    x_t, target = level.diffuse(x0, noise), x0 - noise
    x0_hat, clean = x0_pair(target, target, level, prediction="velocity", x0=x0)
    torch.testing.assert_close(x0_hat, clean)
    check_wiring(target, x_t, x0, level, prediction="velocity")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_right_wiring_passes(prediction, dtype):
    x0, x_t, level, target = step(prediction, dtype=dtype)
    check_wiring(target, x_t, x0, level, prediction=prediction)


def slip(*, target=None, x_t=None, level=None, prediction="flow"):
    x0, right_x_t, right_level, right = step("flow")
    pick = lambda made, usual: usual if made is None else made(usual)  # noqa: E731
    check_wiring(pick(target, right), pick(x_t, right_x_t), x0, pick(level, right_level), prediction=prediction)


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ({"prediction": "velocity"}, "prediction='flow' would fit"),
        ({"target": torch.neg}, "prediction='velocity' would fit"),
        ({"prediction": "v"}, "prediction='flow' would fit"),
        ({"level": lambda level: NoiseLevel(level.sigma, level.alpha)}, "'velocity' would fit with the time reversed|"
         "'flow' would fit with the time reversed"),
        ({"level": lambda level: NoiseLevel.flow(level.sigma * 0.9)}, r"looks like alpha .*0\.85.*; the level says"),
        ({"x_t": lambda x_t: 0.18215 * x_t}, "scaled latents"),
    ],
)  # fmt: skip
def test_slips_are_named(made, said):
    with pytest.raises(ValueError, match=f"check_wiring: .*({said})"):
        slip(**made)


def test_a_preconditioned_output_is_x0_already():
    """EDM's denoiser returns x0_hat; read as the raw network's output it is wrong, and the message says so."""
    x0, x_t, level, _ = step("edm")
    with pytest.raises(ValueError, match="prediction='x0' would fit"):
        check_wiring(x0, x_t, x0, level, prediction="edm")


def test_a_timestep_one_off_is_seen():
    table = specreg.diffusion.alphas_cumprod("linear", 1000).float()
    x0, noise, t = torch.randn(4, 3, 16, 16), torch.randn(4, 3, 16, 16), torch.tensor([50, 200, 500, 800])
    level = NoiseLevel.ddpm(table[t])
    x_t = level.diffuse(x0, noise)
    check_wiring(noise, x_t, x0, level, prediction="epsilon")
    with pytest.raises(ValueError, match="another timestep"):
        check_wiring(noise, x_t, x0, NoiseLevel.ddpm(table[t + 1]), prediction="epsilon")


def test_from_output_checks_its_first_call():
    x0, x_t, level, target = step("flow")
    reg = specreg.SpectralRegularizer("amplitude", weight=0.1)
    with pytest.raises(ValueError, match="'flow' would fit"):
        reg.from_output(target, target, level, prediction="velocity", x0=x0, x_t=x_t, check=True)
    with pytest.raises(TypeError, match="needs both x0= and x_t="):
        reg.from_output(target, target, level, prediction="flow", x0=x0, check=True)
    reg.from_output(target, target, level, prediction="flow", x0=x0, x_t=x_t, check=True)
    reg.from_output(target, target, level, prediction="flow", x0=x0, check=True)  # checked before


def test_losses_on_amplitudes_need_x0_or_x_t():
    _, _, level, target = step("flow")
    for loss in ("amplitude", ["haar", "amplitude"]):
        with pytest.raises(TypeError, match="needs x0= or x_t="):
            specreg.SpectralRegularizer(loss).from_output(target, target, level, prediction="flow")
    wavelets = specreg.SpectralRegularizer(["haar", "wavelet:db2"], weight=1.0)
    wavelets.from_output(target, target, level, prediction="flow")


@pytest.mark.parametrize("loss", ["amplitude", "haar"])
@pytest.mark.parametrize("prediction", ["epsilon", "v", "velocity", "edm"])
def test_from_output_is_the_term_of_four_lines(prediction, loss):
    """Value and gradient, with λ measured: the same as recover_x0 and forward with the same base loss."""
    x0, x_t, level, target = step(prediction)
    start = target + 0.3 * torch.randn(target.shape, generator=torch.Generator().manual_seed(1))
    found = []
    for short in (True, False):
        output = start.clone().requires_grad_()
        reg = specreg.SpectralRegularizer(loss, weight="auto")
        base = (output - target).square().mean()
        if short:
            term = reg.from_output(output, target, level, prediction=prediction, x0=x0)
        else:
            x0_hat = recover_x0(output, x_t, level, prediction=prediction)
            term = reg(x0_hat, x0, level, prediction=prediction, base_loss=base, output=output)
        (base + term.loss).backward()
        found.append((term.loss.detach(), term.lam, output.grad))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-6)


def test_from_output_takes_half_precision_under_autocast():
    x0, _, level, target = step("v")
    output = (target + 0.1).bfloat16().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        term = specreg.SpectralRegularizer("amplitude", weight="auto").from_output(
            output, target.bfloat16(), level, prediction="v", x0=x0
        )
    assert term.loss.dtype == torch.float32
    term.loss.backward()
    assert output.grad.isfinite().all()


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda x0: x0 / 2 + 0.5, r"It is read as 2·x0 -1: .* another range"),
        (lambda x0: (x0 + 1) * 127.5, r"It is read as 0.00784·x0 -1: .* another range"),
        (lambda x0: x0 / 0.18215, r"It is read as 0.182·x0 [+-]\S*: .* latents times their scaling factor"),
    ],
)
@pytest.mark.parametrize("prediction", ["epsilon", "v", "flow", "x0"])
def test_x0_in_another_range_is_named(prediction, made, said):
    x0, x_t, level, target = step(prediction)
    with pytest.raises(ValueError, match=said):
        check_wiring(target, x_t, made(x0), level, prediction=prediction)


def test_a_wrong_timestep_is_not_taken_for_another_range():
    x0, x_t, level, target = step("epsilon")
    with pytest.raises(ValueError, match="another timestep"):
        check_wiring(target, x_t, x0 / 2 + 0.5, NoiseLevel.ddpm(level.alpha**2 * 0.9), prediction="epsilon")


class Wrapped:
    """What diffusers' models return: an object that holds the tensor."""

    def __init__(self, sample):
        self.sample = sample


@pytest.mark.parametrize(
    ("name", "made", "error", "said"),
    [
        ("output", Wrapped, TypeError, r"output must be a torch.Tensor; got Wrapped; pass its .sample, the tensor"),
        ("output", lambda x: torch.cat([x, x], 1), ValueError,
         r"output and target must have the same shape; got \[4, 6, 8, 8\] and \[4, 3, 8, 8\]"),
        ("target", lambda x: x[:, :1], ValueError, "output and target must have the same shape"),
        ("x0", lambda x: x[:2], ValueError, "output and x0 must have the same shape"),
        ("x0", lambda x: (x * 255).to(torch.uint8), TypeError,
         "x0 must be a real floating-point tensor; got torch.uint8"),
        ("x0", lambda x: x.to("meta"), ValueError, "output and x0 must be on one device; got cpu and meta"),
        ("level", lambda x: torch.arange(4), TypeError,
         r"level must be a NoiseLevel, such as NoiseLevel.ddpm\(alphas_cumprod\[t\]\) or .*; got Tensor"),
        ("level", lambda x: NoiseLevel(x.alpha.to("meta"), x.sigma.to("meta")), ValueError,
         "the noise level and the samples must be on one device; got meta and cpu"),
    ],
)  # fmt: skip
def test_slips_are_named_by_the_argument(name, made, error, said):
    x0, x_t, level, target = step("epsilon")
    given = {"output": target.clone(), "target": target, "x0": x0, "level": level}
    given[name] = made(given[name])
    regularizer = specreg.SpectralRegularizer("amplitude", weight=0.1)
    with pytest.raises(error, match=said):
        regularizer.from_output(**given, prediction="epsilon")
    with pytest.raises(error, match=said):
        x0_pair(**given, prediction="epsilon")
    if name in ("x0", "level"):
        said = said.replace("output and x0", "target and x0")
        with pytest.raises(error, match=said):
            check_wiring(target, x_t, given["x0"], given["level"], prediction="epsilon")


@pytest.mark.parametrize(
    ("slip", "named"),
    [
        (lambda s: type(s), "the class DDPMScheduler"),
        (lambda s: s.config, "a FrozenDict"),
        (lambda s: None, "a NoneType"),
    ],
)
def test_prediction_is_a_name_or_a_scheduler(slip, named):
    diffusers = pytest.importorskip("diffusers")
    _, x_t, level, target = step("epsilon")
    with pytest.raises(
        TypeError, match=rf"or a diffusers scheduler \(the object, not its class or config\); got {named}$"
    ):
        recover_x0(target, x_t, level, prediction=slip(diffusers.DDPMScheduler()))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("schedule", ["linear", "scaled_linear", "squaredcos_cap_v2"])
def test_half_precision_is_accepted_at_every_timestep(schedule, dtype):
    """diffusers casts ᾱ to the dtype of the samples, so that σ at the first timesteps may come out as 0."""
    g = torch.Generator().manual_seed(0)
    t = torch.arange(1000)
    x0, noise = ((scale * torch.randn(1000, 3, 4, 4, generator=g)).to(dtype) for scale in (0.5, 1))
    for name in ("epsilon", "v_prediction"):
        scheduler = diffusers.DDPMScheduler(beta_schedule=schedule, prediction_type=name)
        target = noise if name == "epsilon" else scheduler.get_velocity(x0, noise, t)
        level = NoiseLevel.from_diffusers(scheduler, t)
        x_t = scheduler.add_noise(x0, noise, t)
        specreg.check_wiring(target, x_t, x0, level, prediction=scheduler)
        some = slice(500, 516)
        level = NoiseLevel.from_diffusers(scheduler, t[some])
        for wrong in {"epsilon", "v", "x0", "velocity"} - {name.removesuffix("_prediction")}:
            with pytest.raises(ValueError, match="is not read as x0"):
                specreg.check_wiring(target[some], x_t[some], x0[some], level, prediction=wrong)


@pytest.mark.parametrize("slip", ["x0 scaled", "another time"])
def test_half_precision_does_not_hide_slips_of_flow(slip):
    """Straight paths have no rounded α², so nothing more than rounding is allowed for."""
    g = torch.Generator().manual_seed(0)
    for _ in range(20):
        x0, noise = (torch.randn(4, 3, 8, 8, generator=g).bfloat16() for _ in range(2))
        t = torch.rand(4, generator=g) * 0.8 + 0.05
        x_t = NoiseLevel.flow(t).diffuse(x0, noise)
        level = NoiseLevel.flow(t + 0.1 if slip == "another time" else t)
        with pytest.raises(ValueError, match="is not read as x0"):
            check_wiring(noise - x0, x_t, 1.1 * x0 if slip == "x0 scaled" else x0, level, prediction="flow")
