"""The paper's losses as nn.Modules with validated options, and the interface that every loss has."""

from __future__ import annotations

import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from specreg import _checks
from specreg.losses import functional
from specreg.losses.functional import BandWeights, Coupling
from specreg.losses.inputs import REDUCTIONS, FrequencyWeight, Reduction, frequency_band_names
from specreg.transforms.fourier import NORMS, Norm
from specreg.transforms.wavelet import MODES, Mode, max_levels


class SpectralLoss(nn.Module, ABC):
    """A spectral loss: called with `(x0_hat, x0)` it returns one value per sample, `[B]`."""

    @property
    def difference_alone(self) -> bool:
        """Whether the loss is a function of x0_hat − x0, as L1 of linear coefficients is."""
        return False

    @abstractmethod
    def forward(self, x0_hat: Tensor, x0: Tensor, frequency_weight: FrequencyWeight | None = None) -> Tensor:
        """Return the loss of each sample, `[B]`, for tensors `[B, T]` or `[B, C, *space]`.

        `frequency_weight` maps frequencies `[K]`, cycles per sample, to weights `[B, K]` (or `[1, K]`).
        """

    @abstractmethod
    def by_band(self, x0_hat: Tensor, x0: Tensor) -> dict[str, Tensor]:
        """Return the mean absolute coefficient error of each sample by band, `{name: [B]}`, without gradient."""

    def extra_repr(self) -> str:
        """Return the options as arguments of the constructor."""
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in inspect.signature(type(self)).parameters)


class Amplitude(SpectralLoss):
    """‖A − Â‖₁ (Eq. 14); options as in `functional.amplitude`."""

    bands = 8

    def __init__(
        self,
        *,
        ndim: int | None = None,
        layout: str | None = None,
        norm: Norm = "ortho",
        reduction: Reduction = "mean",
    ):
        super().__init__()
        self.ndim = _checks.dimensions(ndim)
        self.layout = layout if layout is None else _checks.layout_letters(layout)
        self.norm: Norm = norm
        self.reduction: Reduction = reduction
        _checks.choice("norm", norm, NORMS)
        _checks.choice("reduction", reduction, REDUCTIONS)

    def forward(self, x0_hat: Tensor, x0: Tensor, frequency_weight: FrequencyWeight | None = None) -> Tensor:
        """Return the loss of each sample, `[B]`; `frequency_weight` as in `SpectralLoss`."""
        return functional.amplitude(
            x0_hat,
            x0,
            ndim=self.ndim,
            layout=self.layout,
            norm=self.norm,
            reduction=self.reduction,
            frequency_weight=frequency_weight,
        )

    def by_band(self, x0_hat: Tensor, x0: Tensor) -> dict[str, Tensor]:
        """Return the mean |A − Â| of each sample in eight bands of |frequency|, named by edges in cycles per sample."""
        values = functional.amplitude_bands(
            x0_hat.detach(), x0, bands=self.bands, ndim=self.ndim, layout=self.layout, norm=self.norm
        )
        return dict(zip(frequency_band_names(self.bands), values.unbind(1), strict=True))


class AmplitudePhase(Amplitude):
    """Amplitude and phase (Eq. 15); options as in `functional.amplitude_phase`. Its bands show amplitude errors."""

    def __init__(
        self,
        *,
        coupling: Coupling = "frequency",
        ndim: int | None = None,
        layout: str | None = None,
        norm: Norm = "ortho",
        reduction: Reduction = "mean",
    ):
        super().__init__(ndim=ndim, layout=layout, norm=norm, reduction=reduction)
        self.coupling: Coupling = coupling
        _checks.choice("coupling", coupling, functional.COUPLINGS)

    def forward(self, x0_hat: Tensor, x0: Tensor, frequency_weight: FrequencyWeight | None = None) -> Tensor:
        """Return the loss of each sample, `[B]`; `frequency_weight` as in `SpectralLoss`."""
        return functional.amplitude_phase(
            x0_hat,
            x0,
            coupling=self.coupling,
            ndim=self.ndim,
            layout=self.layout,
            norm=self.norm,
            reduction=self.reduction,
            frequency_weight=frequency_weight,
        )


class Wavelet(SpectralLoss):
    """Σ γ·‖W − Ŵ‖₁ over the bands of a wavelet transform (Eq. 16); options as in `functional.wavelet`."""

    def __init__(
        self,
        wavelet: str = "haar",
        *,
        levels: int | None = None,
        mode: Mode = "periodization",
        band_weights: BandWeights | None = None,
        ndim: int | None = None,
        layout: str | None = None,
        reduction: Reduction = "mean",
    ):
        super().__init__()
        if not isinstance(wavelet, str):
            raise ValueError(f"wavelet must be a name, such as haar or bior1.3; got {wavelet!r}")
        max_levels((1,), wavelet)  # refuses an unknown wavelet
        self.wavelet = wavelet
        self.levels = levels
        self.mode: Mode = mode
        self.band_weights = band_weights
        self.ndim = _checks.dimensions(ndim)
        self.layout = layout if layout is None else _checks.layout_letters(layout)
        self.reduction: Reduction = reduction
        _checks.choice("mode", mode, MODES)
        _checks.choice("reduction", reduction, REDUCTIONS)
        if levels is not None and not (type(levels) is int and levels >= 1):
            raise ValueError(f"levels must be a whole number of at least 1, or None for the deepest; got {levels!r}")
        numbers = isinstance(band_weights, (Mapping, Sequence)) and not isinstance(band_weights, str)
        if isinstance(band_weights, Mapping):  # (1, "dd") is 1dd
            numbers = all(isinstance(key, str) or (isinstance(key, tuple) and len(key) == 2) for key in band_weights)
        if band_weights is not None and not numbers:
            raise ValueError(
                f"band_weights must be one number a level, or numbers by band such as 1dd; got {band_weights!r}"
            )
        gammas = band_weights.values() if isinstance(band_weights, Mapping) else band_weights or ()
        if not all(isinstance(gamma, (int, float)) and math.isfinite(gamma) for gamma in gammas):
            raise ValueError(f"band_weights must be finite numbers; got {band_weights!r}")

    @property
    def difference_alone(self) -> bool:
        """Whether the loss is a function of x0_hat − x0."""
        return True

    def forward(self, x0_hat: Tensor, x0: Tensor, frequency_weight: FrequencyWeight | None = None) -> Tensor:
        """Return the loss of each sample, `[B]`; `frequency_weight` as in `SpectralLoss`."""
        return functional.wavelet(
            x0_hat,
            x0,
            wavelet=self.wavelet,
            levels=self.levels,
            mode=self.mode,
            band_weights=self.band_weights,
            ndim=self.ndim,
            layout=self.layout,
            reduction=self.reduction,
            frequency_weight=frequency_weight,
        )

    def by_band(self, x0_hat: Tensor, x0: Tensor) -> dict[str, Tensor]:
        """Return the mean |W − Ŵ| of each sample by level and band, unweighted by γ; level 1 is the finest."""
        return functional.wavelet_bands(
            x0_hat.detach(),
            x0,
            wavelet=self.wavelet,
            levels=self.levels,
            mode=self.mode,
            ndim=self.ndim,
            layout=self.layout,
        )


class Sum(SpectralLoss):
    """The sum of several losses, for one term with one λ.

    Args:
        losses: at least two, each `(x0_hat, x0) -> [B]`.
    """

    def __init__(self, losses: Sequence[SpectralLoss]):
        super().__init__()
        if len(losses) < 2:
            raise ValueError(f"a sum needs at least two losses; got {len(losses)}")
        for loss in losses:
            if not isinstance(loss, SpectralLoss):
                raise TypeError(f"a sum is of specreg's losses; got {type(loss).__name__}")
        layouts = {(getattr(loss, "ndim", None), getattr(loss, "layout", None)) for loss in losses}
        if len(layouts) > 1:
            raise ValueError(f"losses of a sum must have one ndim and layout; got {sorted(map(str, layouts))}")
        self.losses = nn.ModuleList(losses)
        self.ndim, self.layout = next(iter(layouts))

    @property
    def difference_alone(self) -> bool:
        """Whether the loss is a function of x0_hat − x0."""
        return all(sees_difference_alone(loss) for loss in self.losses)

    def forward(self, x0_hat: Tensor, x0: Tensor, frequency_weight: FrequencyWeight | None = None) -> Tensor:
        """Return the sum of the losses of each sample, `[B]`; `frequency_weight` as in `SpectralLoss`."""
        values = [loss(x0_hat, x0, frequency_weight) for loss in self.losses]
        return torch.stack(values).sum(0)

    def by_band(self, x0_hat: Tensor, x0: Tensor) -> dict[str, Tensor]:
        """Return the errors by band of every loss, with its place in the sum before the band's name."""
        found = ((i, loss.by_band(x0_hat, x0)) for i, loss in enumerate(self.losses))  # type: ignore[operator]
        return {f"{i}:{name}": error for i, bands in found for name, error in bands.items()}

    def extra_repr(self) -> str:
        """Return nothing: the losses print themselves."""
        return ""


def sees_difference_alone(loss: object) -> bool:
    """Return whether a loss is a function of x0_hat − x0, as those on linear coefficients are: wavelets, their sums."""
    return bool(getattr(loss, "difference_alone", False))
