"""DiffWave's training objective plus spectral term, with every random number passed in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from specreg.diffusion import NoiseLevel, ddim_estimate, recover_x0
from specreg.objectives import Model, ObjectiveTerms
from specreg.regularizer import SpectralRegularizer


@dataclass(frozen=True)
class DiffWaveObjective:
    """Mean absolute error on the noise, as DiffWave's public code trains, plus λ·L_S on the x0_hat of a DDIM estimate.

    x0_hat is what deterministic DDIM makes of x_t with `updates` network calls, at steps spread evenly from t to 0:
    one is x0_hat = (x_t − √(1 − ᾱ)·ε̂)/√ᾱ (Eq. 5), more are a differentiable unrolled sampler (section 5.3). The base
    objective takes the noise of the first call, so one update costs no further call.

    The paper's λ of 1e-4, 1e-5 and 1e-6 go with spectral losses of `reduction="sum"`, beside a base objective that is a
    mean: a crop of 62 frames at a hop of 256 has 15,872 samples, so 1e-4 as a sum is 1.6 as a mean.

    Args:
        alphas_cumprod: ᾱ, `[T]`, on the device of the batches.
        regularizer: the spectral term, or None.
        updates: network calls of the DDIM estimate, at least 1.
        checkpoint: recompute the activations of all calls but the first in the backward pass, to save memory.

    With more than one update AutoWeight measures the spectral gradient at the first call's output, back through the
    later calls: that costs one further backward pass of each.
    """

    alphas_cumprod: Tensor
    regularizer: SpectralRegularizer | None = None
    updates: int = 1
    checkpoint: bool = False

    def __post_init__(self) -> None:
        if type(self.updates) is not int or self.updates < 1:
            raise ValueError(f"updates must be a whole number of at least 1; got {self.updates!r}")

    def __call__(
        self,
        model: Model,
        x0: Tensor,
        t: Tensor,
        noise: Tensor,
        condition: Mapping[str, Tensor] | None = None,
        *,
        measure_ratio: bool = False,
    ) -> ObjectiveTerms:
        """Evaluate at x0 and noise `[B, 1, T]` and training steps t `[B]` (int64, from 0).

        `condition` is what else the network takes, by keyword: `{"mel": …}`, `[B, n_mels, frames]`, for a vocoder. The
        network runs under autocast where that is on, everything else in float32 (float64 for float64). With
        `measure_ratio` the spectral term carries its `gradient_ratio` at a constant λ too.
        """
        with torch.autocast(x0.device.type, enabled=False):
            level = self.level(t)
            x_t = level.diffuse(x0, noise)
        output = _call(model, x_t, t, condition)
        with torch.autocast(x0.device.type, enabled=False):
            base = (output - noise).abs().flatten(1).mean(1)
            first = recover_x0(output, x_t, level, prediction="epsilon")
        x0_hat = self._estimate(model, x_t, t, condition, first)
        with torch.autocast(x0.device.type, enabled=False):
            loss = base.mean()
            term = None
            if self.regularizer is not None:
                measure = measure_ratio or self.regularizer.automatic
                at = {"base_loss": loss, "output": output} if measure else {}
                term = self.regularizer(x0_hat, x0, level, **at)
                loss = loss + term.loss
        return ObjectiveTerms(loss, base, term, x0_hat)

    def draw_time(self, rng: np.random.Generator) -> int:
        """A training step, uniform."""
        return int(rng.integers(len(self.alphas_cumprod)))

    def times(self, count: int) -> Tensor:
        """`count` training steps spread evenly over the schedule, from little noise to much, int64 `[count]`."""
        return ((torch.arange(count) + 0.5) * len(self.alphas_cumprod) / count).long()

    def level(self, t: Tensor) -> NoiseLevel:
        """Noise level of steps `[B]`; √ᾱ of a fractional one is interpolated, as DiffWave does."""
        root = self.alphas_cumprod.sqrt()
        low = t.floor().long() if t.is_floating_point() else t
        between = torch.lerp(root[low], root[(low + 1).clamp_max(len(root) - 1)], (t - low).to(root))
        return NoiseLevel.ddpm(between**2)

    def predict_x0(self, model: Model, x_t: Tensor, t: Tensor, condition: Mapping[str, Tensor] | None = None) -> Tensor:
        """The clean sound that the network sees in `x_t` `[B, 1, T]` at steps `[B]`, by the same DDIM estimate."""
        first = recover_x0(_call(model, x_t, t, condition), x_t, self.level(t), prediction="epsilon")
        return self._estimate(model, x_t, t, condition, first)

    def _estimate(
        self, model: Model, x_t: Tensor, t: Tensor, condition: Mapping[str, Tensor] | None, first: Tensor
    ) -> Tensor:
        """The DDIM estimate, whose first network call is already made."""
        if self.updates == 1:
            return first
        steps = [t * (1 - k / self.updates) for k in range(self.updates)]
        levels = [self.level(step) for step in steps]
        step_at = dict(zip(levels, steps, strict=True))

        def predict(x: Tensor, level: NoiseLevel) -> Tensor:
            if level is levels[0]:
                return first
            return recover_x0(_call(model, x, step_at[level], condition), x, level, prediction="epsilon")

        return ddim_estimate(predict, x_t, levels, checkpoint=self.checkpoint)


def _call(model: Model, x_t: Tensor, t: Tensor, condition: Mapping[str, Tensor] | None) -> Tensor:
    """The network's output in float32 at least."""
    output = model(x_t, t, **(condition or {}))
    return output if output.dtype == torch.float64 else output.float()
