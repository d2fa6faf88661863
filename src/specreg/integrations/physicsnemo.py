"""NVIDIA PhysicsNeMo: its diffusion losses with the spectral term, both families. Read from PhysicsNeMo 2.2.2.

The losses return one value a pixel, and the loops reduce them as they like. So the term is spread over the pixels of
its sample: sums, means and masks of the loops keep their meaning.

    loss_fn = SpectralEDMLoss(regularizer)                              # instead of EDMLoss()
    loss_fn = SpectralResidualLoss(regularizer, regression_net)         # instead of ResidualLoss(regression_net)
    loss_fn = SpectralMSEDSMLoss(regularizer, model, noise_scheduler)   # instead of MSEDSMLoss(model, noise_scheduler)

The clean sample is what the network denoises: the augmented image, of CorrDiff the residual beside the regression, in
patches where there are patches.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Literal

import torch
from physicsnemo.diffusion.metrics import EDMLoss, EDMLossLogUniform, MSEDSMLoss, ResidualLoss, WeightedMSEDSMLoss
from torch import Tensor

from specreg import NoiseLevel, SpectralRegularizer, SpectralTerm, recover_x0
from specreg.watch import KeepsLastCall


def _eager(call: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return `call` so that torch.compile leaves it alone; a network inside that is compiled itself stays compiled.

    One compiled graph around network and loss would hide the gradient of the base loss with respect to the output,
    which an automatic λ and the logged ratio need.
    """
    disabled: Callable[..., Tensor] = torch.compiler.disable(call)
    return disabled


class _SpectralPreconditioned(KeepsLastCall):
    """Beside the losses of preconditioned networks, whose output is x0_hat and whose loops sum over pixels."""

    OF_CALL: ClassVar = ("term", "_clean")

    regularizer: SpectralRegularizer
    term: SpectralTerm | None = None
    """The last term, for logging: `loss_fn.term.logs()`."""
    _clean: tuple[Tensor, Tensor] | None = None

    @_eager
    def __call__(self, net: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        """Return the loss of each pixel, with its share of its sample's term; see the class that this one extends."""
        outputs: list[Tensor] = []

        def watched(*given: Any, **named: Any) -> Tensor:
            outputs.append(net(*given, **named))
            return outputs[-1]

        base: Tensor = super().__call__(watched, *args, **kwargs)  # type: ignore[misc]
        (x0_hat,), clean = outputs, self._clean
        self._clean = None
        if clean is None:
            raise RuntimeError(f"{type(self).__name__}: expected the loss to draw its noise; it did not")
        x0, sigma = clean
        measured = {"base_loss": base.sum() / len(base), "output": x0_hat} if x0_hat.requires_grad else {}
        self.term = term = self.regularizer(x0_hat, x0, NoiseLevel.edm(sigma.flatten()), **measured)
        return base + _column(term.weight * term.per_sample / base[0].numel(), base)


class SpectralEDMLoss(_SpectralPreconditioned, EDMLoss):  # type: ignore[misc]
    """EDMLoss with the term of `regularizer`; the other arguments are EDMLoss's."""

    def __init__(self, regularizer: SpectralRegularizer, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.regularizer = regularizer

    def sample_noise(self, y: Tensor, sigma: Tensor) -> Tensor:
        """Return the noise of clean images y `[B, C, H, W]`, and remember these."""
        self._clean = (y, sigma)
        noise: Tensor = super().sample_noise(y, sigma)
        return noise


class SpectralEDMLossLogUniform(SpectralEDMLoss, EDMLossLogUniform):  # type: ignore[misc]
    """EDMLossLogUniform with the term of `regularizer`."""


class SpectralResidualLoss(_SpectralPreconditioned, ResidualLoss):  # type: ignore[misc]
    """CorrDiff's ResidualLoss with the term of `regularizer`; the other arguments are ResidualLoss's."""

    def __init__(self, regularizer: SpectralRegularizer, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.regularizer = regularizer

    def get_noise_params(self, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return noise, σ and weight for clean residuals y `[B, C, H, W]`, and remember these."""
        noise, sigma, weight = super().get_noise_params(y)
        self._clean = (y, sigma)
        return noise, sigma, weight


class _SpectralScoreMatching(KeepsLastCall):
    """Beside the denoising score matching losses, which hold their model and know what it predicts.

    The loss of each pixel gets its sample's term, then the reduction follows: under "mean" it is mean plus term.
    """

    OF_CALL: ClassVar = ("term", "_seen")

    regularizer: SpectralRegularizer
    term: SpectralTerm | None = None

    def __init__(
        self,
        regularizer: SpectralRegularizer,
        model: Callable[..., Tensor],
        noise_scheduler: Any,
        prediction_type: Literal["x0", "score", "epsilon"] = "x0",
        *,
        reduction: Literal["none", "mean", "sum"] = "mean",
        **kwargs: Any,
    ):
        for name in ("alpha", "sigma"):
            if not callable(getattr(noise_scheduler, name, None)):
                raise TypeError(
                    f"expected a linear Gaussian noise scheduler, which has alpha(t) and sigma(t); "
                    f"got {type(noise_scheduler).__name__} without {name}"
                )
        self._seen: tuple[Tensor, Tensor] | None = None

        def watched(x: Tensor, t: Tensor, *given: Any, **named: Any) -> Tensor:
            output = model(x, t, *given, **named)
            self._seen = (x, output)
            return output

        super().__init__(watched, noise_scheduler, prediction_type, reduction="none", **kwargs)  # type: ignore[call-arg]
        if reduction not in ("none", "mean", "sum"):
            raise ValueError(f"reduction must be none, mean or sum; got {reduction!r}")
        self.regularizer, self.prediction_type, self.reduction = regularizer, prediction_type, reduction

    def _with_term(self, base: Tensor, x0: Tensor, t: Tensor, mask: Tensor | None) -> Tensor:
        if self._seen is None:
            raise RuntimeError("expected the loss to call its model; it did not")
        (x_t, output), self._seen = self._seen, None
        scheduler: Any = self.noise_scheduler  # type: ignore[attr-defined]
        level = NoiseLevel(scheduler.alpha(t), scheduler.sigma(t))
        x0_hat = recover_x0(output, x_t, level, prediction=self.prediction_type)
        given = {"prediction": self.prediction_type, "mask": mask}
        measured = {"base_loss": base.mean(), "output": output} if output.requires_grad else {}
        self.term = term = self.regularizer(x0_hat, x0, level, **given, **measured)
        loss = base + _column(term.weight * term.per_sample, base)
        return loss if self.reduction == "none" else loss.mean() if self.reduction == "mean" else loss.sum()

    def _time(self, x0: Tensor, t: Tensor | None) -> Tensor:
        scheduler: Any = self.noise_scheduler  # type: ignore[attr-defined]
        drawn: Tensor = scheduler.sample_time(len(x0), device=x0.device, dtype=x0.dtype) if t is None else t
        return drawn


class SpectralMSEDSMLoss(_SpectralScoreMatching, MSEDSMLoss):  # type: ignore[misc]
    """MSEDSMLoss with the term of `regularizer`; the other arguments are MSEDSMLoss's."""

    @_eager
    def __call__(self, x0: Tensor, t: Tensor | None = None, condition: Any = None, **kwargs: Any) -> Tensor:
        """Return the loss of clean samples x0 `[B, ...]` with the term, reduced as asked for."""
        t = self._time(x0, t)
        return self._with_term(MSEDSMLoss.__call__(self, x0, t, condition, **kwargs), x0, t, None)


class SpectralWeightedMSEDSMLoss(_SpectralScoreMatching, WeightedMSEDSMLoss):  # type: ignore[misc]
    """WeightedMSEDSMLoss with the term of `regularizer`, which sees the values whose weight is not 0."""

    @_eager
    def __call__(
        self, x0: Tensor, weight: Tensor, t: Tensor | None = None, condition: Any = None, **kwargs: Any
    ) -> Tensor:
        """Return the loss of clean samples x0 `[B, ...]` under `weight`, of the same shape, with the term."""
        t = self._time(x0, t)
        base = WeightedMSEDSMLoss.__call__(self, x0, weight, t, condition, **kwargs)
        return self._with_term(base, x0, t, weight != 0)


def _column(values: Tensor, like: Tensor) -> Tensor:
    """Return `[B]` as `[B, 1, ..., 1]` with as many axes as `like`."""
    return values.reshape(-1, *(1 for _ in like.shape[1:]))
