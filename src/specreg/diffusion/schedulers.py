"""What a diffusers scheduler says of a timestep: the noise level of training, and what the network returns there.

Both are computed from the table and the config that the scheduler was built with. `add_noise` and `scale_noise` are
not called: they look a timestep up in the schedule of the next sampling run. Where it is not there, some classes take
the last entry; some count fresh schedules back to front, and some keep the step in the scheduler. Here nothing in the
scheduler changes, and what set_timesteps or a pipeline did to it makes no difference.

A family is the classes that read a timestep in the same way. A class that is in no family is refused, because a guess
would be wrong in silence; `tests/diffusion/test_schedulers.py` compares every class that diffusers has.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from specreg._checks import can_read


class NetworkOutput(NamedTuple):
    """The network returns `sign` times what `prediction` names; `sigma_data` is for "edm"."""

    prediction: str
    sign: int = 1
    sigma_data: float = 0.5


class _Family(NamedTuple):
    """How timesteps `[B]` become alpha and sigma `[B]`, and what the network returns."""

    level: Callable[[Any, Tensor], tuple[Tensor, Tensor]]
    output: Callable[[Any], NetworkOutput]
    preconditioned: bool = False


def scheduler_level(scheduler: Any, timesteps: Tensor) -> tuple[Tensor, Tensor, bool]:
    """Return alpha and sigma `[B]` in float32 on the device of `timesteps`, and whether its network is preconditioned.

    Errors: see `NoiseLevel.from_diffusers`.
    """
    family = _family(scheduler)
    alpha, sigma = family.level(scheduler, _checked_timesteps(timesteps))
    return alpha.float(), sigma.float(), family.preconditioned


def network_output(scheduler: Any) -> NetworkOutput:
    """Return what the network returns that this scheduler samples from.

    Raises:
        TypeError: for a class that is unknown, or whose network's output does not give x0 by a known formula.
        ValueError: for a `prediction_type` that the class does not define.
    """
    family = _family(scheduler)
    for name in _names(scheduler):
        if name in _OTHER_OUTPUTS:
            raise TypeError(f"prediction={name} does not say what x0_hat is: {_OTHER_OUTPUTS[name]}")
    return family.output(scheduler)


def _names(scheduler: Any) -> list[str]:
    """Return the names of its class and of the classes that this inherits from."""
    return [cls.__name__ for cls in type(scheduler).__mro__]


def _family(scheduler: Any) -> _Family:
    for name in _names(scheduler):
        if name in _REFUSED:
            raise TypeError(f"{name}'s timestep does not say which noise level it has: {_REFUSED[name]}")
        if name in _FAMILIES:
            return _FAMILIES[name]
    raise TypeError(
        f"expected one of diffusers' schedulers for Gaussian noise, got {type(scheduler).__name__}; for another one "
        "pass NoiseLevel.ddpm(alphas_cumprod[t]), .edm(sigma) or .flow(t), and what the network predicts by name"
    )


def _config(scheduler: Any, key: str, default: Any = None) -> Any:
    value = getattr(scheduler.config, key, default)
    return default if value is None else value


# Timesteps


def _checked_timesteps(timesteps: Tensor) -> Tensor:
    """Return `timesteps` as `[B]` in float32 or float64, or say what is wrong with them."""
    if not isinstance(timesteps, Tensor):
        raise TypeError(f"timesteps must be a torch.Tensor of shape [B]; got {type(timesteps).__name__}")
    if timesteps.ndim > 1:
        raise ValueError(f"timesteps must hold one value per sample, shape [B]; got {list(timesteps.shape)}")
    kind = timesteps.dtype
    if kind in (torch.float32, torch.float64):
        return timesteps.detach().reshape(-1)
    if kind == torch.bool or kind.is_complex or kind.is_floating_point:
        raise TypeError(
            f"timesteps must be integers, float32 or float64 (bfloat16 rounds 999 to 1000, float16 999.9 to 1000); "
            f"got {kind}"
        )
    return timesteps.reshape(-1).float()


def _within(scheduler: Any, t: Tensor, low: float, high: float, meaning: str, *, whole: bool = False) -> Tensor:
    """Return t with NaN for values outside [low, high], and raise for them on the CPU."""
    known = (t >= low) & (t <= high)
    if whole:
        known = known & (t == t.round())
    if can_read(t) and not bool(known.all()):
        unknown = t[~known].tolist()
        got = ", ".join(f"{value:g}" for value in unknown[:5]) + (", …" if len(unknown) > 5 else "")
        raise ValueError(
            f"timesteps of this {type(scheduler).__name__} are {meaning} from {low:g} to {high:g}; got {got}"
        )
    return torch.where(known, t, torch.nan)


def _at(table: Tensor, t: Tensor) -> Tensor:
    """Return the table's values at t in 0 … len − 1, linear between entries, NaN where t is NaN."""
    # The cast comes before the move, because the device may have no float64.
    table = table.to(t.dtype).to(t.device)
    below = torch.nan_to_num(t).floor()
    index = below.long()
    return torch.lerp(table[index], table[(index + 1).clamp(max=len(table) - 1)], t - below)


# Levels of the families


def _vp_level(scheduler: Any, t: Tensor) -> tuple[Tensor, Tensor]:
    """DDPM's: a whole timestep is an index of ᾱ."""
    if _config(scheduler, "use_flow_sigmas", False):
        return _flow_level(scheduler, t)
    alpha_bar = scheduler.alphas_cumprod
    t = _within(scheduler, t, 0, len(alpha_bar) - 1, "whole numbers", whole=True)
    return _at(alpha_bar.sqrt(), t), _at((1 - alpha_bar).sqrt(), t)


def _ve_level(scheduler: Any, t: Tensor) -> tuple[Tensor, Tensor]:
    """k-diffusion's: x_t = x0 + sigma·eps with sigma² = (1 − ᾱ)/ᾱ, and times between those of training.

    Sampling schedules have such times: linear in sigma by `np.interp`, linear in log sigma where sigmas are spaced as
    Karras' and the time is found from sigma.
    """
    alpha_bar = scheduler.alphas_cumprod
    table = ((1 - alpha_bar) / alpha_bar).sqrt()
    if _config(scheduler, "timestep_type") == "continuous" and _config(scheduler, "prediction_type") == "v_prediction":
        low = _config(scheduler, "sigma_min", table[0].item())
        return _log_sigma_level(scheduler, t, 0.25, low, _config(scheduler, "sigma_max", table[-1].item()))
    t = _within(scheduler, t, 0, len(table) - 1, "numbers")
    spaced = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas")
    logarithmic = any(_config(scheduler, key, False) for key in spaced)
    sigma = _at(table.log(), t).exp() if logarithmic else _at(table, t)
    return torch.ones_like(sigma), sigma


def _log_sigma_level(scheduler: Any, t: Tensor, scale: float, low: float, high: float) -> tuple[Tensor, Tensor]:
    """The time is scale·ln(sigma), for sigma in [low, high]."""
    t = _within(scheduler, t, *_widened(scale * math.log(low), scale * math.log(high)), f"{scale:g}·ln(sigma)")
    sigma = (t / scale).exp()
    return torch.ones_like(sigma), sigma


def _widened(low: float, high: float) -> tuple[float, float]:
    """Return the range with room for the rounding of float32."""
    room = 1e-5 * max(abs(low), abs(high), high - low)
    return low - room, high + room


def _edm_level(scheduler: Any, t: Tensor) -> tuple[Tensor, Tensor]:
    return _log_sigma_level(scheduler, t, 0.25, scheduler.config.sigma_min, scheduler.config.sigma_max)


def _consistency_level(scheduler: Any, t: Tensor) -> tuple[Tensor, Tensor]:
    return _log_sigma_level(scheduler, t, 250, scheduler.config.sigma_min, scheduler.config.sigma_max)


def _cosine_level(scheduler: Any, t: Tensor) -> tuple[Tensor, Tensor]:
    """The time is 2/π·atan(sigma)."""
    low, high = (math.atan(getattr(scheduler.config, key)) * 2 / math.pi for key in ("sigma_min", "sigma_max"))
    sigma = (_within(scheduler, t, *_widened(low, high), "2/π·atan(sigma)") * math.pi / 2).tan()
    return torch.ones_like(sigma), sigma


def _flow_level(scheduler: Any, t: Tensor) -> tuple[Tensor, Tensor]:
    """The time is sigma·num_train_timesteps; shifts change which times are drawn and visited, not what one means."""
    if _config(scheduler, "invert_sigmas", False):
        raise ValueError(
            f"timesteps of this {type(scheduler).__name__} count from noise to data after set_timesteps and from data "
            "to noise before, because of invert_sigmas=True; pass NoiseLevel.flow(sigma) instead"
        )
    steps = scheduler.config.num_train_timesteps
    sigma = _within(scheduler, t, 0, steps, f"{steps}·sigma") / steps
    return 1 - sigma, sigma


def _data_time_level(scheduler: Any, t: Tensor) -> tuple[Tensor, Tensor]:
    """A straight path whose time is alpha."""
    alpha = _within(scheduler, t, 0, 1, "the scale of the data")
    return alpha, 1 - alpha


def _wuerstchen_level(scheduler: Any, t: Tensor) -> tuple[Tensor, Tensor]:
    """The cosine schedule at times in [0, 1]."""
    t = _within(scheduler, t, 0, 1, "times")
    scaler, s = scheduler.config.scaler, scheduler.config.s
    t = 1 - (1 - t) ** scaler if scaler > 1 else t**scaler
    alpha_bar = ((t + s) / (1 + s) * math.pi / 2).cos() ** 2 / math.cos(s / (1 + s) * math.pi / 2) ** 2
    alpha_bar = alpha_bar.clamp(0.0001, 0.9999)
    return alpha_bar.sqrt(), (1 - alpha_bar).sqrt()


def _angle_level(scheduler: Any, t: Tensor) -> tuple[Tensor, Tensor]:
    """The time is 2/π times the angle whose cosine and sine are alpha and sigma."""
    angle = _within(scheduler, t, 0, 1, "times") * math.pi / 2
    return angle.cos().clamp(min=0), angle.sin()  # float32 has a cosine of π/2 just below 0


# Outputs of the families

_BY_TYPE = {"epsilon": "epsilon", "v_prediction": "v", "sample": "x0", "original_sample": "x0"}
_FLOW_BY_TYPE = {"epsilon": "epsilon", "sample": "x0", "flow_prediction": "flow"}
_SIGN_BY_TYPE = {"epsilon": 1, "v_prediction": -1}


def _by_type(scheduler: Any, known: dict[str, Any]) -> Any:
    """Return what `known` says of the scheduler's prediction_type, "epsilon" where its class has no choice."""
    kind = _config(scheduler, "prediction_type", "epsilon")
    if kind not in known:
        raise ValueError(
            f"prediction_type of this {type(scheduler).__name__} must be one of {', '.join(known)}; got {kind!r}"
        )
    return known[kind]


def _typed_output(scheduler: Any) -> NetworkOutput:
    flow = _config(scheduler, "use_flow_sigmas", False)
    return NetworkOutput(_by_type(scheduler, _FLOW_BY_TYPE if flow else _BY_TYPE))


def _edm_output(scheduler: Any) -> NetworkOutput:
    """EDM's raw network F: "epsilon" is its name for c_out > 0, "v_prediction" for c_out < 0."""
    return NetworkOutput("edm", _by_type(scheduler, _SIGN_BY_TYPE), float(scheduler.config.sigma_data))


def _always(prediction: str, sign: int = 1) -> Callable[[Any], NetworkOutput]:
    return lambda scheduler: NetworkOutput(prediction, sign)


# Classes

_MEMBERS: list[tuple[_Family, str]] = [
    (
        _Family(_vp_level, _typed_output),
        "CogVideoXDDIM CogVideoXDPM DDIM DDIMInverse DDIMParallel DDPM DDPMParallel DEISMultistep DPMSolverMultistep "
        "DPMSolverMultistepInverse DPMSolverSinglestep LCM PNDM RePaint SASolver TCD UnCLIP UniPCMultistep",
    ),
    (
        _Family(_ve_level, _typed_output),
        "DPMSolverSDE EulerAncestralDiscrete EulerDiscrete HeunDiscrete KDPM2AncestralDiscrete KDPM2Discrete "
        "LMSDiscrete",
    ),
    (_Family(_edm_level, _edm_output, preconditioned=True), "EDMDPMSolverMultistep EDMEuler"),
    (_Family(_cosine_level, _edm_output, preconditioned=True), "CosineDPMSolverMultistep"),
    (_Family(_consistency_level, _edm_output, preconditioned=True), "CMStochasticIterative"),
    (
        _Family(_flow_level, _always("flow")),
        "FlowMapEulerDiscrete FlowMatchEulerDiscrete FlowMatchHeunDiscrete FlowMatchLCM LTXEulerAncestralRF Piflow",
    ),
    (_Family(_data_time_level, _always("flow", -1)), "MiniMaxH3 RFD4Proteina"),
    (_Family(_wuerstchen_level, _always("epsilon")), "DDPMWuerstchen"),
    (_Family(_angle_level, _always("v")), "IPNDM"),
]
_FAMILIES = {f"{name}Scheduler": family for family, names in _MEMBERS for name in names.split()}

_TOKENS = "it masks or replaces tokens and adds no Gaussian noise"
_STAGES = "that depends on the stage; pass NoiseLevel.flow(sigma) with the sigma that made x_t"
_REFUSED = {
    "AmusedScheduler": _TOKENS,
    "BlockRefinementScheduler": _TOKENS,
    "DiscreteDDIMScheduler": _TOKENS,
    "EntropyBoundScheduler": _TOKENS,
    "VQDiffusionScheduler": _TOKENS,
    "ConsistencyDecoderScheduler": "it decodes latents in two fixed steps; pass NoiseLevel(alpha, sigma) of x_t",
    "HeliosScheduler": _STAGES,
    "HeliosDMDScheduler": _STAGES,
    "KarrasVeScheduler": "pass NoiseLevel.edm(sigma) with the sigma that made x_t",
    "SCMScheduler": "times of training are not its timesteps; pass NoiseLevel(t.cos(), sigma_data * t.sin())",
    "ScoreSdeVeScheduler": "an index and a time in [0, 1] look alike; pass NoiseLevel.edm(discrete_sigmas[index])",
    "ScoreSdeVpScheduler": "pass NoiseLevel.vp(t)",
}
"""Class: why its timestep has no level, or what to pass instead."""

_OTHER_OUTPUTS = {
    "CMStochasticIterativeScheduler": "compute c_skip * x_t + c_out * output with c_skip, c_out = "
    "scheduler.get_scalings_for_boundary_condition(sigma)",
    "FlowMapEulerDiscreteScheduler": "its network returns the mean velocity between two times; for r = 0 pass "
    'prediction="flow"',
    "PiflowScheduler": "its network returns a policy of several values for each sample; compute x0_hat from it",
}
"""Class with a level whose network's output is none that specreg knows: what to do instead."""
