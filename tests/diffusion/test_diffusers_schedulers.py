"""Levels and predictions of every scheduler class that the installed diffusers has, against what the scheduler does."""

import copy
import importlib
import inspect
import pkgutil
import warnings

import diffusers
import diffusers.schedulers
import pytest
import torch
from diffusers.schedulers.scheduling_utils import SchedulerMixin

from specreg import NoiseLevel, _checks, recover_x0
from specreg.diffusion.diffusers_schedulers import family, prediction_of, scales


def classes():
    """Every scheduler class whose module can be imported here, by name."""
    found = {}
    for module in pkgutil.iter_modules(diffusers.schedulers.__path__):
        try:
            members = vars(importlib.import_module(f"diffusers.schedulers.{module.name}"))
        except ImportError:  # an optional dependency is missing
            continue
        found |= {
            name: value
            for name, value in members.items()
            if inspect.isclass(value) and issubclass(value, SchedulerMixin) and value.__module__.endswith(module.name)
        }
    del found["SchedulerMixin"]
    return found


CLASSES = classes()
FAMILIES = {
    "vp": {
        "CogVideoXDDIMScheduler", "CogVideoXDPMScheduler", "DDIMParallelScheduler", "DDIMScheduler",
        "DDPMParallelScheduler", "DDPMScheduler", "DEISMultistepScheduler", "DPMSolverMultistepInverseScheduler",
        "DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler", "LCMScheduler", "PNDMScheduler",
        "SASolverScheduler", "TCDScheduler", "UnCLIPScheduler", "UniPCMultistepScheduler",
    },
    "ve": {
        "EulerAncestralDiscreteScheduler", "EulerDiscreteScheduler", "HeunDiscreteScheduler",
        "KDPM2AncestralDiscreteScheduler", "KDPM2DiscreteScheduler", "LMSDiscreteScheduler", "DPMSolverSDEScheduler",
    },
    "flow": {
        "FlowMapEulerDiscreteScheduler", "FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler",
        "FlowMatchLCMScheduler",
    },
    "edm": {"EDMDPMSolverMultistepScheduler", "EDMEulerScheduler"},
    "cm": {"CMStochasticIterativeScheduler"},
    "direct": {"DDPMWuerstchenScheduler"},
}  # fmt: skip
FAMILY = {name: family for family, names in FAMILIES.items() for name in names}
REFUSED = {
    "AmusedScheduler", "BlockRefinementScheduler", "ConsistencyDecoderScheduler", "CosineDPMSolverMultistepScheduler",
    "DDIMInverseScheduler", "DiscreteDDIMScheduler", "EntropyBoundScheduler", "HeliosDMDScheduler", "HeliosScheduler",
    "IPNDMScheduler", "KarrasVeScheduler", "LTXEulerAncestralRFScheduler", "MiniMaxH3Scheduler", "PiflowScheduler",
    "RePaintScheduler", "RFD4ProteinaScheduler", "SCMScheduler", "ScoreSdeVeScheduler", "ScoreSdeVpScheduler",
    "VQDiffusionScheduler",
}  # fmt: skip
"""No add_noise, tokens instead of numbers, or a table that no formula here fits."""


def build(name, **options):
    if name == "AmusedScheduler":
        options["mask_token_id"] = 1
    if name == "VQDiffusionScheduler":
        options["num_vec_classes"] = 4
    if name == "RFD4ProteinaScheduler":
        options |= {"schedule_mode": "log", "noise_mode": "tan", "tsr_k": 1.0, "tsr_sigma": 1.0}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return CLASSES[name](**options)


def done_by(scheduler, timesteps):
    """alpha and sigma as the scheduler itself applies them, one timestep at a time on copies of it."""
    rows = []
    one, zero = torch.ones(1, 1, 1, 1), torch.zeros(1, 1, 1, 1)
    for t in timesteps.split(1):
        pair = []
        for x0, eps in ((one, zero), (zero, one)):
            twin = copy.deepcopy(scheduler)
            noised = twin.add_noise(x0, eps, t) if hasattr(twin, "add_noise") else twin.scale_noise(x0, t, eps)
            pair.append(float(noised))
        rows.append(pair)
    return torch.tensor(rows).unbind(1)


def agree(found, expected):
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours.float(), theirs, rtol=2e-4, atol=2e-6)


def levels(scheduler, timesteps):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        level = NoiseLevel.from_diffusers(scheduler, timesteps)
    return level.alpha, level.sigma


def test_every_class_is_in_one_of_the_lists():
    """A class that a new diffusers brings is seen here: put it where it belongs."""
    assert set(CLASSES) <= set(FAMILY) | REFUSED


@pytest.mark.parametrize("name", sorted(set(CLASSES) & set(FAMILY)))
def test_families(name):
    assert family(build(name)) == FAMILY[name]


@pytest.mark.parametrize("name", sorted(set(CLASSES) & REFUSED))
@pytest.mark.parametrize("fresh", [True, False])
def test_other_classes_are_refused_in_a_sentence(name, fresh):
    scheduler = build(name)
    if not fresh:
        try:
            scheduler.set_timesteps(5)
        except (AttributeError, KeyError, TypeError, ValueError):  # takes other arguments
            pytest.skip("set_timesteps(5) is not for this class")
    with pytest.raises((TypeError, ValueError), match=r"expected a (diffusers )?scheduler (with|of)"):
        scales(scheduler, torch.tensor([1]))


@pytest.mark.parametrize("name", sorted(set(CLASSES) & set(FAMILY) - FAMILIES["direct"]))
def test_after_set_timesteps_levels_are_those_that_the_scheduler_applies(name):
    scheduler = build(name)
    scheduler.set_timesteps(20)
    own = scheduler.timesteps.unique()
    agree(levels(scheduler, own), done_by(scheduler, own))


@pytest.mark.parametrize("option", ["use_karras_sigmas", "use_exponential_sigmas", "use_lu_lambdas", "use_beta_sigmas"])
@pytest.mark.parametrize("name", sorted(set(CLASSES) & (FAMILIES["vp"] | FAMILIES["ve"])))
def test_options_of_sampling_do_not_change_the_levels_of_training(name, option):
    if option not in inspect.signature(CLASSES[name].__init__).parameters:
        pytest.skip(f"{name} has no {option}")
    t = torch.tensor([3, 500, 999])
    agree(levels(build(name, **{option: True}), t), [x.float() for x in levels(build(name), t)])


@pytest.mark.parametrize("name", sorted(set(CLASSES) & (FAMILIES["vp"] | FAMILIES["ve"])))
def test_levels_of_the_whole_range_are_those_of_the_training_table(name):
    """Fresh, after set_timesteps, and after a pipeline's set_begin_index: 1,000 timesteps, in any order and dtype."""
    scheduler = build(name)
    t = torch.arange(1000).flip(0)
    alpha_bar = scheduler.alphas_cumprod[t]
    expected = (
        (alpha_bar.sqrt(), (1 - alpha_bar).sqrt())
        if name in FAMILIES["vp"]
        else (torch.ones(1000), ((1 - alpha_bar) / alpha_bar).sqrt())
    )
    expected = [values.float() for values in expected]
    agree(levels(scheduler, t), expected)
    scheduler.set_timesteps(20)
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(0)
    agree(levels(scheduler, t.float()), expected)


@pytest.mark.parametrize(
    "name",
    # The inverse solver's own list is up to 1% beside the table of ᾱ when all timesteps are set.
    sorted(set(CLASSES) & set(FAMILY) - FAMILIES["direct"] - {"DPMSolverMultistepInverseScheduler"}),
)
def test_with_all_timesteps_set_the_scheduler_agrees_over_the_whole_range(name):
    """Schedulers whose table runs back to front when fresh have it right once all timesteps are set."""
    scheduler = build(name)
    count = {"edm": 50, "cm": 40}.get(FAMILY[name], 50 if name in ("LCMScheduler", "TCDScheduler") else 1000)
    scheduler.set_timesteps(count)
    own = scheduler.timesteps.unique()[:: max(1, count // 50)]
    agree(levels(scheduler, own), done_by(scheduler, own))


@pytest.mark.parametrize("name", sorted(set(CLASSES) & set(FAMILY)))
def test_asking_changes_nothing(name):
    scheduler = build(name)
    scheduler.set_timesteps(20)
    before = copy.deepcopy(vars(scheduler))
    own = scheduler.timesteps if name not in FAMILIES["direct"] else torch.tensor([0.2, 0.7])
    levels(scheduler, own.unique()[:3])
    after = vars(scheduler)
    assert before.keys() == after.keys()
    for key, value in before.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value.nan_to_num(), after[key].nan_to_num()), key
        elif isinstance(value, (int, float, str, type(None))):
            assert value == after[key], key


@pytest.mark.parametrize("name", sorted(set(CLASSES) & {"DPMSolverMultistepScheduler", "UniPCMultistepScheduler"}))
def test_schedulers_of_a_flow_know_it(name):
    scheduler = build(name, use_flow_sigmas=True, flow_shift=3.0, prediction_type="flow_prediction")
    scheduler.set_timesteps(20)
    found, expected = levels(scheduler, scheduler.timesteps)[1], done_by(scheduler, scheduler.timesteps)[1]
    assert float((found - expected).abs().max()) < 1e-3 + 1e-6  # the scheduler rounds its timesteps down
    assert prediction_of(scheduler).prediction == "flow"


def test_the_issue_s_numbers():
    fresh = build("DPMSolverMultistepScheduler")
    assert levels(fresh, torch.tensor([10]))[0].item() == pytest.approx(fresh.alphas_cumprod[10].sqrt().item())
    fresh.set_timesteps(20)
    sigma = levels(fresh, torch.tensor([7, 333, 777]))[1]
    assert sigma.tolist() == pytest.approx((1 - fresh.alphas_cumprod[[7, 333, 777]]).sqrt().tolist())
    heun = build("FlowMatchHeunDiscreteScheduler")
    heun.set_timesteps(20)
    assert levels(heun, torch.tensor([900.0, 100.0]))[1].tolist() == pytest.approx([0.9, 0.1])
    assert heun.step_index is None


def test_wuerstchen_s_ratio_is_a_time():
    scheduler, t = build("DDPMWuerstchenScheduler"), torch.tensor([0.05, 0.5, 0.9])
    agree(levels(scheduler, t), done_by(scheduler, t))


@pytest.mark.parametrize("name", ["DDPMScheduler", "EulerDiscreteScheduler", "DPMSolverMultistepScheduler"])
@pytest.mark.parametrize("t", [-1, 1000, -1.0, 1000.0, 3.5, float("nan"), float("inf")])
def test_timesteps_out_of_range_are_refused(name, t):
    with pytest.raises(ValueError, match=rf"^{name}: expected .*timesteps.* got \["):
        NoiseLevel.from_diffusers(build(name), torch.tensor([5, t]))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_timesteps_in_half_precision_are_refused(dtype):
    """A trainer that casts its batch makes 776 of 777."""
    with pytest.raises(TypeError, match="expected timesteps as integers, float32 or float64"):
        NoiseLevel.from_diffusers(build("DDPMScheduler"), torch.tensor([777.0]).to(dtype))


@pytest.mark.parametrize("t", [-1.0, 1000.5, float("nan")])
def test_times_out_of_a_flow_s_range_are_refused(t):
    with pytest.raises(ValueError, match=r"^FlowMatchEulerDiscreteScheduler: expected .*timesteps.* got \["):
        NoiseLevel.from_diffusers(build("FlowMatchEulerDiscreteScheduler"), torch.tensor([t]))


@pytest.mark.parametrize("name", ["EDMEulerScheduler", "EDMDPMSolverMultistepScheduler"])
def test_edm_s_v_is_the_preconditioned_network_with_the_other_sign(name):
    scheduler, sigma = build(name, sigma_data=0.7, prediction_type="v_prediction"), torch.tensor([0.05, 1.0, 60.0])
    output, x_t = torch.randn(3, 2, 4, 4), torch.randn(3, 2, 4, 4)
    found = recover_x0(output, x_t, NoiseLevel.from_diffusers(scheduler, 0.25 * sigma.log()), prediction=scheduler)
    for i in range(3):
        expected = scheduler.precondition_outputs(x_t[i], output[i], sigma[i])
        torch.testing.assert_close(found[i], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["EDMEulerScheduler", "EDMDPMSolverMultistepScheduler"])
def test_edm_s_epsilon_is_the_preconditioned_network(name):
    """The scheduler's own preconditioning of the output is the oracle; by the name "epsilon" x0_hat is far off."""
    scheduler = build(name, sigma_data=0.7)
    sigma = torch.tensor([0.05, 1.0, 60.0])
    t, output, x_t = 0.25 * sigma.log(), torch.randn(3, 2, 4, 4), torch.randn(3, 2, 4, 4)
    _checks._WARNED.discard(f"epsilon of {name}")
    with pytest.warns(UserWarning, match="pass prediction=scheduler to recover_x0") as told:
        level = NoiseLevel.from_diffusers(scheduler, t)
    assert len(told) == 1
    found = recover_x0(output, x_t, level, prediction=scheduler)
    for i in range(3):
        expected = scheduler.precondition_outputs(x_t[i], output[i], sigma[i])
        torch.testing.assert_close(found[i], expected, rtol=1e-4, atol=1e-5)
    wrong = recover_x0(output, x_t, level, prediction="epsilon")
    assert float((wrong - found).abs().max()) > 10


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("name", ["DDIMScheduler", "EulerDiscreteScheduler"])
def test_a_scheduler_says_what_its_network_predicts(name, prediction):
    """One step of the scheduler from x_t is the oracle: it returns the x0_hat that it has computed."""
    if name == "EulerDiscreteScheduler" and prediction == "sample":
        pytest.skip("Euler does not implement it")
    scheduler = build(name, prediction_type=prediction, **({"clip_sample": False} if name == "DDIMScheduler" else {}))
    scheduler.set_timesteps(20)
    t = scheduler.timesteps[7]
    output, x_t = torch.randn(1, 2, 4, 4), torch.randn(1, 2, 4, 4)
    expected = scheduler.step(output, t, x_t).pred_original_sample
    found = recover_x0(output, x_t, NoiseLevel.from_diffusers(scheduler, t), prediction=scheduler)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_predictions_that_no_name_here_means_are_refused():
    with pytest.raises(ValueError, match="CMStochasticIterativeScheduler: its networks"):
        prediction_of(build("CMStochasticIterativeScheduler"))
