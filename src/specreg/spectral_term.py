"""What a call of the regularizer returns, and the mask that says which values it sees."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, NoReturn

import torch
from torch import Tensor

from specreg import _checks, _html


class SpectralTerm(NamedTuple):
    """The spectral term of a batch: add `loss` to the base loss, log `logs()`."""

    loss: Tensor  # scalar: mean over the batch of weight · per_sample
    per_sample: Tensor  # [B], the spectral loss without λ and noise-level weight
    weight: Tensor  # [B], λ times the noise-level weight
    by_band: Mapping[str, Tensor]  # {band: [B]} mean absolute coefficient error; empty unless asked for
    lam: Tensor  # scalar, λ in effect: automatic or constant, times the warm-up ramp
    gradient_ratio: Tensor | None  # scalar, ‖λ·∂L_S/∂output‖ / ‖∂L/∂output‖ of this batch, where it was measured
    norms: Tensor | None = None  # [2], ‖∂L/∂output‖ and ‖∂L_S/∂output‖ over the global batch, where measured

    def logs(self, prefix: str = "") -> dict[str, Tensor]:
        """Return what is worth logging as detached scalars `[]`, which keep no autograd graph alive.

        Keys, each after `prefix` ("spectral/" keeps them apart from a trainer's own "loss"): "loss", "spectral" and
        "weight" (means of `per_sample` and `weight`), "lam", "gradient_ratio" where it was measured, and "band/NAME"
        for the mean of each band in `by_band`. Nothing is copied to the CPU: loggers that take floats alone need
        `.item()`, which waits for the device.
        """
        values = {"loss": self.loss, "spectral": self.per_sample, "weight": self.weight, "lam": self.lam}
        if self.gradient_ratio is not None:
            values["gradient_ratio"] = self.gradient_ratio
        values |= {f"band/{name}": errors for name, errors in self.by_band.items()}
        return {prefix + name: value.detach().mean() for name, value in values.items()}

    def __radd__(self, other: object) -> NoReturn:
        """Raise TypeError: `base_loss + term` is meant as `base_loss + term.loss`."""
        raise TypeError("expected base_loss + term.loss, a scalar; got the whole SpectralTerm as a summand")

    def _repr_html_(self) -> str:
        """Return the term as a table for notebooks: means over the batch with their spread over its samples."""
        rows = [("loss to add", self.loss), ("λ", self.lam)]
        if self.gradient_ratio is not None:
            rows.append(("gradient relative to the base loss's", self.gradient_ratio))
        rows += [("spectral loss", self.per_sample), ("λ × noise-level weight", self.weight)]
        rows += [(f"error in band {name}", errors) for name, errors in self.by_band.items()]
        shown = []
        for name, tensor in rows:
            values = _checks.in_float64(tensor.detach()).cpu()
            spread = _html.number(float(values.std())) if values.numel() > 1 else ""
            shown.append([name, _html.number(float(values.mean())), spread])
        title = f"Spectral term of {len(self.per_sample)} sample{'s' if len(self.per_sample) != 1 else ''}"
        return _html.table(title, ["", "mean", "standard deviation over samples"], shown)


def spread(mask: Tensor, like: Tensor) -> Tensor:
    """Return a mask in the shape, dtype and on the device of `like`; ValueError where it does not broadcast."""
    try:
        return mask.detach().to(like).expand_as(like)
    except RuntimeError:
        raise ValueError(f"mask must broadcast to the samples, {list(like.shape)}; got {list(mask.shape)}") from None


def masked(x0_hat: Tensor, x0: Tensor, mask: Tensor, layout: str | None) -> tuple[Tensor, Tensor]:
    """Return x0_hat and x0 with x0 in both where `mask` is 0, and in x0_hat the mixture where it is between 0 and 1.

    Where the mask is 0 and x0 is NaN or infinite, both get the mean of what is seen of that sample and channel.
    """
    if layout is not None:
        mask = _checks.arrange("mask", mask[(None,) * (len(layout) - mask.ndim)], layout)
    _checks.alike(x0_hat=x0_hat, x0=x0)
    dtype = torch.promote_types(x0_hat.dtype, x0.dtype)
    x0_hat, clean = x0_hat.to(dtype), x0.detach().to(dtype)
    mask = spread(mask, x0_hat)
    hidden, space = mask == 0, tuple(range(min(2, clean.ndim - 1), clean.ndim))
    # float16 overflows in the sum of a large sample
    seen = torch.where(hidden, 0.0, clean).sum(space, keepdim=True, dtype=_checks.compute_dtype("x0", clean))
    mean = (seen / (~hidden).sum(space, keepdim=True).clamp_min(1)).to(dtype)
    clean = torch.where(hidden & ~clean.isfinite(), mean, clean)
    return torch.where(hidden, clean, torch.where(mask == 1, x0_hat, clean + mask * (x0_hat - clean))), clean
