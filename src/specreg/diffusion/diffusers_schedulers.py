"""Noise levels and predictions of diffusers schedulers, read from their tables without running them.

What a scheduler does with a timestep depends on its class and on what was called before: multistep solvers fall back to
the last step for timesteps that are not theirs, and before `set_timesteps` their table runs back to front. Training has
none of that: a timestep has one level. Here it is computed from what the class is made of, and the class is asked only
once, on a fresh copy, which family it belongs to.

    vp      ᾱ table; x_t = √ᾱ·x0 + √(1 − ᾱ)·ε                          DDPM, DDIM, DPM-Solver, UniPC, LCM, …
    ve      ᾱ table; x_t = x0 + σ·ε with σ² = (1 − ᾱ)/ᾱ                Euler, Heun, KDPM2, LMS
    flow    x_t = (1 − s)·x0 + s·ε with s = t/T, whatever the shift     FlowMatch*, use_flow_sigmas
    edm     x_t = x0 + σ·ε with t = ¼·ln σ                              EDM*, Euler with continuous timesteps
    cm      x_t = x0 + σ·ε with t = 250·ln σ                            CMStochasticIterative
    direct  no table: `add_noise` is a function of t alone              DDPMWuerstchen
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Literal, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

Family = Literal["vp", "ve", "flow", "edm", "cm", "direct"]

_PROBES = 5
"""Timesteps of a class's own table on which a formula is checked."""

_families: WeakKeyDictionary[Any, Family] = WeakKeyDictionary()


class Scales(NamedTuple):
    """x_t = alpha·x0 + sigma·eps; each `[B]`."""

    alpha: Tensor
    sigma: Tensor


def scales(scheduler: Any, timesteps: Tensor) -> Scales:
    """Return the scales of signal and noise at training timesteps `[B]`, on their device; the scheduler is not changed.

    Raises TypeError for anything but a scheduler that adds noise and for timesteps in half precision, ValueError for a
    class of no known family and for timesteps outside its range. Whole numbers on an accelerator are not checked.
    """
    found = family(scheduler)
    if timesteps.dtype in (torch.float16, torch.bfloat16):
        raise TypeError(
            f"{type(scheduler).__name__}: expected timesteps as integers, float32 or float64; got {timesteps.dtype}, "
            "which has no 999"
        )
    if found in ("vp", "ve"):
        return _from_table(scheduler, timesteps, found)
    _check_finite(scheduler, timesteps)
    if found == "direct":
        return _noised(scheduler, timesteps)
    if found == "flow":
        _check_range(scheduler, timesteps, 0, _config(scheduler)["num_train_timesteps"])
    return _FORMULAS[found](scheduler, timesteps.double() if timesteps.device.type == "cpu" else timesteps.float())


class Output(NamedTuple):
    """A network returns `sign` times what `prediction` names; sigma_data is for "edm"."""

    prediction: str
    sigma_data: float | None = None
    sign: int = 1


def prediction_of(scheduler: Any) -> Output:
    """Return what the network of a scheduler predicts, by the names of `recover_x0`.

    EDM's schedulers say "epsilon" and mean the raw network inside EDM's preconditioning, "edm" here; their
    "v_prediction" is that with the other sign.

    Raises ValueError where no parameterization here is what the scheduler means.
    """
    found, config, name = family(scheduler), _config(scheduler), type(scheduler).__name__
    said = config.get("prediction_type")
    if found == "flow":
        return Output("flow")
    if found == "edm" and "sigma_data" in config:
        if said in ("epsilon", "v_prediction"):
            return Output("edm", float(config["sigma_data"]), 1 if said == "epsilon" else -1)
    elif found in ("vp", "ve", "edm") and said in ("epsilon", "v_prediction", "sample"):
        return Output(said)
    raise ValueError(
        f"{name}: its networks (prediction_type {said!r}, sigma_data {config.get('sigma_data')}) are of no "
        "parameterization that recover_x0 knows; expected x0_hat to be computed by hand"
    )


def preconditions(scheduler: Any) -> bool:
    """Return whether "epsilon" in a scheduler's config means the network inside EDM's preconditioning."""
    config = _config(scheduler)
    return family(scheduler) == "edm" and "sigma_data" in config and config.get("prediction_type") == "epsilon"


def family(scheduler: Any) -> Family:
    """Return the family of a scheduler; see the module."""
    try:
        return _families[scheduler]
    except (KeyError, TypeError):
        pass
    found = _find_family(scheduler)
    _families[scheduler] = found
    return found


def _find_family(scheduler: Any) -> Family:
    name = f"the class {scheduler.__name__}" if isinstance(scheduler, type) else type(scheduler).__name__
    if isinstance(scheduler, type):
        raise TypeError(f"expected a diffusers scheduler with add_noise or scale_noise; got {name}")
    if not (hasattr(scheduler, "add_noise") or hasattr(scheduler, "scale_noise")) or not hasattr(scheduler, "config"):
        raise TypeError(f"expected a diffusers scheduler with add_noise or scale_noise; got {name}")
    config, fresh = _config(scheduler), type(scheduler).from_config(scheduler.config)
    in_flow = bool(config.get("use_flow_sigmas"))
    if (
        getattr(scheduler, "alphas_cumprod", None) is not None
        and not in_flow
        and config.get("timestep_type") != "continuous"
    ):
        own = _own_timesteps(fresh)
        whole = own[own == own.round()].long()
        alpha, sigma = _noised(fresh, (whole if len(whole) else own)[:1])
        if bool(alpha == 1):
            return "ve"
        if abs(float(alpha**2 + sigma**2) - 1) < 1e-3:
            return "vp"
        raise _unknown(scheduler)
    if in_flow:  # a table that is back to front before set_timesteps, and timesteps that are rounded down after
        with suppress(TypeError, KeyError):  # a signature of its own: unknown below
            fresh.set_timesteps(_PROBES)
            found = [(_flow(fresh, t), _noised(fresh, t)) for t in torch.split(fresh.timesteps, 1)]
            if all(abs(float(ours.sigma - theirs.sigma)) < 2e-3 for ours, theirs in found):
                return "flow"
        raise _unknown(scheduler)
    own = _own_timesteps(fresh)
    if not len(own):
        _check_direct(fresh)
        return "direct"
    for candidate, formula in _FORMULAS.items():
        if candidate == "flow" and "num_train_timesteps" not in config:
            continue
        if all(_agree(formula(fresh, t), _noised(fresh, t)) for t in torch.split(own, 1)):
            return candidate
    raise _unknown(scheduler)


def _flow(scheduler: Any, t: Tensor) -> Scales:
    share = (t / _config(scheduler)["num_train_timesteps"]).float()
    return Scales(1 - share, share)


def _edm(scheduler: Any, t: Tensor) -> Scales:
    sigma = (4 * t).exp().float()
    return Scales(torch.ones_like(sigma), sigma)


def _cm(scheduler: Any, t: Tensor) -> Scales:
    sigma = (t / 250).exp().float()
    return Scales(torch.ones_like(sigma), sigma)


_FORMULAS: dict[Family, Callable[[Any, Tensor], Scales]] = {"flow": _flow, "edm": _edm, "cm": _cm}


def _from_table(scheduler: Any, timesteps: Tensor, found: Family) -> Scales:
    """Return the scales of whole timesteps of the ᾱ table, or of fractional ones that `set_timesteps` has made."""
    table: Tensor = scheduler.alphas_cumprod.to(timesteps.device)
    if timesteps.is_floating_point():
        _check_finite(scheduler, timesteps)
        whole = timesteps == timesteps.round()
        if not bool(whole.all()):
            return _from_own(scheduler, timesteps, found)
    _check_range(scheduler, timesteps, 0, len(table) - 1)
    alpha_bar = table[timesteps.long()]
    if found == "vp":
        return Scales(alpha_bar.sqrt(), (1 - alpha_bar).sqrt())
    return Scales(torch.ones_like(alpha_bar), ((1 - alpha_bar) / alpha_bar).sqrt())


def _from_own(scheduler: Any, timesteps: Tensor, found: Family) -> Scales:
    """Return the scales of timesteps between two whole ones, which only the scheduler's own list can say."""
    own, sigmas = (getattr(scheduler, key, None) for key in ("timesteps", "sigmas"))
    if found == "ve" and isinstance(own, Tensor) and isinstance(sigmas, Tensor):
        same = timesteps[:, None].to(own) == own.to(timesteps.device)
        if bool(same.any(1).all()):
            sigma = sigmas.to(timesteps.device)[same.int().argmax(1)].float()
            return Scales(torch.ones_like(sigma), sigma)
    last = len(scheduler.alphas_cumprod) - 1
    raise ValueError(
        f"{type(scheduler).__name__}: expected whole timesteps from 0 to {last}, or values of scheduler.timesteps; "
        f"got {timesteps.tolist()}"
    )


def _own_timesteps(fresh: Any) -> Tensor:
    """Return some timesteps that a fresh scheduler knows, spread over its range; empty where it has no list."""
    found, config = getattr(fresh, "timesteps", None), _config(fresh)
    if found is None or not len(found):
        if getattr(fresh, "alphas_cumprod", None) is None:
            return torch.empty(0)
        found = torch.arange(config["num_train_timesteps"])
    found = torch.as_tensor(found)
    return found[torch.linspace(0.5 * len(found), len(found) - 2, _PROBES).long().clamp_min(0)]


def _noised(scheduler: Any, timesteps: Tensor) -> Scales:
    """Return what a copy of the scheduler does to the pairs (x0, ε) = (1, 0) and (0, 1)."""
    one = torch.ones(len(timesteps), 1, 1, 1, device=timesteps.device)
    values = []
    for x0, eps in ((one, 0 * one), (0 * one, one)):
        twin = copy.deepcopy(scheduler)  # some count the calls
        try:
            if hasattr(twin, "add_noise"):
                noised = twin.add_noise(x0, eps, timesteps)
            else:
                noised = twin.scale_noise(x0, timesteps, eps)
        except (TypeError, ValueError, IndexError, RuntimeError, AttributeError) as error:
            raise _unknown(scheduler) from error
        if not isinstance(noised, Tensor) or noised.shape != one.shape or not noised.is_floating_point():
            raise _unknown(scheduler)
        values.append(noised.flatten())
    return Scales(*values)


def _check_direct(fresh: Any) -> None:
    """Refuse a scheduler without a table whose noise is not α·x0 + σ·ε with α and σ functions of t."""
    alpha, sigma = _noised(fresh, torch.tensor([0.25, 0.75]))
    again = _noised(fresh, torch.tensor([0.75, 0.25]))
    rising = sigma[0] < sigma[1] and alpha[0] > alpha[1]
    if not (bool(rising) and _agree(Scales(alpha.flip(0), sigma.flip(0)), again)):
        raise _unknown(fresh)


def _agree(ours: Scales, theirs: Scales) -> bool:
    return all(torch.allclose(a.float(), b.float(), rtol=1e-4, atol=1e-6) for a, b in zip(ours, theirs, strict=True))


def _unknown(scheduler: Any) -> ValueError:
    return ValueError(
        f"{type(scheduler).__name__}: its noise level by timestep is not known here; expected a scheduler of DDPM's, "
        "Euler's, flow matching's or EDM's kind. Pass NoiseLevel(alpha, sigma) of your training instead"
    )


def _check_finite(scheduler: Any, timesteps: Tensor) -> None:
    if timesteps.device.type == "cpu" and not bool(timesteps.isfinite().all()):
        raise ValueError(f"{type(scheduler).__name__}: expected finite timesteps; got {timesteps.tolist()}")


def _check_range(scheduler: Any, timesteps: Tensor, low: float, high: float) -> None:
    if timesteps.device.type == "cpu" and not bool(((timesteps >= low) & (timesteps <= high)).all()):
        raise ValueError(
            f"{type(scheduler).__name__}: expected timesteps from {low} to {high}; got {timesteps.tolist()}"
        )


def _config(scheduler: Any) -> Mapping[str, Any]:
    found: Mapping[str, Any] = scheduler.config
    return found
