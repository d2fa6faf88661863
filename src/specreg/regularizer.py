"""The spectral term: L_total = L + λ·L_S (Eq. 17), with λ a number times a function of the noise level."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from specreg import _checks, losses
from specreg.diffusion import noise_weight as noise_weights
from specreg.diffusion.noise_level import NoiseLevel
from specreg.diffusion.noise_weight import NoiseWeight


class SpectralTerm(NamedTuple):
    """What a regularizer returns; add `loss` to the base loss."""

    loss: Tensor  # scalar: mean over the batch of weight · per_sample
    per_sample: Tensor  # [B], the unweighted spectral loss
    weight: Tensor  # [B], λ times the noise-level weight
    by_band: Mapping[str, Tensor]  # {band: [B]} mean absolute coefficient error; empty unless asked for


class SpectralRegularizer(nn.Module):
    """A spectral loss on the predicted clean sample, weighted by λ and by noise level.

    Args:
        loss: a name ("amplitude", "amplitude_phase", "haar", "bior1.3", "wavelet:NAME"), or any callable
            `(x0_hat, x0) -> [B]`, such as `specreg.losses.Wavelet("bior1.3", levels=3)`.
        weight: λ, a finite number of at least 0; or "edm", the paper's weighted λ = λ_EDM(σ), which is λ = 1
            with `noise_weight="edm"`. At 0 the term takes no part in the graph: training is bit-identical to
            training without it, while `per_sample` still says what the loss would be.
        noise_weight: "constant", "edm", "snr", "hard_gate", "smooth_gate", or any callable
            `NoiseLevel -> [B]`, such as `specreg.noise_weights.SNR(power=0.5, clip=5)`.
        by_band: whether terms carry per-band errors, for logging; costs one more transform a call.

    Example:
        >>> import torch, specreg
        >>> reg = specreg.SpectralRegularizer("amplitude_phase", weight=0.1)
        >>> x0, x0_hat = torch.randn(4, 3, 32, 32), torch.randn(4, 3, 32, 32, requires_grad=True)
        >>> term = reg(x0_hat, x0, specreg.NoiseLevel.edm(torch.full((4,), 0.5)))
        >>> term.loss.backward()
    """

    def __init__(
        self,
        loss: str | Callable[[Tensor, Tensor], Tensor] = "amplitude_phase",
        *,
        weight: float | Literal["edm"] = 0.1,
        noise_weight: str | NoiseWeight = "constant",
        by_band: bool = False,
    ):
        super().__init__()
        if isinstance(weight, str):
            _checks.choice("weight", weight, ["edm"])
            if noise_weight not in ("constant", "edm"):
                raise ValueError(f'weight="edm" sets the noise weight; got noise_weight={noise_weight!r} beside it')
            weight, noise_weight = 1.0, "edm"
        if not 0 <= weight < float("inf"):
            raise ValueError(f"weight (λ) must be a finite number of at least 0; got {weight}")
        self.spectral_loss = losses.build(loss) if isinstance(loss, str) else loss
        self.weight = float(weight)
        self.noise_weight = noise_weights.build(noise_weight) if isinstance(noise_weight, str) else noise_weight
        self.wants_bands = by_band
        if by_band and not hasattr(self.spectral_loss, "by_band"):
            raise TypeError(f"by_band=True needs a loss with a by_band method; {loss!r} has none")

    def forward(self, x0_hat: Tensor, x0: Tensor, level: NoiseLevel) -> SpectralTerm:
        """Return the term for predictions `x0_hat`, data `x0` (`[B, C, *space]`) and their noise level (B or 1)."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.weight > 0):
            per_sample = self.spectral_loss(x0_hat, x0)
        level_weight = self.noise_weight(level).to(per_sample)
        if level_weight.shape not in (per_sample.shape, (1,)):
            raise ValueError(
                f"noise weights must be one a sample, [{len(per_sample)}], or one for all; "
                f"got {list(level_weight.shape)}"
            )
        # Not 0 · level_weight: λ_EDM is infinite without noise.
        weight = (self.weight * level_weight if self.weight > 0 else torch.zeros_like(level_weight)).expand_as(
            per_sample
        )
        loss = (weight * per_sample).mean() if self.weight > 0 else per_sample.new_zeros(())
        bands: Any = self.spectral_loss.by_band(x0_hat, x0) if self.wants_bands else {}  # type: ignore[union-attr]
        return SpectralTerm(loss, per_sample, weight, bands)

    def extra_repr(self) -> str:
        """λ and the noise-level weight; the loss prints itself as a submodule."""
        return f"weight={self.weight:g}, noise_weight={self.noise_weight}"
