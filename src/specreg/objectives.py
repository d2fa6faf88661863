"""The training objective: base loss plus spectral term, with every random number passed in.

One class for all of them. What the network predicts, which times are drawn, the norm of its error, the weight by noise
level and the number of DDIM updates are data; `ddpm`, `denoiser`, `flow` and `diffwave` build the usual combinations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from specreg import _checks
from specreg.diffusion import NoiseLevel, Prediction, ddim_estimate, recover_x0, target
from specreg.diffusion.noise_density import LogitNormal, LogNormal, NoiseDensity
from specreg.diffusion.noise_weight import EDMWeight, NoiseWeight, warn_if_epsilon_unweighted
from specreg.diffusion.time_axis import FlowTime, Sigmas, TimeAxis, Timesteps
from specreg.regularizer import SpectralRegularizer
from specreg.spectral_term import SpectralTerm

Model = Callable[..., Tensor]
"""The network: `(x_t [B, C, *space], t [B])`, and conditioning by keyword (labels, mel, …), to its output."""

Condition = Mapping[str, Tensor]
"""Conditioning of a batch by the network's keywords, each `[B, ...]`."""

Norm = Literal["mean_squared", "mean_absolute", "sum_squared"]
"""Norm of the base loss over the values of a sample. EDM's public training loop sums, the others average."""


class ObjectiveTerms(NamedTuple):
    """One evaluation of an objective: train on `loss`, log the rest."""

    loss: Tensor  # scalar, base.mean() + spectral.loss
    base: Tensor  # [B], the base objective alone
    spectral: SpectralTerm | None
    x0_hat: Tensor  # [B, C, *space]


@dataclass(frozen=True)
class Objective:
    """A base loss on what the network predicts, plus λ·L_S on the x0_hat that this implies (Eq. 17).

    x0_hat is what deterministic DDIM makes of x_t with `updates` network calls, at times spread evenly from t to the
    clean end. One update is Eq. 5; more are a differentiable unrolled sampler (section 5.3). The base loss takes the
    output of the first call, so one update costs no further call.

    Args:
        time: times, their density and their noise levels.
        prediction: what the network returns, a name that `specreg.recover_x0` knows.
        norm: see `Norm`. A spectral loss with reduction="mean" beside a summed base loss is C·H·W times smaller.
        weight: weight of the base loss by noise level, `NoiseLevel -> [B]`; None for none.
        regularizer: the spectral term, or None.
        updates: network calls of the DDIM estimate, at least 1. With more than one, AutoWeight measures the spectral
            gradient at the output of the first call, which costs one more backward pass of each later call.
        recompute: recompute the activations of all calls but the first in the backward pass, to save memory.
    """

    time: TimeAxis
    prediction: Prediction = "x0"
    norm: Norm = "mean_squared"
    weight: NoiseWeight | None = None
    regularizer: SpectralRegularizer | None = None
    updates: int = field(default=1, kw_only=True)
    recompute: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        _checks.choice("norm", self.norm, get_args(Norm))
        if type(self.updates) is not int or self.updates < 1:
            raise ValueError(f"updates must be a whole number of at least 1; got {self.updates!r}")
        if self.regularizer is not None and self.prediction == "epsilon":
            noisiest = self.time.level(self.time.grid(64)[-1:])
            warn_if_epsilon_unweighted(self.regularizer.noise_weight, noisiest)

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
        """Evaluate at x0 and noise `[B, C, *space]` and times t `[B]`.

        The network runs under autocast where autocast is on, everything else in float32 (float64 for float64). With
        `measure_ratio` the spectral term carries its `gradient_ratio` at a constant λ too.
        """
        with _checks.without_autocast(x0.device):
            level = self.time.level(t)
            x_t = level.diffuse(x0, noise)
        output = self._call(model, x_t, t, condition)
        with _checks.without_autocast(x0.device):
            wanted = target(x0, noise, level, prediction=self.prediction)
            base = self._norm(output, wanted)
            if self.weight is not None:
                base = self.weight(level).to(base) * base
            first = recover_x0(output, x_t, level, prediction=self.prediction)
        x0_hat = self._estimate(model, x_t, t, condition, first)
        with _checks.without_autocast(x0.device):
            loss, term = base.mean(), None
            if self.regularizer is not None:
                measure = measure_ratio or self.regularizer.measures
                at = {"base_loss": loss, "output": output} if measure else {}
                term = self.regularizer(x0_hat, x0, level, prediction=self.prediction, **at)
                loss = loss + term.loss
        return ObjectiveTerms(loss, base, term, x0_hat)

    def level(self, t: Tensor) -> NoiseLevel:
        """Return the noise level of times `[B]`."""
        return self.time.level(t)

    def predict_x0(self, model: Model, x_t: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        """Return the clean sample that one network call implies for x_t `[B, C, *space]` at times `[B]`."""
        return recover_x0(self._call(model, x_t, t, condition), x_t, self.level(t), prediction=self.prediction)

    def _call(self, model: Model, x_t: Tensor, t: Tensor, condition: Condition | None) -> Tensor:
        """Return the network's output in float32 at least."""
        output = model(x_t, self.time.network_time(t), **(condition or {}))
        return output if output.dtype == torch.float64 else output.float()

    def _norm(self, output: Tensor, wanted: Tensor) -> Tensor:
        """Return the error of each sample, `[B]`."""
        loss = F.l1_loss if self.norm == "mean_absolute" else F.mse_loss
        error = loss(output, wanted, reduction="none").flatten(1)
        return error.sum(1) if self.norm == "sum_squared" else error.mean(1)

    def _estimate(self, model: Model, x_t: Tensor, t: Tensor, condition: Condition | None, first: Tensor) -> Tensor:
        """Return the DDIM estimate, whose first network call is already made."""
        if self.updates == 1:
            return first
        times = [t, *(self.time.earlier(t, k / self.updates) for k in range(1, self.updates))]
        levels = [self.level(time) for time in times]
        time_of = dict(zip(levels, times, strict=True))

        def predict(x: Tensor, level: NoiseLevel) -> Tensor:
            return first if level is levels[0] else self.predict_x0(model, x, time_of[level], condition)

        return ddim_estimate(predict, x_t, levels, checkpoint=self.recompute)


def ddpm(
    alphas_cumprod: Tensor,
    prediction: Prediction = "epsilon",
    regularizer: SpectralRegularizer | None = None,
    *,
    updates: int = 1,
    recompute: bool = False,
) -> Objective:
    """Return DDPM's objective (Eq. 3): mean squared error on the prediction, timesteps of a ᾱ table `[T]`.

    A score is weighted by σ², so that its error counts as the error of ε does.
    """
    weight = variance if prediction == "score" else None
    return Objective(
        Timesteps(alphas_cumprod), prediction, "mean_squared", weight, regularizer, updates=updates, recompute=recompute
    )


def denoiser(
    density: NoiseDensity | None = None,
    weight: NoiseWeight | None = None,
    regularizer: SpectralRegularizer | None = None,
    *,
    updates: int = 1,
    recompute: bool = False,
) -> Objective:
    """Return EDM's objective w(σ)·‖D(x0 + σε; σ) − x0‖², summed over the values of a sample.

    Data that were augmented are their own target: x0 is then the augmented sample.

    Args:
        density: of σ in training; None for EDM's log-normal.
        weight: w(σ); None for EDM's λ_EDM(σ). VP and VE training take `inverse_variance`.
        regularizer: the spectral term, or None.
        updates: see `Objective`.
        recompute: see `Objective`.
    """
    return Objective(
        Sigmas(density or LogNormal()),
        "x0",
        "sum_squared",
        weight or EDMWeight(),
        regularizer,
        updates=updates,
        recompute=recompute,
    )


def flow(
    density: NoiseDensity | None = None,
    prediction: Prediction = "flow",
    regularizer: SpectralRegularizer | None = None,
    *,
    scale: float = 1000.0,
    updates: int = 1,
    recompute: bool = False,
) -> Objective:
    """Return flow matching's objective on the straight path: mean squared error, by default on the velocity ε − x0.

    `density` is that of t; None for logit-normal (Esser et al. 2024). The network is told scale·t.
    """
    weight = variance if prediction == "score" else None
    time = FlowTime(density or LogitNormal(), scale)
    return Objective(time, prediction, "mean_squared", weight, regularizer, updates=updates, recompute=recompute)


def diffwave(
    alphas_cumprod: Tensor,
    regularizer: SpectralRegularizer | None = None,
    *,
    updates: int = 1,
    recompute: bool = False,
) -> Objective:
    """Return DiffWave's objective: mean absolute error on ε, as its public code trains.

    The paper's λ of 1e-4, 1e-5 and 1e-6 go with spectral losses of reduction="sum" beside this mean: a crop of 62
    frames at a hop of 256 has 15,872 values, so 1e-4 with a sum is 1.6 with a mean.
    """
    time = Timesteps(alphas_cumprod)
    return Objective(time, "epsilon", "mean_absolute", None, regularizer, updates=updates, recompute=recompute)


def inverse_variance(level: NoiseLevel) -> Tensor:
    """Return 1/σ² at α = 1, `[B]`: the weight of VP and VE training."""
    return level.snr


def variance(level: NoiseLevel) -> Tensor:
    """Return σ², `[B]`: the weight of denoising score matching."""
    return level.sigma**2
