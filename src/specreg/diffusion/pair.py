"""The pair that a spectral loss compares, from a network's output and its regression target alone.

Every parameterization is affine, x0_hat = a·x_t + b·output, and the target is the output that gives x0. So the pair
follows from output and target, whatever was done to x_t in between: noise that was perturbed, latents encoded twice,
pairs matched again (OT-CFM), values rounded to bfloat16.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from specreg._checks import alike, append_dims, few
from specreg.diffusion.noise_level import NoiseLevel, check_device, check_level, combine
from specreg.diffusion.parameterization import _TABLE, AnyPrediction, coefficients, recover_x0

PREDICTIONS = tuple(_TABLE)


def x0_pair(
    output: Tensor,
    target: Tensor,
    level: NoiseLevel,
    *,
    prediction: AnyPrediction,
    x0: Tensor | None = None,
    x_t: Tensor | None = None,
    sigma_data: float = 0.5,
) -> tuple[Tensor, Tensor]:
    """Return (x0_hat, x0), each `[B, ...]`, for a network's output and its regression target `[B, ...]`.

    Args:
        output: what the network returned.
        target: what training regresses it on.
        level: the noise level, B values or 1.
        prediction: see `recover_x0`.
        x0: the clean samples; the pair is then (x0 + b·(output − target), x0).
        x_t: the noisy samples, where x0 is out of reach; the pair is then (a·x_t + b·output, a·x_t + b·target). With
            neither the pair is (b·output, b·target), whose difference is right and whose values are not: enough for
            wavelet losses, which see the difference alone.
        sigma_data: standard deviation of the data; only "edm" uses it.

    Raises:
        TypeError: for anything but floating-point tensors and a NoiseLevel.
        ValueError: for shapes and devices that do not match, and as `coefficients` does.
    """
    alike(output=output, target=target, x0=x0, x_t=x_t if x0 is None else None)
    a, b = coefficients(level, prediction, sigma_data=sigma_data)
    one = torch.ones_like(b)
    if x0 is not None:
        return combine(one, x0, b, combine(one, output, -one, target)), x0
    if x_t is not None:
        return combine(a, x_t, b, output), combine(a, x_t, b, target)
    nothing = torch.zeros_like(target)
    return combine(one, nothing, b, output), combine(one, nothing, b, target)


def check_wiring(
    target: Tensor,
    x_t: Tensor,
    x0: Tensor,
    level: NoiseLevel,
    *,
    prediction: AnyPrediction,
    sigma_data: float = 0.5,
) -> None:
    """Raise ValueError unless a network that hits its regression target exactly is read as x0, and say what would fit.

    Names, signs and times that are wrong make no error anywhere else: training runs, with the term on the wrong
    samples. Call it once with the tensors of a real step; it waits for them.

    Args:
        target: what training regresses the network's output on, `[B, ...]`.
        x_t: what the network is given, before any scaling of its input, of the same shape.
        x0: the clean samples, of the same shape.
        level: what will be passed as the level.
        prediction: what will be passed as the prediction.
        sigma_data: see `recover_x0`.

    Raises:
        TypeError: for anything but floating-point tensors and a NoiseLevel.
        ValueError: where the wiring is wrong, and for shapes and devices that do not match.
    """
    alike(target=target, x_t=x_t, x0=x0)
    check_level(level)
    check_device(level.alpha, x_t)
    target, x_t, x0 = (x.detach() for x in (target, x_t, x0))
    error = _error(target, x_t, x0, level, prediction, sigma_data)
    if error <= 1:
        return
    named = f"{prediction!r}" if isinstance(prediction, str) else type(prediction).__name__
    raise ValueError(
        f"check_wiring: with prediction={named} the regression target is not read as x0 "
        f"({error:.3g} times the error that rounding explains). "
        f"{_advice(target, x_t, x0, level, prediction, sigma_data)}"
    )


def _error(
    target: Tensor, x_t: Tensor, x0: Tensor, level: NoiseLevel, prediction: AnyPrediction, sigma_data: float
) -> float:
    """Return the RMS error of x0 recovered from the target, of the worst sample, in units of what rounding may do."""
    try:
        a, b = coefficients(level, prediction, sigma_data=sigma_data)
        found = recover_x0(target, x_t, level, prediction=prediction, sigma_data=sigma_data)
    except ValueError:
        return float("inf")
    off, noisy, wanted, clean = (_rms(x) for x in (found - x0.to(found), x_t, target, x0))
    rounding = max(torch.finfo(x.dtype).eps for x in (target, x_t, x0))
    alpha, sigma = level.alpha.double(), level.sigma.double()
    # DDPM's schedulers round alpha² to the dtype of the samples and take the root of 1 - alpha²: a small sigma may come
    # out as anything near it, 0 too.
    half = torch.where((alpha.square() + sigma.square() - 1).abs() < 1e-3, rounding / 2, 0.0)
    alpha_off = half * alpha
    sigma_off = (half * (sigma + alpha.square() / sigma.clamp_min(1e-30))).minimum(sigma)
    allowed = 4 * rounding * (a.abs() * noisy + b.abs() * wanted + clean) + 1e-3 * clean
    allowed += a.abs() * (alpha_off * clean + sigma_off) + b.abs() * (alpha_off + sigma_off * clean)
    worst = float((off / allowed.clamp_min(1e-30)).max())
    return worst if worst == worst else float("inf")


def _rms(x: Tensor) -> Tensor:
    return x.double().flatten(1).square().mean(1).sqrt()


def _advice(
    target: Tensor, x_t: Tensor, x0: Tensor, level: NoiseLevel, prediction: AnyPrediction, sigma_data: float
) -> str:
    """Return which name, sign, direction of time or range of x0 fits, or what x_t looks like."""
    swapped = NoiseLevel(level.sigma, level.alpha)
    tries = (
        (target, level, "prediction={!r} would fit"),
        (target, swapped, "prediction={!r} would fit with the time reversed, the other data_at of NoiseLevel.flow"),
        (-target, level, "the target has the other sign: prediction={!r} fits −target"),
    )
    for wanted, at, said in tries:
        for name in PREDICTIONS:
            if _error(wanted, x_t, x0, at, cast("AnyPrediction", name), sigma_data) <= 1:
                return said.format(name) + "."
    rescaled = _rescaled(target, x_t, x0, level, prediction, sigma_data)
    if rescaled is not None:
        return rescaled
    alpha, sigma = _fitted(x_t, x0)
    says = f"alpha {few(level.alpha)}, sigma {few(level.sigma)}"
    seen = f"alpha {few(alpha)}, sigma {few(sigma)}"
    return (
        f"No other name, sign or direction fits. x_t looks like {seen}; the level says {says}: another timestep "
        "(one step off?), scaled latents, or an x_t that is not alpha·x0 + sigma·eps of this x0."
    )


def _rescaled(
    target: Tensor, x_t: Tensor, x0: Tensor, level: NoiseLevel, prediction: AnyPrediction, sigma_data: float
) -> str | None:
    """Return the sentence for an x0 of another range or scale than x_t was made of, or None where it is not that."""
    try:
        found = recover_x0(target, x_t, level, prediction=prediction, sigma_data=sigma_data).double()
    except ValueError:
        return None
    clean = x0.double()
    centred = clean - clean.mean()
    factor = (found * centred).sum() / centred.square().sum().clamp_min(1e-30)
    shift = found.mean() - factor * clean.mean()
    wanted = factor * clean + shift
    if _error(target, x_t, wanted.to(x0), level, prediction, sigma_data) > 1:
        return None
    return (
        f"It is read as {float(factor):.3g}·x0 {float(shift):+.3g}: x_t was made of x0 in another range or scale "
        "(images in [−1, 1], latents times their scaling factor); pass that as x0."
    )


def _fitted(x_t: Tensor, x0: Tensor) -> tuple[Tensor, Tensor]:
    """Return alpha by least squares of x_t on x0 and the RMS of the rest, `[B]` each."""
    flat_t, flat_0 = x_t.double().flatten(1), x0.double().flatten(1)
    alpha = (flat_t * flat_0).sum(1) / flat_0.square().sum(1).clamp_min(1e-30)
    return alpha, (flat_t - append_dims(alpha, 2) * flat_0).square().mean(1).sqrt()
