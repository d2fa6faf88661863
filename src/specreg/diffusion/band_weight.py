"""Weights of the spectral term by noise level *and* frequency, from the signal-to-noise ratio at each frequency.

x_t = α·x0 + σ·ε carries α²·P(f) of signal power and σ² of noise power at frequency f, where P is the power spectrum of
the data (orthonormal DFT). The power of natural data falls with f, so at every noise level there is a frequency beyond
which x_t carries no information and the best x0_hat is smooth. Each weight is a callable

    (level, frequency [K] in cycles per sample, power [K]) -> [B, K]

and users may pass any other such callable.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from specreg import _checks
from specreg.diffusion.noise_level import NoiseLevel

BandWeight = Callable[[NoiseLevel, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Wiener:
    """(s/(1 + s))^power with s = SNR·P(f): the share of x_t's power at f that is signal, 1/2 where it equals noise."""

    power: float = 1.0

    def __call__(self, level: NoiseLevel, frequency: Tensor, power: Tensor) -> Tensor:
        """Return the weight of each sample at each frequency, `[B, K]`."""
        return torch.sigmoid(_log_band_snr(level, power)) ** self.power


@dataclass(frozen=True)
class SignalGate:
    """1 where the signal's power at f is at least `margin_db` decibels above the noise's, else 0."""

    margin_db: float = 0.0

    def __call__(self, level: NoiseLevel, frequency: Tensor, power: Tensor) -> Tensor:
        """Return the weight of each sample at each frequency, `[B, K]`."""
        log_band_snr = _log_band_snr(level, power)
        return (log_band_snr >= self.margin_db * math.log(10) / 10).to(log_band_snr.dtype)


def _log_band_snr(level: NoiseLevel, power: Tensor) -> Tensor:
    return level.log_snr.to(power)[:, None] + power.clamp_min(torch.finfo(power.dtype).tiny).log()


BAND_WEIGHTS: dict[str, type] = {"wiener": Wiener, "signal_gate": SignalGate}


def build(name: str, **options: float) -> BandWeight:
    """Return the band weight "wiener" or "signal_gate" with its options."""
    weight: BandWeight = _checks.build("band_weight", BAND_WEIGHTS, name, options)
    return weight
