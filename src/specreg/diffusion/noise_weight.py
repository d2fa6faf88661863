"""Weights of the spectral term by noise level, as functions of the signal-to-noise ratio SNR = α²/σ².

As functions of SNR they mean the same on every schedule. Each is a callable `NoiseLevel -> [B]`, and users may pass any
other such callable.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from specreg import _checks
from specreg.diffusion.noise_level import NoiseLevel

NoiseWeight = Callable[[NoiseLevel], Tensor]


@dataclass(frozen=True)
class Constant:
    """The same weight, 1, at every noise level: the paper's unweighted runs."""

    def __call__(self, level: NoiseLevel) -> Tensor:
        """Return the weight of each sample, `[B]`."""
        return torch.ones_like(level.alpha)


@dataclass(frozen=True)
class EDMWeight:
    """λ_EDM = (σ² + σ_d²)/(σ·σ_d)² of EDM, which in SNR is SNR + 1/σ_d²: the paper's weighted runs.

    It grows without bound as σ → 0; `SNR` has a clip.
    """

    sigma_data: float = 0.5

    def __call__(self, level: NoiseLevel) -> Tensor:
        """Return the weight of each sample, `[B]`."""
        return level.snr + 1.0 / self.sigma_data**2


@dataclass(frozen=True)
class SNR:
    """min(SNR, clip)^power: falls with noise, where x0_hat is uncertain, and is constant where SNR > clip.

    A `power` of None is 1/2; and 1 where the regularizer knows that the network predicts ε or the score. Then the
    term's pull at the network's output, w·|∂x0_hat/∂output|, falls in proportion to α as noise grows, whatever is
    predicted. With 1/2 it would not fall at all for ε, whose derivative is σ/α.
    """

    power: float | None = None
    clip: float = 1.0

    def __call__(self, level: NoiseLevel) -> Tensor:
        """Return the weight of each sample, `[B]`."""
        return level.snr.clamp_max(self.clip) ** (0.5 if self.power is None else self.power)

    def of(self, prediction: str) -> SNR:
        """Return the weight for a network that predicts "epsilon", "v", "x0", …: this one, where it has a power."""
        return SNR(1.0, self.clip) if self.power is None and prediction in ("epsilon", "score") else self


@dataclass(frozen=True)
class HardGate:
    """1 where `low` <= log SNR <= `high`, else 0."""

    low: float = 0.0
    high: float = float("inf")

    def __call__(self, level: NoiseLevel) -> Tensor:
        """Return the weight of each sample, `[B]`."""
        log_snr = level.log_snr
        return ((log_snr >= self.low) & (log_snr <= self.high)).to(log_snr.dtype)


@dataclass(frozen=True)
class SmoothGate:
    """sigmoid((log SNR − center)/width): 1/2 at `center`, close to 1 at low noise."""

    center: float = 0.0
    width: float = 1.0

    def __call__(self, level: NoiseLevel) -> Tensor:
        """Return the weight of each sample, `[B]`."""
        return torch.sigmoid((level.log_snr - self.center) / self.width)


NOISE_WEIGHTS: dict[str, type] = {
    "constant": Constant,
    "edm": EDMWeight,
    "snr": SNR,
    "hard_gate": HardGate,
    "smooth_gate": SmoothGate,
}


def build(name: str, **options: float) -> NoiseWeight:
    """Return the noise-level weight "constant", "edm", "snr", "hard_gate" or "smooth_gate" with its options."""
    weight: NoiseWeight = _checks.build("noise_weight", NOISE_WEIGHTS, name, options)
    return weight


AMPLIFICATION = 10.0
"""Largest amplification σ/α at the noisiest level for which no warning is issued."""


def warn_if_epsilon_unweighted(noise_weight: NoiseWeight, noisiest: NoiseLevel) -> None:
    """Warn once per process when the noisiest steps dominate the spectral term of a network that predicts ε.

    x0_hat = x_t/α − (σ/α)·ε̂ amplifies the network's error by σ/α: 157 at the end of the linear DDPM schedule. The
    function warns where σ/α exceeds `AMPLIFICATION` and w·σ/α, relative to its value at SNR = 1, does too: then the
    weight w does not compensate for the amplification.

    Args:
        noise_weight: the weight of the spectral term, `NoiseLevel -> [B]`.
        noisiest: the noisiest level that training draws, one value.
    """
    amplification = float(noisiest.sigma / noisiest.alpha)
    if amplification <= AMPLIFICATION:
        return
    noisiest_weight = float(noise_weight(noisiest))
    equal = torch.full_like(noisiest.alpha, 0.5**0.5)
    if noisiest_weight * amplification > AMPLIFICATION * float(noise_weight(NoiseLevel(equal, equal))):
        _checks.warn_once(
            "epsilon unweighted",
            f"predicting epsilon, x0_hat carries {amplification:.0f} times the network's error at the noisiest step, "
            f"which dominates the spectral term under this noise weight ({noise_weight}); "
            'use noise_weight="snr" in SpectralRegularizer',
        )
