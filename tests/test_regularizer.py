import math
import re
import textwrap
import warnings
import weakref
from pathlib import Path

import numpy as np
import pytest
import pywt
import torch

import specreg
from specreg import NoiseLevel, SpectralRegularizer, _checks, noise_weights, objectives
from specreg.config import SpectralConfig

X0_HAT, X0 = torch.randn(2, 4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
LEVEL = specreg.NoiseLevel.edm(torch.tensor([0.1, 0.5, 2.0, 10.0]))


def test_term_is_lambda_times_noise_weight_times_loss():
    regularizer = specreg.SpectralRegularizer("amplitude", weight=0.3, noise_weight=lambda level: level.sigma**2)
    term = regularizer(X0_HAT, X0, LEVEL)
    expected = specreg.losses.amplitude(X0_HAT, X0)
    torch.testing.assert_close(term.per_sample, expected)
    torch.testing.assert_close(term.weight, 0.3 * LEVEL.sigma**2)
    torch.testing.assert_close(term.loss, (0.3 * LEVEL.sigma**2 * expected).mean())


def test_edm_weight_is_the_papers():
    sigma, sigma_data = LEVEL.sigma, 0.5
    expected = (sigma**2 + sigma_data**2) / (sigma * sigma_data) ** 2
    torch.testing.assert_close(noise_weights.EDMWeight()(LEVEL), expected)
    paper = specreg.SpectralRegularizer("amplitude", weight="edm")(X0_HAT, X0, LEVEL)
    torch.testing.assert_close(paper.weight, expected)


@pytest.mark.parametrize("alpha_bar", [0.9999, 0.5, 0.001])
def test_noise_weights_mean_the_same_on_every_schedule(alpha_bar):
    """The same SNR written as DDPM, EDM and flow levels has the same weight."""
    alpha_bar = torch.tensor([alpha_bar], dtype=torch.float64)
    sigma = ((1 - alpha_bar) / alpha_bar).sqrt()
    levels = [
        specreg.NoiseLevel.ddpm(alpha_bar),
        specreg.NoiseLevel.edm(sigma),
        specreg.NoiseLevel.flow(sigma / (1 + sigma)),
    ]
    for name in noise_weights.NOISE_WEIGHTS:
        weights = [noise_weights.build(name)(level).item() for level in levels]
        assert weights == pytest.approx([weights[0]] * 3, rel=1e-9)


def test_snr_weight_and_gates_have_their_closed_forms():
    snr = 1 / LEVEL.sigma**2
    torch.testing.assert_close(noise_weights.SNR(power=1.0, clip=5.0)(LEVEL), snr.clamp(max=5))
    torch.testing.assert_close(noise_weights.SNR(power=0.5, clip=1.0)(LEVEL), snr.clamp(max=1).sqrt())
    assert noise_weights.HardGate(low=0.0)(LEVEL).tolist() == [1, 1, 0, 0]
    assert noise_weights.HardGate(low=-2.0, high=2.0)(LEVEL).tolist() == [0, 1, 1, 0]
    gate = noise_weights.SmoothGate(center=math.log(4), width=0.5)(LEVEL)
    assert gate[1].item() == pytest.approx(0.5)  # log SNR of sigma 0.5 is log 4
    assert gate[0] > 0.99
    assert gate[3] < 1e-3


def test_lambda_zero_leaves_the_graph_alone_and_still_reports_the_loss():
    x0_hat = X0_HAT.clone().requires_grad_()
    term = specreg.SpectralRegularizer("amplitude_phase", weight=0.0)(x0_hat, X0, LEVEL)
    assert not term.loss.requires_grad
    assert term.loss.item() == 0.0
    torch.testing.assert_close(term.per_sample, specreg.losses.amplitude_phase(X0_HAT, X0))
    clean = specreg.NoiseLevel.edm(torch.tensor(0.0))  # where λ_EDM is infinite
    assert (specreg.SpectralRegularizer("haar", weight=0.0, noise_weight="edm")(X0_HAT, X0, clean).weight == 0).all()


def test_one_level_for_the_whole_batch():
    regularizer = specreg.SpectralRegularizer("haar", weight=2.0, noise_weight="snr")
    one = regularizer(X0_HAT, X0, specreg.NoiseLevel.edm(torch.tensor(3.0)))
    four = regularizer(X0_HAT, X0, specreg.NoiseLevel.edm(torch.full((4,), 3.0)))
    torch.testing.assert_close(one.weight, four.weight)
    torch.testing.assert_close(one.loss, four.loss)


def test_bands_come_on_request():
    assert specreg.SpectralRegularizer("haar", weight=1.0)(X0_HAT, X0, LEVEL).by_band == {}
    bands = specreg.SpectralRegularizer("haar", weight=1.0, by_band=True)(X0_HAT, X0, LEVEL).by_band
    assert all(value.shape == (4,) for value in bands.values())
    with pytest.raises(TypeError, match=r"by_band=True needs a loss with a by_band method"):
        specreg.SpectralRegularizer(specreg.losses.amplitude, by_band=True)


def test_any_callable_is_a_loss():
    term = specreg.SpectralRegularizer(lambda a, b: (a - b).abs().flatten(1).mean(1), weight=1.0)(X0_HAT, X0, LEVEL)
    torch.testing.assert_close(term.per_sample, (X0_HAT - X0).abs().mean((1, 2, 3)))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"weight": -0.1}, "finite number of at least 0; got -0.1"),
        ({"weight": math.nan}, "finite number of at least 0; got nan"),
        ({"weight": "emd"}, "did you mean 'edm'"),
        ({"weight": "edm", "noise_weight": "snr"}, 'weight="edm" sets the noise weight'),
        ({"weight": "edm", "noise_weight": "constant"}, 'weight="edm" sets the noise weight'),
        ({"noise_weight": "constnat"}, "did you mean 'constant'"),
        ({"loss": "harr"}, "did you mean 'haar'"),
    ],
)
def test_bad_options_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        specreg.SpectralRegularizer(**options)


def test_noise_weights_of_another_batch_are_refused():
    regularizer = specreg.SpectralRegularizer("haar", weight=1.0, noise_weight=lambda level: torch.ones(3))
    with pytest.raises(ValueError, match=r"one a sample, \[4\], or one for all; got \[3\]"):
        regularizer(X0_HAT, X0, LEVEL)


def test_unknown_noise_weight_options_are_refused():
    with pytest.raises(ValueError, match=r"no option 'powr' .did you mean 'power'"):
        noise_weights.build("snr", powr=1.0)


class _Held:
    """Something that a node of an autograd graph can hold."""


class _Hold(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, held):
        ctx.held = held
        return x * 1

    @staticmethod
    def backward(ctx, grad):
        return grad, None


def test_logs_are_detached_scalars_and_keep_no_graph():
    held = _Held()
    alive = weakref.ref(held)
    output = X0_HAT.clone().requires_grad_()
    regularizer = specreg.SpectralRegularizer("haar", weight=0.3, by_band=True)
    base_loss = (output - X0).square().mean()
    term = regularizer(_Hold.apply(output, held), X0, LEVEL, base_loss=base_loss, output=output)
    logs = term.logs()
    expected = {"loss": term.loss, "spectral": term.per_sample.mean(), "weight": term.weight.mean()}
    expected |= {"lam": torch.tensor(0.3), "gradient_ratio": term.gradient_ratio}
    expected |= {f"band/{name}": errors.mean() for name, errors in term.by_band.items()}
    torch.testing.assert_close(logs, {name: value.detach() for name, value in expected.items()})
    assert len(logs) == 5 + 3 * 3 + 1
    assert all(value.shape == () and value.grad_fn is None and not value.requires_grad for value in logs.values())
    del term, expected, held, base_loss
    assert alive() is None

    plain = specreg.SpectralRegularizer("haar", weight=0.3)(X0_HAT, X0, LEVEL)
    assert set(plain.logs()) == {"loss", "spectral", "weight", "lam"}
    assert plain.logs("spectral/") == {f"spectral/{name}": value for name, value in plain.logs().items()}


def test_the_whole_term_is_no_summand():
    term = specreg.SpectralRegularizer("haar", weight=0.3)(X0_HAT, X0, LEVEL)
    with pytest.raises(TypeError, match=r"expected base_loss \+ term.loss, a scalar; got the whole SpectralTerm"):
        torch.ones(()) + term
    with pytest.raises(TypeError, match=r"expected base_loss \+ term.loss"):
        sum([1.0, term])


def test_timesteps_are_no_level():
    with pytest.raises(TypeError, match="level must be a NoiseLevel"):
        specreg.SpectralRegularizer("haar", weight="auto")(X0_HAT, X0, torch.arange(len(X0)))


@pytest.mark.parametrize("weight", [0.1, "auto"])
@pytest.mark.parametrize("loss", ["amplitude", "haar", "swt(db4):l1"])
def test_a_regularizer_that_was_never_moved_works_where_its_tensors_are(loss, weight):
    """The meta device stands for an accelerator: it mixes with the CPU as little."""
    regularizer = specreg.SpectralRegularizer(loss, weight=weight, warmup=3)
    x0, target = torch.randn(2, *X0.shape, device="meta")
    output = torch.randn_like(x0, requires_grad=True)
    level = NoiseLevel.ddpm(torch.rand(len(x0), device="meta"))
    base_loss = (output - target).square().mean()
    term = regularizer.from_output(output, target, level, prediction="epsilon", x0=x0, base_loss=base_loss)
    (base_loss + term.loss).backward()
    assert {value.device.type for value in (*term.logs().values(), output.grad)} == {"meta"}


def test_a_number_as_text_is_no_weight():
    with pytest.raises(ValueError, match=r"where it is no number, must be one of auto, auto:RATIO, edm; got '0.1'"):
        specreg.SpectralRegularizer("haar", weight="0.1")


def test_the_defaults_are_the_recommended_ones():
    default = specreg.SpectralRegularizer()
    assert default.noise_weight == noise_weights.SNR(power=None, clip=1.0)
    assert isinstance(default.weight, specreg.AutoWeight)
    assert float(default.weight.ratio) == 1.0
    assert (SpectralConfig().weight, SpectralConfig().ratio) == ("auto", 1.0)


@pytest.mark.parametrize("prediction", ["epsilon", "score", "v", "x0", "flow", "velocity", "pred_noise"])
def test_the_default_weight_s_pull_at_the_output_falls_with_alpha(prediction):
    """w·|∂x0_hat/∂output| ∝ α where noise is high, by differentiating what `recover_x0` returns."""
    level = specreg.NoiseLevel.ddpm(torch.tensor([1e-2, 1e-4, 1e-6], dtype=torch.float64))
    output = torch.randn(3, 1, 8, 8, dtype=torch.float64, requires_grad=True)
    x_t, x0 = torch.randn(2, 3, 1, 8, 8, dtype=torch.float64)
    x0_hat = specreg.recover_x0(output, x_t, level, prediction=prediction)
    (derivative,) = torch.autograd.grad(x0_hat.sum(), output)
    term = specreg.SpectralRegularizer("haar", weight=1.0)(x0_hat, x0, level, prediction=prediction)
    pull = term.weight * derivative[:, 0, 0, 0].abs()
    torch.testing.assert_close(pull / level.alpha, (pull / level.alpha)[-1:].expand(3), rtol=0.2, atol=0)


def test_the_weight_follows_what_a_scheduler_predicts_and_keeps_a_power_that_is_given():
    diffusers = pytest.importorskip("diffusers")
    x0, output, target = torch.randn(3, 2, 1, 8, 8)
    for said, power in (("epsilon", 1.0), ("v_prediction", 0.5), ("sample", 0.5)):
        scheduler = diffusers.DDPMScheduler(prediction_type=said)
        level = specreg.NoiseLevel.from_diffusers(scheduler, torch.tensor([600, 900]))
        expected = level.snr.float() ** power
        for weight, wanted in (("snr", expected), (noise_weights.SNR(power=2.0), level.snr.float() ** 2)):
            regularizer = specreg.SpectralRegularizer("amplitude", weight=1.0, noise_weight=weight)
            term = regularizer.from_output(output, target, level, prediction=scheduler, x0=x0)
            torch.testing.assert_close(term.weight, wanted)


def test_the_first_example_is_one_and_the_same_everywhere():
    root = Path(__file__).parents[1]
    shown = [
        re.search(r"```python\nimport specreg\n\n(.*?)```", (root / name).read_text(), flags=re.S)[1]
        for name in ("README.md", "docs/losses.md")
    ]
    shown.append(textwrap.dedent(re.search(r"\n\n((?:    .*\n)+)", specreg.__doc__)[1]))
    assert shown[0] == shown[1] == shown[2]


LINEAR = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000), 0)
DIFFWAVE = torch.cumprod(1 - torch.linspace(1e-4, 0.05, 50), 0)


@pytest.mark.parametrize("noise_weight", ["constant", "edm", lambda level: 1 + level.sigma])
def test_predicting_epsilon_under_a_weight_that_does_not_fall_warns_once(noise_weight, monkeypatch):
    monkeypatch.setattr(_checks, "_WARNED", set())
    regularizer = specreg.SpectralRegularizer("haar", noise_weight=noise_weight)
    with pytest.warns(UserWarning, match='predicting epsilon.*1[45]. times.*noise_weight="snr"') as caught:
        [objectives.ddpm(LINEAR, "epsilon", regularizer) for _ in range(2)]
    assert len(caught) == 1
    assert caught[0].filename == __file__


@pytest.mark.parametrize(
    ("table", "prediction", "noise_weight"),
    [(LINEAR, "epsilon", name) for name in ("snr", "hard_gate", "smooth_gate")]
    + [(LINEAR, "v", "constant"), (LINEAR, "x0", "constant"), (DIFFWAVE, "epsilon", "constant")],
)
def test_other_settings_do_not_warn(table, prediction, noise_weight, monkeypatch):
    monkeypatch.setattr(_checks, "_WARNED", set())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        objectives.ddpm(table, prediction, specreg.SpectralRegularizer("haar", noise_weight=noise_weight))


@pytest.mark.parametrize("ramp", ["linear", "cosine"])
def test_lambda_ramps_up_and_fades_out(ramp):
    regularizer = specreg.SpectralRegularizer("haar", weight=2.0, warmup=4, cooldown=5, total=20, ramp=ramp)
    x = torch.randn(1, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    lam = np.array([float(regularizer(x, x + 1, specreg.NoiseLevel.edm(torch.ones(1))).lam) for _ in range(22)])
    call = np.arange(1, 23)
    up, down = np.clip(call / 4, 0, 1), np.clip((20 - call) / 5, 0, 1)
    if ramp == "cosine":
        up, down = ((1 - np.cos(np.pi * share)) / 2 for share in (up, down))
    np.testing.assert_allclose(lam, 2 * up * down, atol=1e-6)
    assert lam[-1] == 0
    resumed = specreg.SpectralRegularizer("haar", weight=2.0, warmup=4, cooldown=5, total=20, ramp=ramp)
    for _ in range(15):
        resumed(x, x + 1, specreg.NoiseLevel.edm(torch.ones(1)))
    again = specreg.SpectralRegularizer("haar", weight=2.0, warmup=4, cooldown=5, total=20, ramp=ramp)
    again.load_state_dict(resumed.state_dict())
    assert float(again(x, x + 1, specreg.NoiseLevel.edm(torch.ones(1))).lam) == pytest.approx(lam[15])
    with pytest.raises(ValueError, match=r"a cooldown needs total= of at least warmup \+ cooldown calls; got 8"):
        specreg.SpectralRegularizer("haar", warmup=4, cooldown=5, total=8)


def test_several_losses_are_one_sum_under_one_lambda():
    """Amplitudes by NumPy, Haar coefficients by PyWavelets."""
    x0, x0_hat = torch.randn(2, 3, 1, 8, 8, generator=torch.Generator().manual_seed(0)).numpy()
    amplitude = np.abs(np.abs(np.fft.fft2(x0, norm="ortho")) - np.abs(np.fft.fft2(x0_hat, norm="ortho"))).mean(
        (1, 2, 3)
    )
    coefficients = pywt.wavedec2(x0 - x0_hat, "haar", mode="symmetric", level=3)
    flat = [
        np.abs(c).reshape(3, -1) for level in coefficients for c in (level if isinstance(level, tuple) else [level])
    ]
    haar = np.concatenate(flat, axis=1).sum(1) / 64
    level = specreg.NoiseLevel.edm(torch.full((3,), 0.1))
    for loss in (["amplitude", "haar"], "amplitude+haar", [specreg.losses.Amplitude(), "haar"]):
        term = specreg.SpectralRegularizer(loss, weight=0.5)(torch.from_numpy(x0_hat), torch.from_numpy(x0), level)
        np.testing.assert_allclose(term.per_sample, amplitude + haar, rtol=1e-5)
    with pytest.raises(ValueError, match="a sum needs at least two losses; got 1"):
        specreg.SpectralRegularizer(["haar"])
    with pytest.raises(ValueError, match="did you mean 'amplitude'"):
        specreg.losses.build("amplitud+haar")
    summed = specreg.losses.build("amplitude+haar", reduction="sum")
    np.testing.assert_allclose(
        summed(torch.from_numpy(x0_hat), torch.from_numpy(x0)), 64 * (amplitude + haar), rtol=1e-5
    )


def masked_inputs():
    g = torch.Generator().manual_seed(4)
    x0, x0_hat = torch.randn(3, 2, 8, 8, generator=g), torch.randn(3, 2, 8, 8, generator=g)
    return x0, x0_hat.requires_grad_(), NoiseLevel.flow(torch.tensor([0.2, 0.4, 0.6]))


@pytest.mark.parametrize("loss", ["amplitude", "haar"])
@pytest.mark.parametrize("layout", [None, "bhwc"])
def test_what_a_mask_leaves_out_has_neither_error_nor_gradient(loss, layout):
    """The term with a mask is that of a prediction which is right outside; NaN there does no harm."""
    x0, x0_hat, level = masked_inputs()
    mask = torch.zeros(3, 1, 8, 8, dtype=torch.bool)
    mask[:, :, 2:6, :4] = True
    right_outside = torch.where(mask, x0_hat, x0)
    expected = SpectralRegularizer(loss, weight=1.0)(right_outside, x0, level)
    poisoned = torch.where(mask, x0_hat, torch.full_like(x0_hat, float("nan")))
    given = [x if layout is None else x.movedim(1, -1) for x in (poisoned, x0, mask)]
    reg = SpectralRegularizer(loss, weight=1.0, layout=layout)
    term = reg(given[0], given[1], level, mask=given[2])
    torch.testing.assert_close(term.per_sample, expected.per_sample)
    (gradient,) = torch.autograd.grad(term.loss, x0_hat)
    assert bool((gradient[~mask.expand_as(gradient)] == 0).all())
    assert bool((gradient[mask.expand_as(gradient)] != 0).all())


def test_a_mask_may_be_soft_and_must_fit():
    x0, x0_hat, level = masked_inputs()
    reg = SpectralRegularizer("haar", weight=1.0)
    half = reg(x0_hat, x0, level, mask=torch.full((3, 1, 1, 1), 0.5))
    torch.testing.assert_close(half.per_sample, 0.5 * reg(x0_hat, x0, level).per_sample)
    with pytest.raises(ValueError, match=r"mask must broadcast to the samples, \[3, 2, 8, 8\]; got \[3, 1, 4, 8\]"):
        reg(x0_hat, x0, level, mask=torch.ones(3, 1, 4, 8))


@pytest.mark.parametrize("loss", ["amplitude", "haar", "swt(haar):l1", "dct:log_power", "fft:amse"])
def test_data_with_gaps_are_data_filled_with_what_is_seen(loss):
    """Land in an ocean field: NaN in x0 where the mask is 0."""
    x0, x0_hat, level = masked_inputs()
    mask = torch.ones(3, 2, 8, 8, dtype=torch.bool)
    mask[0, 0, :3], mask[2, :, :, 5:] = False, False
    gaps = torch.where(mask, x0, torch.nan)
    reg = SpectralRegularizer(loss, weight=1.0)
    term = reg(x0_hat, gaps, level, mask=mask)
    mean = gaps.nanmean((2, 3), keepdim=True)
    filled = torch.where(mask, x0, mean)
    expected = reg(torch.where(mask, x0_hat, mean), filled, level)
    torch.testing.assert_close(term.per_sample, expected.per_sample)
    (gradient,) = torch.autograd.grad(term.loss, x0_hat, retain_graph=True)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected.loss, x0_hat)[0])
    assert bool((gradient[~mask] == 0).all() & gradient.isfinite().all())
    exact = torch.equal(term.per_sample, reg(x0_hat, x0, level, mask=mask).per_sample)
    assert exact == reg.spectral_loss.difference_alone  # of these it does not matter what is in the gaps


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_mask_changes_no_precision(dtype):
    """The fill of a gap is a mean over more than float16 can sum, and x0 stays as exact as without a mask."""
    generator = torch.Generator().manual_seed(0)
    x0 = 1 + 0.1 * torch.randn(1, 1, 300, 300, generator=generator, dtype=torch.float64)
    if dtype != torch.float64:
        x0 = x0.float()
    x0_hat = (x0 + 0.01).to(torch.float32 if dtype == torch.float64 else dtype)
    level, reg = NoiseLevel.flow(torch.tensor([0.3])), SpectralRegularizer("haar", weight=1.0)
    plain, seen = reg(x0_hat, x0, level), reg(x0_hat, x0, level, mask=torch.ones(1))
    torch.testing.assert_close(seen.per_sample, plain.per_sample, rtol=0, atol=0)
    mask = torch.ones(300, 300, dtype=torch.bool)
    mask[:, :5] = False
    gaps = torch.where(mask, x0, torch.nan).to(dtype)
    term = SpectralRegularizer("amplitude", weight=1.0)(x0_hat, gaps, level, mask=mask)
    assert bool(term.per_sample.isfinite().all())


def test_a_mask_broadcasts_in_a_layout_too():
    x0, x0_hat, level = masked_inputs()
    mask = (torch.arange(8) < 5).expand(8, 8)
    expected = SpectralRegularizer("haar", weight=1.0)(x0_hat, x0, level, mask=mask)
    reg = SpectralRegularizer("haar", weight=1.0, layout="bhwc")
    term = reg(x0_hat.movedim(1, -1), x0.movedim(1, -1), level, mask=mask[..., None])
    torch.testing.assert_close(term.per_sample, expected.per_sample)
    with pytest.raises(ValueError, match="x0_hat and x0 must have the same shape"):  # which a mask would broadcast
        SpectralRegularizer("haar", weight=1.0)(x0_hat[:, :1], x0, level, mask=mask)


def test_lambda_is_measured_beside_gaps_and_nothing_seen_is_no_error():
    x0, x0_hat, level = masked_inputs()
    mask = torch.ones(3, 1, 8, 8)
    mask[1], mask[0, :, :2] = 0, 0
    gaps = torch.where(mask == 0, torch.nan, x0)
    reg = SpectralRegularizer("dct:amplitude", weight="auto")
    term = reg.from_output(x0_hat, gaps, level, prediction="x0", x0=gaps, mask=mask)
    assert float(term.lam) > 0
    assert float(term.per_sample[1]) == 0
    (gradient,) = torch.autograd.grad(term.loss, x0_hat)
    assert bool(gradient.isfinite().all())


def test_sample_weights_multiply_the_samples_terms():
    x0, x0_hat, level = masked_inputs()
    reg, factors = SpectralRegularizer("amplitude", weight=0.3), torch.tensor([0.0, 1.0, 2.5])
    plain, weighted = reg(x0_hat, x0, level), reg(x0_hat, x0, level, sample_weight=factors)
    torch.testing.assert_close(weighted.weight, plain.weight * factors)
    torch.testing.assert_close(weighted.loss, (plain.weight * factors * plain.per_sample).mean())
    with pytest.raises(ValueError, match=r"sample_weight must be one a sample, \[3\]; got \[3, 1\]"):
        reg(x0_hat, x0, level, sample_weight=factors[:, None])


def test_lambda_beside_a_sum_over_pixels_has_no_bound():
    """EDM's loss sums 3·256² values; the default ratio asks for λ beyond the 1e6 that once held it."""
    x0 = torch.randn(2, 3, 256, 256)
    output = torch.randn(2, 3, 256, 256).requires_grad_()
    base = 50.0 * (output - x0).square().sum((1, 2, 3)).mean()
    reg = SpectralRegularizer("amplitude", weight="auto")
    term = reg(output, x0, NoiseLevel.flow(torch.tensor([0.1, 0.2])), base_loss=base, output=output)
    assert float(term.lam) > 1e6
    assert float(term.gradient_ratio) == pytest.approx(1, rel=1e-3)
    assert int(reg.weight.clamped) == 0


def test_a_lambda_held_at_a_bound_is_counted_and_told():
    _checks._WARNED.discard("clamped λ")
    auto = specreg.AutoWeight(1.0, bounds=(0.0, 2.0))
    with pytest.warns(UserWarning, match=r"holds λ at 2, a bound of \(0.0, 2.0\), where its ratio of 1 asks for 5"):
        auto.update(torch.tensor(5.0), torch.tensor(1.0))
    auto.update(torch.tensor(5.0), torch.tensor(1.0))
    assert int(auto.clamped) == 2


def test_a_term_before_lambda_was_measured_says_that_it_is_nothing():
    _checks._WARNED.discard("unmeasured λ")
    x0, x0_hat, level = masked_inputs()
    reg = SpectralRegularizer("amplitude", weight="auto").eval()
    with pytest.warns(UserWarning, match="has not measured λ yet, so this term is 0"):
        term = reg(x0_hat, x0, level)
    assert float(term.loss) == 0


def test_a_batch_in_parts_is_one_call_of_one_lambda():
    """Parts measured under `held` and stepped by `advance` give λ, its state and the ramp of the whole batch."""
    generator = torch.Generator().manual_seed(0)
    scale = torch.tensor([1.0, 3, 9, 0.1]).view(4, 1, 1, 1)
    x0, output = (scale * torch.randn(4, 1, 8, 8, generator=generator) for _ in "ab")
    output.requires_grad_()
    level = NoiseLevel.edm(torch.tensor([0.1, 0.5, 2.0, 4.0]))
    whole, parts = (SpectralRegularizer("amplitude", weight="auto", warmup=3) for _ in "ab")

    for _ in range(2):
        base = (output - x0).square().mean()
        expected = whole(output, x0, level, base_loss=base, output=output)
        norms = []
        with parts.held():
            for part in (slice(0, 2), slice(2, 4)):
                leaf = output[part].detach().requires_grad_()
                of = NoiseLevel(level.alpha.expand(4)[part], level.sigma[part])
                base = (leaf - x0[part]).square().mean()
                norms.append(parts(leaf, x0[part], of, base_loss=base, output=leaf).norms)
        lam = parts.advance(torch.stack(norms))
        assert float(lam) == pytest.approx(float(expected.lam), rel=1e-6)
        with parts.held():
            assert float(parts(output, x0, level).lam) == pytest.approx(float(expected.lam), rel=1e-6)
        assert int(parts.calls) == int(whole.calls)
    with pytest.raises(TypeError, match="advance needs norms= under AutoWeight"):
        parts.advance()


def test_a_ratio_can_be_written():
    assert specreg.SpectralRegularizer("haar", weight="auto:0.5").weight.ratio == 0.5
    for wrong in ("auto:", "auto:two", "auto:-1"):
        with pytest.raises(ValueError, match=f"auto or auto:RATIO, a positive number; got '{wrong}'"):
            specreg.SpectralRegularizer("haar", weight=wrong)


@pytest.mark.parametrize("given", ["x0", "x_t"])
def test_gradients_run_through_the_output_alone(given):
    output, target, x = (value.clone().requires_grad_() for value in (X0_HAT, X0, X0 + 1))
    reg = specreg.SpectralRegularizer("amplitude", weight=0.3)
    reg.from_output(output, target, LEVEL, prediction="flow", **{given: x}).loss.backward()
    assert output.grad is not None
    assert target.grad is None
    assert x.grad is None


def test_from_output_needs_the_batch_first():
    """Its noise levels go along the first axis."""
    tokens = torch.randn(16, len(X0), 3)
    for reg in (
        specreg.SpectralRegularizer("haar", weight=0.1, layout="lbc"),
        specreg.SpectralRegularizer(specreg.losses.Wavelet("haar", layout="lbc"), weight=0.1),
    ):
        with pytest.raises(ValueError, match="from_output needs the batch first; got layout='lbc'"):
            reg.from_output(tokens, tokens, LEVEL, prediction="flow", x0=tokens)


def test_what_is_no_loss_of_samples_is_refused():
    with pytest.raises(TypeError, match=r"loss must be an instance, .*; got the class Amplitude"):
        specreg.SpectralRegularizer(specreg.losses.Amplitude)
    with pytest.raises(ValueError, match=r"the loss must return one value a sample, \[B\]; got shape \[\]"):
        specreg.SpectralRegularizer(torch.nn.L1Loss(), weight=0.1)(X0_HAT, X0, LEVEL)
