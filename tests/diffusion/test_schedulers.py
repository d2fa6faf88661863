"""Every scheduler that diffusers exports: the level of a timestep and the meaning of the network's output.

The oracle of levels is `add_noise` or `scale_noise` on the pairs (x0, noise) = (1, 0) and (0, 1), each time on a fresh
copy. Where a class looks a timestep up wrongly, and for timesteps that a schedule does not have, it is training's ᾱ.
"""

import copy
import inspect
import math

import diffusers.schedulers
import pytest
import torch

from specreg import NoiseLevel, recover_x0
from specreg.diffusion import schedulers, target

OPTIONS = {"RFD4ProteinaScheduler": {"schedule_mode": "log", "noise_mode": "1/t", "tsr_k": 1.0, "tsr_sigma": 1.0}}
CLASSES = sorted(name for name in dir(diffusers.schedulers) if name.endswith("Scheduler"))
KNOWN = [name for name in CLASSES if name in schedulers._FAMILIES]
REFUSED = [name for name in CLASSES if name in schedulers._REFUSED]
WITH_TABLE = [
    name for name in KNOWN if schedulers._FAMILIES[name].level in (schedulers._vp_level, schedulers._ve_level)
]
NO_NOISE = [
    "DDIMInverseScheduler", "IPNDMScheduler", "LTXEulerAncestralRFScheduler", "PiflowScheduler", "RePaintScheduler",
]  # fmt: skip
"""Classes that cannot add noise."""
UNIT_TIME = ["DDPMWuerstchenScheduler", "MiniMaxH3Scheduler", "RFD4ProteinaScheduler"]
"""Classes that add noise at any time in [0, 1]."""
BACK_TO_FRONT = [
    "DEISMultistepScheduler", "DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler", "UniPCMultistepScheduler",
]  # fmt: skip
"""Classes whose fresh `sigmas` rise while `timesteps` fall, so that `add_noise` at t adds the noise of 999 − t."""
MIDPOINTS = ["DPMSolverSDEScheduler", "KDPM2DiscreteScheduler"]
"""Classes whose `step` knows midpoints of its schedule, at which `add_noise` adds the noise of the next whole step."""

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # diffusers with NumPy 2

both = pytest.mark.parametrize("after_set_timesteps", [False, True], ids=["fresh", "set_timesteps"])


@pytest.fixture(autouse=True)
def _same_numbers_every_run():
    torch.manual_seed(0)


def build(name, after_set_timesteps=False, **options):
    """Return a scheduler, or skip where diffusers lacks a package that the class needs."""
    try:
        scheduler = getattr(diffusers.schedulers, name)(**OPTIONS.get(name, {}), **options)
    except ImportError as error:
        pytest.skip(str(error).strip())
    if after_set_timesteps and hasattr(scheduler, "set_timesteps"):
        scheduler.set_timesteps(20)
    return scheduler


def noised(scheduler, t):
    """Return the scales of data and noise that a copy of the scheduler gives the timestep `t` `[]`."""
    t = t.long() if hasattr(scheduler, "alphas_cumprod") and t == t.round() else t
    scales = []
    for x0, noise in torch.tensor([[1.0, 0.0], [0.0, 1.0]])[..., None, None, None]:
        fresh = copy.deepcopy(scheduler)
        if hasattr(fresh, "add_noise"):
            scales.append(fresh.add_noise(x0, noise, t.reshape(1)).item())
        else:
            scales.append(fresh.scale_noise(x0, t.reshape(1), noise).item())
    return scales


def unchanged(before, after):
    """Return whether two states of a scheduler are the same, tensors by value."""
    assert before.keys() == after.keys()
    return all(
        a.dtype == b.dtype and torch.equal(a.nan_to_num(), b.nan_to_num())
        if isinstance(a, torch.Tensor)
        else repr(a) == repr(b)
        for a, b in ((before[key], after[key]) for key in before)
    )


def test_every_class_of_diffusers_is_known_or_refused():
    unseen = [name for name in CLASSES if name not in KNOWN and name not in REFUSED]
    assert not unseen, f"specreg.diffusion.schedulers has to say what these classes of diffusers do: {unseen}"
    assert len(KNOWN) >= 35


@pytest.mark.parametrize("name", REFUSED)
def test_a_scheduler_without_a_level_is_refused_in_one_sentence(name):
    scheduler, x, level = object.__new__(type(name, (), {})), torch.ones(1, 2), NoiseLevel.edm(torch.ones(1))
    sentence = f"^{name}'s timestep does not say which noise level it has: [^\n]+$"
    with pytest.raises(TypeError, match=sentence):
        NoiseLevel.from_diffusers(scheduler, torch.tensor([1]))
    with pytest.raises(TypeError, match=sentence):
        recover_x0(x, x, level, prediction=scheduler)


@both
@pytest.mark.parametrize("name", WITH_TABLE)
def test_the_level_of_training_at_every_training_timestep(name, after_set_timesteps):
    scheduler = build(name, after_set_timesteps)
    alpha_bar = scheduler.alphas_cumprod.double()
    level = NoiseLevel.from_diffusers(scheduler, torch.arange(len(alpha_bar)))
    torch.testing.assert_close(level.snr.double(), alpha_bar / (1 - alpha_bar), rtol=1e-3, atol=0)
    # Variance preserving or exploding: as the class itself adds noise, where it can.
    exploding = name not in NO_NOISE and noised(build(name), torch.tensor(500))[0] == 1
    expected = torch.ones_like(alpha_bar) if exploding else alpha_bar.sqrt()
    torch.testing.assert_close(level.alpha.double(), expected, rtol=1e-5, atol=1e-6)


@both
@pytest.mark.parametrize("name", [name for name in KNOWN if name not in NO_NOISE])
def test_the_level_is_what_the_scheduler_adds_at_its_own_timesteps(name, after_set_timesteps):
    scheduler = build(name, after_set_timesteps)
    own = torch.linspace(0.05, 0.95, 9) if name in UNIT_TIME else scheduler.timesteps
    own = torch.linspace(0, 999, 10).round() if own is None else own  # PNDM, fresh
    if not after_set_timesteps and name in BACK_TO_FRONT:
        own = 999 - own.flip(0)  # the oracle of t is read at 999 − t
    level = NoiseLevel.from_diffusers(scheduler, own)
    assert len(level) == len(own)
    for k in range(0, len(own), max(1, len(own) // 20)):
        t = 999 - own[k] if not after_set_timesteps and name in BACK_TO_FRONT else own[k]
        if name in MIDPOINTS and k % 2 == 1:
            continue
        torch.testing.assert_close((level.alpha[k].item(), level.sigma[k].item()), tuple(noised(scheduler, t)),
                                   rtol=1e-4, atol=1e-6)  # fmt: skip


def test_midpoints_have_the_sigma_that_kdpm2_steps_with():
    scheduler = build("KDPM2DiscreteScheduler", True)
    level = NoiseLevel.from_diffusers(scheduler, scheduler.timesteps[1::2])
    torch.testing.assert_close(level.sigma, scheduler.sigmas_interpol[1:-3:2], rtol=1e-3, atol=0)
    torch.testing.assert_close(level.alpha, torch.ones(19))


@both
@pytest.mark.parametrize("name", KNOWN)
def test_asking_changes_nothing_and_neither_does_the_order_or_a_pipeline(name, after_set_timesteps):
    scheduler = build(name, after_set_timesteps)
    unit = name in [*UNIT_TIME, "IPNDMScheduler", "CosineDPMSolverMultistepScheduler"]
    t = torch.tensor([0.9, 0.3, 0.9, 0.7]) if unit else torch.tensor([1, 0, 1, 1])
    t = 30 * t if name in WITH_TABLE else t
    before = copy.deepcopy(vars(scheduler))
    together = NoiseLevel.from_diffusers(scheduler, t)
    each = [NoiseLevel.from_diffusers(scheduler, one) for one in t.flip(0)][::-1]
    assert torch.cat([level.alpha for level in each]).tolist() == together.alpha.tolist()
    assert torch.cat([level.sigma for level in each]).tolist() == together.sigma.tolist()
    assert unchanged(before, vars(scheduler))
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(2)
        assert NoiseLevel.from_diffusers(scheduler, t).sigma.tolist() == together.sigma.tolist()


def test_the_reports_numbers():
    t = torch.tensor([7, 333, 777])
    for name in BACK_TO_FRONT:
        levels = [NoiseLevel.from_diffusers(build(name, after), t) for after in (False, True)]
        assert levels[0].sigma.tolist() == levels[1].sigma.tolist()
        assert len(set(levels[0].sigma.tolist())) == 3
        assert NoiseLevel.from_diffusers(build(name), torch.tensor(10)).alpha.item() == pytest.approx(0.99885, abs=1e-4)
    heun = build("FlowMatchHeunDiscreteScheduler")
    assert NoiseLevel.from_diffusers(heun, torch.tensor([900, 100])).sigma.tolist() == pytest.approx([0.9, 0.1])
    assert heun.step_index is None


@pytest.mark.parametrize("name", [name for name in KNOWN if name not in UNIT_TIME])
def test_timesteps_outside_those_of_training_are_refused(name):
    scheduler = build(name)
    signed = schedulers._FAMILIES[name].preconditioned and "Cosine" not in name  # their time is a logarithm
    for value in (-5000.0 if signed else -1.0, 5000.0, math.nan, -math.inf):
        with pytest.raises(ValueError, match=rf"timesteps of this {name} are .* from .* to .*; got {value:g}$"):
            NoiseLevel.from_diffusers(scheduler, torch.tensor([value]))


@pytest.mark.parametrize("name", WITH_TABLE)
def test_whole_timesteps_of_any_dtype_are_accepted_and_others_only_where_the_schedule_has_them(name):
    scheduler = build(name)
    whole = NoiseLevel.from_diffusers(scheduler, torch.tensor([500]))
    for dtype in (torch.int32, torch.float32, torch.float64):
        assert NoiseLevel.from_diffusers(scheduler, torch.tensor([500], dtype=dtype)).sigma == whole.sigma
    if schedulers._FAMILIES[name].level is schedulers._vp_level:
        with pytest.raises(ValueError, match=f"timesteps of this {name} are whole numbers from 0 to 999; got 500.5$"):
            NoiseLevel.from_diffusers(scheduler, torch.tensor([500.5]))
    else:
        low, between, high = NoiseLevel.from_diffusers(scheduler, torch.tensor([0, 0.5, 1])).sigma.tolist()
        assert between == pytest.approx((low + high) / 2, rel=1e-5)


@pytest.mark.parametrize("spacing", ["use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas"])
@pytest.mark.parametrize("name", ["EulerDiscreteScheduler", "LMSDiscreteScheduler", "KDPM2AncestralDiscreteScheduler"])
def test_schedules_spaced_in_sigma(name, spacing):
    scheduler = build(name, True, **{spacing: True})
    steps = slice(None, None, 2 if "KDPM2" in name else 1)
    own = scheduler.timesteps[steps]
    sigmas = torch.tensor([noised(scheduler, t)[1] for t in own])
    # KDPM2 rounds Karras' timesteps, by which sigma moves at most half a timestep.
    tolerance = 0.2 if "KDPM2" in name and "karras" in spacing else 1e-3
    torch.testing.assert_close(NoiseLevel.from_diffusers(scheduler, own).sigma, sigmas, rtol=tolerance, atol=0)
    low, between, high = NoiseLevel.from_diffusers(scheduler, torch.tensor([0, 0.5, 1])).sigma.tolist()
    assert between == pytest.approx(math.sqrt(low * high), rel=1e-5)


def test_log_sigma_as_the_time_of_euler():
    """As stable video diffusion is configured."""
    scheduler = build("EulerDiscreteScheduler", True, prediction_type="v_prediction", timestep_type="continuous",
                      use_karras_sigmas=True, sigma_min=0.002, sigma_max=700.0)  # fmt: skip
    level = NoiseLevel.from_diffusers(scheduler, scheduler.timesteps)
    torch.testing.assert_close(level.sigma, scheduler.sigmas[:-1], rtol=1e-4, atol=0)
    with pytest.raises(ValueError, match=r"are 0.25·ln\(sigma\) from -1.55\d* to 1.63\d*; got 500$"):
        NoiseLevel.from_diffusers(scheduler, torch.tensor([500]))


@pytest.mark.parametrize("after_set_timesteps", [False, True])
@pytest.mark.parametrize("name", [*BACK_TO_FRONT, "DPMSolverMultistepInverseScheduler", "SASolverScheduler"])
def test_flow_sigmas_of_the_multistep_solvers(name, after_set_timesteps):
    scheduler = build(
        name, after_set_timesteps, use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=3.0
    )
    level = NoiseLevel.from_diffusers(scheduler, torch.tensor([947.5, 100.0]))
    assert level.sigma.tolist() == pytest.approx([0.9475, 0.1])
    assert level.alpha.tolist() == pytest.approx([0.0525, 0.9])
    if after_set_timesteps and "Inverse" not in name:  # they keep whole timesteps of sigmas that lie between
        own = NoiseLevel.from_diffusers(scheduler, scheduler.timesteps).sigma
        assert float((own - scheduler.sigmas[:-1]).abs().max()) < 1.01e-3


def test_shifts_change_which_times_are_visited_and_not_what_one_means():
    for options in (
        {"shift": 3.0},
        {"use_dynamic_shifting": True},
        {"shift_terminal": 0.1},
        {"use_karras_sigmas": True},
    ):
        scheduler = build("FlowMatchEulerDiscreteScheduler", **options)
        level = NoiseLevel.from_diffusers(scheduler, torch.tensor([500]))
        assert (level.alpha.item(), level.sigma.item()) == (0.5, 0.5)
        scheduler.set_timesteps(20, mu=0.7)
        own = NoiseLevel.from_diffusers(scheduler, scheduler.timesteps)
        torch.testing.assert_close(own.sigma, scheduler.sigmas[:-1])
        assert NoiseLevel.from_diffusers(scheduler, torch.tensor([500])).sigma.item() == 0.5
    with pytest.raises(ValueError, match=r"invert_sigmas=True; pass NoiseLevel\.flow"):
        NoiseLevel.from_diffusers(build("FlowMatchEulerDiscreteScheduler", invert_sigmas=True), torch.tensor([500]))


def test_classes_that_cannot_add_noise():
    t = torch.tensor([1000.0, 250.0])
    for name in ("LTXEulerAncestralRFScheduler", "PiflowScheduler"):
        assert NoiseLevel.from_diffusers(build(name), t).sigma.tolist() == [1, 0.25]
    scheduler = build("IPNDMScheduler", True)
    level = NoiseLevel.from_diffusers(scheduler, scheduler.timesteps)
    torch.testing.assert_close(level.alpha, scheduler.alphas[:-1], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(level.sigma, scheduler.betas[:-1], rtol=1e-4, atol=1e-6)


def test_classes_that_inherit_are_their_parents():
    class Mine(diffusers.DPMSolverMultistepScheduler):
        pass

    t = torch.tensor([7, 333])
    theirs = NoiseLevel.from_diffusers(diffusers.DPMSolverMultistepScheduler(), t)
    assert NoiseLevel.from_diffusers(Mine(), t).sigma.tolist() == theirs.sigma.tolist()


def test_refusals():
    scheduler = diffusers.DDPMScheduler()
    with pytest.raises(TypeError, match=r"diffusers' schedulers for Gaussian noise, got object; .* by name$"):
        NoiseLevel.from_diffusers(object(), torch.tensor([1]))
    with pytest.raises(TypeError, match=r"timesteps must be a torch.Tensor of shape \[B\]; got int"):
        NoiseLevel.from_diffusers(scheduler, 5)
    with pytest.raises(ValueError, match=r"one value per sample, shape \[B\]; got \[2, 1\]"):
        NoiseLevel.from_diffusers(scheduler, torch.tensor([[1], [2]]))
    for dtype in (torch.bfloat16, torch.float16, torch.bool):
        with pytest.raises(TypeError, match=f"integers, float32 or float64 .*; got {dtype}"):
            NoiseLevel.from_diffusers(scheduler, torch.tensor([1], dtype=dtype))
    with pytest.raises(ValueError, match=r"got -1, -2, -3, -4, -5, …$"):
        NoiseLevel.from_diffusers(scheduler, -torch.arange(1, 20))


def test_unchecked_values_become_nan_and_not_another_level(monkeypatch):
    monkeypatch.setattr(schedulers, "can_read", lambda values: False)  # as on an accelerator
    monkeypatch.setattr("specreg.diffusion.noise_level.can_read", lambda values: False)
    for name in ("DDPMScheduler", "EulerDiscreteScheduler", "EDMEulerScheduler", "FlowMatchEulerDiscreteScheduler"):
        level = NoiseLevel.from_diffusers(build(name), torch.tensor([-2, 1, 5000]))
        assert level.sigma.isfinite().tolist() == [False, True, False]


def test_compiles_without_a_graph_break():
    scheduler = build("EDMEulerScheduler")

    @torch.compile(fullgraph=True, backend="eager")
    def step(t, x_t, output):
        return recover_x0(output, x_t, NoiseLevel.from_diffusers(scheduler, t), prediction=scheduler)

    x_t, output = torch.randn(2, 2, 5)
    expected = recover_x0(output, x_t, NoiseLevel.edm(torch.tensor([1.0, math.e])), prediction="edm")
    torch.testing.assert_close(step(torch.tensor([0.0, 0.25]), x_t, output), expected)


# What the network returns


def step_x0(scheduler, output, t, x_t):
    """Return the x0_hat of the scheduler's own step."""
    if hasattr(scheduler, "convert_model_output"):  # solvers
        scheduler._init_step_index(t)
        return scheduler.convert_model_output(output, sample=x_t)
    scheduler.is_scale_input_called = True
    return scheduler.step(output, t, x_t).pred_original_sample


SOLVERS = [
    "DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler", "UniPCMultistepScheduler",
    "DPMSolverMultistepInverseScheduler", "SASolverScheduler",
]  # fmt: skip
STEPS = [
    "CogVideoXDDIMScheduler", "DDIMParallelScheduler", "DDIMScheduler", "DDPMParallelScheduler", "DDPMScheduler",
    "EulerAncestralDiscreteScheduler", "EulerDiscreteScheduler", "LMSDiscreteScheduler", "UnCLIPScheduler",
]  # fmt: skip


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("name", [*SOLVERS, *STEPS])
def test_the_scheduler_as_prediction_gives_the_x0_of_its_step(name, prediction_type):
    if (name, prediction_type) == ("UnCLIPScheduler", "v_prediction"):
        pytest.skip("a class without v_prediction")
    if prediction_type == "sample" and name in ("EulerAncestralDiscreteScheduler", "LMSDiscreteScheduler"):
        pytest.skip("not implemented in diffusers")
    takes = inspect.signature(getattr(diffusers.schedulers, name)).parameters
    clip = {"clip_sample": False} if "clip_sample" in takes else {}
    scheduler = build(name, True, prediction_type=prediction_type, **clip)
    x_t, output = torch.randn(2, 1, 3, 4, 4)
    for index in (1, 10, 18):
        fresh = copy.deepcopy(scheduler)
        t = fresh.timesteps[index]
        level = NoiseLevel.from_diffusers(fresh, t)
        ours = recover_x0(output, x_t, level, prediction=fresh)
        torch.testing.assert_close(ours, step_x0(fresh, output, t, x_t).float(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("name", ["EDMEulerScheduler", "EDMDPMSolverMultistepScheduler",
                                  "CosineDPMSolverMultistepScheduler"])  # fmt: skip
def test_edm_schedulers_mean_the_preconditioned_network(name, prediction_type):
    scheduler = build(name, True, prediction_type=prediction_type, sigma_data=0.4)
    x_t, output = torch.randn(2, 20, 3, 4, 4)
    level = NoiseLevel.from_diffusers(scheduler, scheduler.timesteps)
    sigma = scheduler.sigmas[:-1, None, None, None]
    theirs = scheduler.precondition_outputs(x_t, output, sigma)
    torch.testing.assert_close(recover_x0(output, x_t, level, prediction=scheduler), theirs, rtol=1e-3, atol=1e-4)
    # The target is the output that gives back x0.
    perfect = target(x_t, output, level, prediction=scheduler)
    x0_hat = recover_x0(perfect, level.diffuse(x_t, output), level, prediction=scheduler)
    torch.testing.assert_close(x0_hat, x_t, rtol=1e-3, atol=1e-3)
    for by_name in ("epsilon", "v_prediction", "v"):
        for function in (recover_x0, target):
            with pytest.raises(ValueError, match=f"a {name} returns .* expected prediction=scheduler, got '{by_name}'"):
                function(output, x_t, level.to("cpu"), prediction=by_name)
    assert "preconditioned" not in repr(level)
    raw = recover_x0(output, x_t, NoiseLevel.edm(level.sigma), prediction="epsilon")  # a network of one's own
    torch.testing.assert_close(raw, x_t - sigma * output, rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("name", ["FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler",
                                  "FlowMatchLCMScheduler", "LTXEulerAncestralRFScheduler"])  # fmt: skip
def test_flow_schedulers_as_prediction(name):
    scheduler = build(name)
    if name == "FlowMatchHeunDiscreteScheduler":
        scheduler.set_timesteps(1)
    else:
        scheduler.set_timesteps(sigmas=[0.7] if "LTX" not in name else [0.7, 0.0])
    x_t, output = torch.randn(2, 1, 3, 4, 4)
    t = scheduler.timesteps[0]
    ours = recover_x0(output, x_t, NoiseLevel.from_diffusers(scheduler, t), prediction=scheduler)
    theirs = scheduler.step(output, t, x_t).prev_sample  # the next sigma is 0: one step lands on x0_hat
    torch.testing.assert_close(ours, theirs)


def test_other_outputs():
    x_t, output = torch.randn(2, 1, 3, 4)
    for name in ("MiniMaxH3Scheduler", "RFD4ProteinaScheduler"):  # their velocity is x0 − noise
        scheduler = build(name)
        level = NoiseLevel.from_diffusers(scheduler, torch.tensor([0.3]))
        ours = recover_x0(output, x_t, level, prediction=scheduler)
        torch.testing.assert_close(ours, x_t + 0.7 * output)
    scheduler = build("UniPCMultistepScheduler", True, use_flow_sigmas=True, prediction_type="flow_prediction")
    level = NoiseLevel.from_diffusers(scheduler, torch.tensor([700]))
    torch.testing.assert_close(recover_x0(output, x_t, level, prediction=scheduler), x_t - 0.7 * output)


def test_predictions_that_are_not_known_are_refused():
    x, level = torch.ones(1, 2), NoiseLevel.edm(torch.ones(1))
    for name, words in (
        ("CMStochasticIterativeScheduler", "get_scalings_for_boundary_condition"),
        ("FlowMapEulerDiscreteScheduler", 'prediction="flow"'),
        ("PiflowScheduler", "policy"),
    ):
        with pytest.raises(TypeError, match=f"^prediction={name} does not say what x0_hat is: [^\n]*{words}"):
            recover_x0(x, x, level, prediction=build(name))
    for name, options in (
        ("UniPCMultistepScheduler", {"prediction_type": "flow_prediction"}),
        ("UniPCMultistepScheduler", {"prediction_type": "v_prediction", "use_flow_sigmas": True}),
        ("EDMEulerScheduler", {"prediction_type": "sample"}),
    ):
        with pytest.raises(ValueError, match=f"prediction_type of this {name} must be one of .*; got '"):
            recover_x0(x, x, level, prediction=build(name, **options))
    with pytest.raises(TypeError, match="got NoneType"):
        recover_x0(x, x, level, prediction=None)
