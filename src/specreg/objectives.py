"""Base training objective plus spectral term, with every random number passed in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from specreg.diffusion import NoiseLevel, Prediction, recover_x0, target
from specreg.diffusion.noise_density import LogNormal, NoiseDensity
from specreg.diffusion.noise_weight import EDM, NoiseWeight
from specreg.regularizer import SpectralRegularizer, SpectralTerm

Model = Callable[..., Tensor]
"""The network: `(x_t [B, C, *space], t [B])`, and conditioning by keyword (labels, augment_labels), to its output."""

Condition = Mapping[str, Tensor]
"""Conditioning of a batch by the network's keywords, each `[B, ...]`."""


class ObjectiveTerms(NamedTuple):
    """One evaluation of an objective; train on `loss`, log the rest."""

    loss: Tensor  # scalar, base.mean() + spectral.loss
    base: Tensor  # [B], the base objective alone
    spectral: SpectralTerm | None
    x0_hat: Tensor  # [B, C, *space]


class Objective(Protocol):
    """What the trainer, the samplers and the denoising map ask of an objective."""

    @property
    def regularizer(self) -> SpectralRegularizer | None:
        """The spectral term, or None."""

    def __call__(
        self,
        model: Model,
        x0: Tensor,
        t: Tensor,
        noise: Tensor,
        condition: Condition | None = None,
        *,
        measure_ratio: bool = False,
    ) -> ObjectiveTerms:
        """Evaluate at x0 and noise `[B, C, *space]` and times t `[B]`."""

    def draw_time(self, rng: np.random.Generator) -> float:
        """A training time of one sample: a timestep, or σ."""

    def times(self, count: int) -> Tensor:
        """`count` times spread evenly over those of training, from little noise to much, `[count]`."""

    def level(self, t: Tensor) -> NoiseLevel:
        """Noise level of times `[B]`."""

    def predict_x0(self, model: Model, x_t: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        """The clean sample that the network sees in `x_t` `[B, C, *space]` at times `[B]`."""


@dataclass(frozen=True)
class DDPMObjective:
    """Mean squared error on what the network predicts (DDPM, Eq. 3), plus λ·L_S on the x0_hat it implies (Eq. 17).

    Args:
        alphas_cumprod: ᾱ, `[T]`, on the device of the batches.
        prediction: "epsilon", "v" or "x0".
        regularizer: the spectral term, or None.
    """

    alphas_cumprod: Tensor
    prediction: Prediction = "epsilon"
    regularizer: SpectralRegularizer | None = None

    def __call__(
        self,
        model: Model,
        x0: Tensor,
        t: Tensor,
        noise: Tensor,
        condition: Condition | None = None,
        *,
        measure_ratio: bool = False,
    ) -> ObjectiveTerms:
        """Evaluate at x0 and noise `[B, C, *space]` and timesteps t `[B]` (int64, from 0).

        With `measure_ratio` the spectral term carries its `gradient_ratio` at a constant λ too.
        """
        level = self.level(t)
        x_t = level.diffuse(x0, noise)
        output = model(x_t, t, **(condition or {})).float()
        wanted = target(x0, noise, level, prediction=self.prediction)
        base = F.mse_loss(output, wanted, reduction="none").flatten(1).mean(1)
        x0_hat = recover_x0(output, x_t, level, prediction=self.prediction)
        return _with_term(self.regularizer, base, x0_hat, x0, level, output, measure_ratio)

    def draw_time(self, rng: np.random.Generator) -> int:
        """A timestep, uniform."""
        return int(rng.integers(len(self.alphas_cumprod)))

    def times(self, count: int) -> Tensor:
        """Timesteps spread evenly over the schedule, int64 `[count]`."""
        return ((torch.arange(count) + 0.5) * len(self.alphas_cumprod) / count).long()

    def level(self, t: Tensor) -> NoiseLevel:
        """Noise level of timesteps `[B]`."""
        return NoiseLevel.ddpm(self.alphas_cumprod[t])

    def predict_x0(self, model: Model, x_t: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        """The clean sample that the network sees in `x_t` `[B, C, *space]` at timesteps `[B]`."""
        output = model(x_t, t, **(condition or {}))
        return recover_x0(output, x_t, self.level(t), prediction=self.prediction)


@dataclass(frozen=True)
class DenoiserObjective:
    """Weighted squared error of a denoiser, w(σ)·‖D(x0 + σε; σ) − x0‖², plus λ·L_S on D's output (Eq. 17).

    EDM, VP and VE training, by their densities of σ and weights. As in the public training loop the error is *summed*
    over pixels and averaged over the batch, so a mean-reduced spectral loss beside it is C·H·W times smaller than one
    with reduction="sum". Data that were augmented are their own target: x0 here is the augmented image.

    Args:
        density: of σ in training.
        weight: w(σ), as a function of the noise level: λ_EDM for EDM, 1/σ² (the SNR) for VP and VE.
        regularizer: the spectral term, or None.
    """

    density: NoiseDensity = field(default_factory=LogNormal)
    weight: NoiseWeight = field(default_factory=EDM)
    regularizer: SpectralRegularizer | None = None

    def __call__(
        self,
        model: Model,
        x0: Tensor,
        t: Tensor,
        noise: Tensor,
        condition: Condition | None = None,
        *,
        measure_ratio: bool = False,
    ) -> ObjectiveTerms:
        """Evaluate at x0 and noise `[B, C, *space]` and noise levels σ = t `[B]`; `measure_ratio` as for DDPM."""
        level = self.level(t)
        x0_hat = model(level.diffuse(x0, noise), t, **(condition or {})).float()
        squared = F.mse_loss(x0_hat, x0, reduction="none")
        base = self.weight(level).to(squared) * squared.flatten(1).sum(1)
        return _with_term(self.regularizer, base, x0_hat, x0, level, x0_hat, measure_ratio)

    def draw_time(self, rng: np.random.Generator) -> float:
        """σ of one sample."""
        return self.density((float(rng.integers(2**53)) + 0.5) / 2**53)

    def times(self, count: int) -> Tensor:
        """σ at evenly spread quantiles of training's density, float32 `[count]`."""
        return torch.tensor([self.density((i + 0.5) / count) for i in range(count)])

    def level(self, t: Tensor) -> NoiseLevel:
        """Noise level of σ `[B]`."""
        return NoiseLevel.edm(t)

    def predict_x0(self, model: Model, x_t: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        """What the denoiser returns for `x_t` `[B, C, *space]` at σ = t `[B]`."""
        denoised: Tensor = model(x_t, t, **(condition or {}))
        return denoised


def inverse_variance(level: NoiseLevel) -> Tensor:
    """1/σ² at α = 1, `[B]`: the weight of VP and VE training."""
    return level.snr


def _with_term(
    regularizer: SpectralRegularizer | None,
    base: Tensor,
    x0_hat: Tensor,
    x0: Tensor,
    level: NoiseLevel,
    output: Tensor,
    measure_ratio: bool,
) -> ObjectiveTerms:
    """L_total = L + λ·L_S (17)."""
    loss = base.mean()
    term = None
    if regularizer is not None:
        measure = measure_ratio or regularizer.automatic
        at = {"base_loss": loss, "output": output} if measure else {}
        term = regularizer(x0_hat, x0, level, **at)
        loss = loss + term.loss
    return ObjectiveTerms(loss, base, term, x0_hat)
