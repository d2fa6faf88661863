"""The losses by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import pywt
from torch import Tensor

from specreg import _checks
from specreg.losses import grammar
from specreg.losses.modules import Amplitude, AmplitudePhase, SpectralLoss, Sum, Wavelet
from specreg.losses.stft import MultiResolutionSTFT

LOSSES: dict[str, Callable[..., SpectralLoss]] = {
    "amplitude": Amplitude,
    "amplitude_phase": AmplitudePhase,
    "wavelet": Wavelet,
    "mr_stft": MultiResolutionSTFT,
}


def as_loss(
    loss: str | Callable[[Tensor, Tensor], Tensor] | Sequence[str | SpectralLoss],
) -> Callable[[Tensor, Tensor], Tensor]:
    """Return a loss given by name, as a callable, or as a sequence of losses to add up."""
    if isinstance(loss, str):
        return build(loss)
    if isinstance(loss, type):
        raise TypeError(f"loss must be an instance, such as losses.Wavelet('haar'); got the class {loss.__name__}")
    if callable(loss):
        return loss
    return Sum([build(part) if isinstance(part, str) else part for part in loss])


def build(name: str, **options: Any) -> SpectralLoss:
    """Return the loss `name` with its class's `options`.

    Names are "amplitude", "amplitude_phase", "mr_stft", a wavelet as "haar", "bior1.3" or "wavelet:NAME", and
    TRANSFORM:COMPARISON, such as "dct:log_power" (see `specreg.losses.grammar`). Several names with "+" between them
    are one loss, their sum; it takes the options that all of them have.

    Raises:
        ValueError: for an unknown name or option; the message names the nearest known one.
    """
    parts = _checks.pieces(name, "+")
    if len(parts) > 1:
        return Sum([build(part, **options) for part in parts])
    if grammar.is_written(name):
        return grammar.build(name, **options)
    prefix, _, wavelet = name.partition(":")
    wavelets = pywt.wavelist(kind="discrete")
    if name in wavelets or (prefix == "wavelet" and wavelet):
        factory: Callable[..., SpectralLoss] = Wavelet
        options = {"wavelet": wavelet or name, **options}
    else:
        if name not in LOSSES:
            hint = _checks.nearest(name, [*LOSSES, *wavelets])
            raise ValueError(
                f"loss must be one of {', '.join(LOSSES)}, a wavelet such as haar, or TRANSFORM:COMPARISON such as "
                f"fft:log_power; got {name!r}{hint}"
            )
        factory = LOSSES[name]
    known = inspect.signature(factory).parameters
    for option in options:
        if option not in known:
            raise ValueError(
                f"loss {name!r} has no option {option!r}{_checks.nearest(option, known)}; it has {', '.join(known)}"
            )
    return factory(**options)
