"""NVlabs/edm and edm2: a loss class for their training loops, named on the command line or in a line of the script.

    c.loss_kwargs = dnnlib.EasyDict(class_name="specreg.integrations.edm.SpectralLoss", loss="amplitude")

No file of theirs changes. Their loops call `loss_fn(net=…, images=…, labels=…, augment_pipe=…)` and minimize the sum of
what it returns, over pixels and samples, divided by the batch size. So the base loss is returned by pixel and the term
is spread over the pixels of its sample: the loops' sums, scalings and reports keep their meaning.

The formulas are those of the papers (Karras et al. 2022, table 1; Karras et al. 2024, eqs. 14 to 16).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from specreg import NoiseLevel, SpectralRegularizer, SpectralTerm
from specreg.diffusion.noise_weight import EDMWeight
from specreg.watch import KeepsLastCall


class SpectralLoss(KeepsLastCall):
    """EDM's loss and the spectral term on the denoiser's output, which is x0_hat.

    Args:
        P_mean: mean of ln σ in training.
        P_std: standard deviation of ln σ.
        sigma_data: standard deviation of the data.
        loss: see `SpectralRegularizer`.
        weight: λ, a number, "auto" or "auto:RATIO" (here beside sums over pixels), or "edm".
        noise_weight: weight of the term by noise level, None for "snr".
        warmup: calls over which λ ramps up.

    The last term is kept in `term` for logging (`loss_fn.term.logs()`), and the base loss of each value, without the
    term and its graph, in `base`, `[B, C, H, W]`. λ's state is part of the object, so a pickled
    snapshot has it. Under DDP every process must call, as the loop does.
    """

    OF_CALL: ClassVar = ("term", "base")

    def __init__(
        self,
        P_mean: float = -1.2,
        P_std: float = 1.2,
        sigma_data: float = 0.5,
        *,
        loss: str | Sequence[str] = "amplitude",
        weight: float | str = "auto",
        noise_weight: str | None = None,
        warmup: int = 0,
    ):
        self.P_mean, self.P_std, self.sigma_data = P_mean, P_std, sigma_data
        names = loss if isinstance(loss, str) else list(loss)
        self.regularizer = SpectralRegularizer(names, weight=weight, noise_weight=noise_weight, warmup=warmup)
        self.term: SpectralTerm | None = None
        self.base: Tensor | None = None

    # One compiled graph around network and loss hides the gradient of the base loss with respect to the output.
    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def __call__(
        self,
        net: Callable[..., Any],
        images: Tensor,
        labels: Tensor | None = None,
        augment_pipe: Callable[[Tensor], tuple[Tensor, Tensor]] | None = None,
    ) -> Tensor:
        """Return the loss of each pixel, `[B, C, H, W]`, of images in [−1, 1]; augmented ones are their own target."""
        level = self._draw(images)
        x0, augment_labels = augment_pipe(images) if augment_pipe is not None else (images, None)
        x_t = level.diffuse(x0, torch.randn_like(x0))
        x0_hat = net(x_t, _column(level.sigma), labels, augment_labels=augment_labels)
        base = _column(EDMWeight(self.sigma_data)(level)) * (x0_hat - x0) ** 2
        return self._with_term(base, x0_hat, x0, level)

    def _draw(self, images: Tensor) -> NoiseLevel:
        if not images.is_floating_point():
            raise TypeError(f"images must be floats in [-1, 1], as the loops pass them; got {images.dtype}")
        noise = torch.randn(len(images), device=images.device)
        return NoiseLevel.edm((noise * self.P_std + self.P_mean).exp())

    def _with_term(self, base: Tensor, x0_hat: Tensor, x0: Tensor, level: NoiseLevel) -> Tensor:
        """Return the base loss of each pixel and this pixel's share of its sample's term."""
        measured = {"base_loss": base.sum() / len(base), "output": x0_hat} if x0_hat.requires_grad else {}
        self.term = term = self.regularizer(x0_hat, x0, level, **measured)
        self.base = base.detach()
        return base + _column(term.weight * term.per_sample / base[0].numel())


class SpectralLoss2(SpectralLoss):
    """The same for edm2, whose network returns its own estimate of the log variance of its error.

    The term is added beside the weighted loss and is not divided by that variance.
    """

    def __init__(self, P_mean: float = -0.4, P_std: float = 1.0, sigma_data: float = 0.5, **options: Any):
        super().__init__(P_mean, P_std, sigma_data, **options)

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def __call__(
        self,
        net: Callable[..., Any],
        images: Tensor,
        labels: Tensor | None = None,
        augment_pipe: Callable[[Tensor], tuple[Tensor, Tensor]] | None = None,
    ) -> Tensor:
        """Return the loss of each value, `[B, C, H, W]`, for latents or images; edm2 has no augmentation."""
        if augment_pipe is not None:
            raise TypeError("edm2 trains without augmentation; expected augment_pipe=None")
        level = self._draw(images)
        x_t = level.diffuse(images, torch.randn_like(images))
        x0_hat, log_variance = net(x_t, _column(level.sigma), labels, return_logvar=True)
        weight = _column(EDMWeight(self.sigma_data)(level)) / log_variance.exp()
        return self._with_term(weight * (x0_hat - images) ** 2 + log_variance, x0_hat, images, level)


def _column(values: Tensor) -> Tensor:
    """Return `[B]` as `[B, 1, 1, 1]`."""
    return values.reshape(-1, 1, 1, 1)
