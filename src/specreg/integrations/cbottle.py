"""NVlabs cBottle: its EDM loss on HEALPix with the spectral term, face by face.

Read from cBottle at commit 4ce9aee (May 2026); it is on no package index.

    class Loop(TrainingLoop):                                   # of scripts/train_coarse.py
        def get_loss_fn(self):
            return SpectralEDMLoss(regularizer, sigma_data=1.0, P_mean=self.p_mean, …)

Fields are `[B, C, times, 12·n²]`: twelve faces of n × n pixels, row by row. A spectrum of a face is local, and a face
is not periodic: take "dct:…" or "fft(window=hann):…".
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from math import isqrt
from typing import Any

import torch
from cbottle.loss import EDMLoss
from torch import Tensor

from specreg import NoiseLevel, SpectralRegularizer, SpectralTerm
from specreg.watch import KeepsLastCall


class SpectralEDMLoss(KeepsLastCall, EDMLoss):  # type: ignore[misc]
    """EDMLoss with the term of `regularizer`, spread over the pixels; the other arguments are EDMLoss's.

    Channels with missing values, which EDMLoss masks, are masked in the term too, with the same normalization. `term`
    is the last one, for logging.
    """

    def __init__(self, regularizer: SpectralRegularizer, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.regularizer = regularizer
        self.term: SpectralTerm | None = None

    # One compiled graph around network and loss hides the gradient of the base loss with respect to the output.
    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def __call__(self, net: Callable[..., Any], images: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Return EDMLoss's output for images `[B, C, times, 12·n²]`, with each pixel's share of the term in `total`."""
        outputs: list[Any] = []

        def watched(*given: Any, **named: Any) -> Any:
            outputs.append(net(*given, **named))
            return outputs[-1]

        base = super().__call__(watched, images, *args, **kwargs)
        (output,) = outputs
        seen = ~images.isnan().any(dim=(2, 3), keepdim=True)
        mask = faces(seen.expand_as(images))
        x0_hat = output.out
        measured = {"base_loss": base.denoising.sum() / len(images), "output": x0_hat} if x0_hat.requires_grad else {}
        level = NoiseLevel.edm(base.sigma.flatten())
        self.term = term = self.regularizer(faces(x0_hat), faces(images), level, mask=mask, **measured)
        share = term.weight * term.per_sample / (images[0].numel() * seen.float().mean())
        return dataclasses.replace(base, total=base.total + share.reshape(-1, 1, 1, 1))


def faces(x: Tensor) -> Tensor:
    """Return `[B, C, times, 12·n²]` as `[B, C · times · 12, n, n]`.

    Raises:
        ValueError: where the last axis is no HEALPix grid.
    """
    n = isqrt(x.shape[-1] // 12)
    if x.ndim != 4 or n == 0 or 12 * n * n != x.shape[-1]:
        raise ValueError(f"images must be [B, C, times, 12·n²], twelve square faces; got {list(x.shape)}")
    return x.reshape(len(x), -1, n, n)
