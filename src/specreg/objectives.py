"""Base training objective plus spectral term, with every random number passed in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

from specreg.diffusion import NoiseLevel, Prediction, recover_x0, target
from specreg.regularizer import SpectralRegularizer, SpectralTerm

Model = Callable[..., Tensor]
"""The network: `(x_t [B, C, *space], t [B])`, and labels `[B]` where it has classes, to its output."""


class ObjectiveTerms(NamedTuple):
    """One evaluation of an objective; train on `loss`, log the rest."""

    loss: Tensor  # scalar, base.mean() + spectral.loss
    base: Tensor  # [B], the base objective alone
    spectral: SpectralTerm | None
    x0_hat: Tensor  # [B, C, *space]


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
        labels: Tensor | None = None,
        *,
        measure_ratio: bool = False,
    ) -> ObjectiveTerms:
        """Evaluate at x0 and noise `[B, C, *space]` and timesteps t `[B]` (int64, from 0).

        With `measure_ratio` the spectral term carries its `gradient_ratio` at a constant λ too.
        """
        level = self.level(t)
        x_t = level.diffuse(x0, noise)
        output = (model(x_t, t) if labels is None else model(x_t, t, labels)).float()
        wanted = target(x0, noise, level, prediction=self.prediction)
        base = F.mse_loss(output, wanted, reduction="none").flatten(1).mean(1)
        x0_hat = recover_x0(output, x_t, level, prediction=self.prediction)
        loss = base.mean()
        term = None
        if self.regularizer is not None:
            measure = measure_ratio or self.regularizer.automatic
            at = {"base_loss": loss, "output": output} if measure else {}
            term = self.regularizer(x0_hat, x0, level, **at)
            loss = loss + term.loss
        return ObjectiveTerms(loss, base, term, x0_hat)

    def level(self, t: Tensor) -> NoiseLevel:
        """Noise level of timesteps `[B]`."""
        return NoiseLevel.ddpm(self.alphas_cumprod[t])

    def predict_x0(self, model: Model, x_t: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        """The clean sample that the network sees in `x_t` `[B, C, *space]` at timesteps `[B]`."""
        output = model(x_t, t) if labels is None else model(x_t, t, labels)
        return recover_x0(output, x_t, self.level(t), prediction=self.prediction)
