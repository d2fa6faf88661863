"""A spectral loss as a transform and a comparison."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from specreg import _checks
from specreg.losses.coefficients import Grid, Transform
from specreg.losses.comparisons import Comparison
from specreg.losses.inputs import (
    REDUCTIONS,
    FrequencyWeight,
    Reduction,
    frequency_band_names,
    pair,
    refuse_non_finite,
    weights_at,
)
from specreg.losses.modules import SpectralLoss
from specreg.transforms.radial import equal_bands

Numbers = float | Sequence["Numbers"]


class Compared(SpectralLoss):
    """The `comparison` of the coefficients that `transform` finds in x0_hat and x0.

    `losses.build("dct:log_power")` returns one; `specreg.losses.grammar` lists transforms and comparisons.

    Args:
        transform: of `specreg.losses.spectra` and `subbands`.
        comparison: of `specreg.losses.comparisons` and `band_comparisons`.
        ndim: how many trailing axes to transform; all spatial ones when None.
        layout: names of the axes where they are not `[B, C, *space]`, such as "btchw"; see `functional`.
        reduction: "mean" over coefficients (or bands) and channels; "sum" is that times C·∏space (with `dwt` times its
            coefficients, which are more where it pads), so that λ_sum = λ_mean/(C·∏space) as for the other losses.
        weights: weights of what is not transformed: one a channel (variable), or nested for more axes, such as
            [C, levels], or with `ndim=1` on `[B, C, latitudes, longitudes]` an area for each latitude, [1, latitudes].
            They multiply, and do not change the divisor of the mean.
        frequency_weights: weights of equal bands of |frequency| from 0 to Nyquist, any number of them; beyond Nyquist
            the last counts. With `sht` these are bands of degrees.

    Autograd records its operations, so it takes more memory than the losses with short names, and can be differentiated
    twice. Values and gradients are finite for finite inputs; comparisons that square overflow in float32: focal and
    amse beyond amplitudes of 1e12, binned_power where a power is 1e18 times the other (or the tolerance).
    """

    bands = 8
    _weights: Tensor | None
    _by_frequency: Tensor | None

    def __init__(
        self,
        transform: Transform,
        comparison: Comparison,
        *,
        ndim: int | None = None,
        layout: str | None = None,
        reduction: Reduction = "mean",
        weights: Numbers | None = None,
        frequency_weights: Sequence[float] | None = None,
    ):
        super().__init__()
        comparison.check(transform)
        self.transform, self.comparison = transform, comparison
        self.ndim = _checks.dimensions(ndim)
        self.layout = layout if layout is None else _checks.layout_letters(layout)
        self.reduction: Reduction = reduction
        _checks.choice("reduction", reduction, REDUCTIONS)
        self.weights, self.frequency_weights = weights, frequency_weights
        self.register_buffer("_weights", _numbers("weights", weights), persistent=False)
        self.register_buffer("_by_frequency", _numbers("frequency_weights", frequency_weights), persistent=False)
        if self._by_frequency is not None and self._by_frequency.ndim != 1:
            raise ValueError(f"frequency_weights must be a list of numbers; got {frequency_weights!r}")

    @property
    def difference_alone(self) -> bool:
        """Whether the loss is a function of x0_hat − x0."""
        return self.comparison.difference_alone

    def forward(self, x0_hat: Tensor, x0: Tensor, frequency_weight: FrequencyWeight | None = None) -> Tensor:
        """Return the loss of each sample, `[B]`; `frequency_weight` as in `SpectralLoss`."""
        x0_hat, x0, ndim = pair(x0_hat, x0, self.ndim, self.layout)
        with _checks.without_autocast(x0.device):
            found = []
            for F_hat, F, grid in self._coefficients(x0_hat, x0, ndim):
                weight = self._weight(grid, x0, frequency_weight)
                by_row = self.comparison.compare(F_hat, F, grid, weight).mean(-1)
                found.append(self._over_rows(by_row, x0, ndim))
            loss = torch.stack(found).mean(0)
            if self.reduction == "sum":
                loss = loss * self.transform.count(tuple(len(range(n)) for n in x0.shape[1:]), ndim)
        # The order matters: torch 2.4 cannot trace the second question, which a traced graph does not reach.
        readable = _checks.can_read(x0) and not torch._C._are_functorch_transforms_active()
        if readable and not math.isfinite(float(loss.detach().sum())):
            refuse_non_finite(x0)
        return loss

    def by_band(self, x0_hat: Tensor, x0: Tensor) -> dict[str, Tensor]:
        """Return the mean |A − Â| of each sample in eight bands of |frequency|, and the parts that the loss has."""
        x0_hat, x0, ndim = pair(x0_hat.detach(), x0, self.ndim, self.layout)
        with _checks.without_autocast(x0.device), torch.no_grad():
            found = []
            for F_hat, F, grid in self._coefficients(x0_hat, x0, ndim, whole=True):
                errors, index = (F_hat.abs() - F.abs()).abs(), equal_bands(grid.frequency, self.bands)
                size = grid.share.new_zeros(self.bands).index_add(0, index, grid.share)
                bands = errors.new_zeros(*errors.shape[:-1], self.bands).index_add(-1, index, errors * grid.share)
                means = (bands / size.clamp_min(torch.finfo(size.dtype).tiny)).flatten(1, 2).mean(1)
                named = dict(zip(frequency_band_names(self.bands), means.unbind(1), strict=True))
                for name, part in self.comparison.parts(F_hat, F, grid).items():
                    named[name] = self._over_rows(part.mean(-1), x0, ndim)
                found.append(named)
            return {name: torch.stack([named[name] for named in found]).mean(0) for name in found[0]}

    def _coefficients(
        self, x0_hat: Tensor, x0: Tensor, ndim: int, *, whole: bool = False
    ) -> list[tuple[Tensor, Tensor, Grid]]:
        """Return F̂, F and their grid, for each grid of the transform."""
        space = x0.shape[-ndim:]
        self.transform.check(tuple(len(range(n)) for n in space))
        rows = (x.reshape(len(x), -1, *space) for x in (x0_hat, x0))
        if self.difference_alone and not whole:
            x0_hat, x0 = rows
            hats = self.transform.coefficients(x0_hat - x0, ndim)
            clean = tuple(torch.zeros_like(F) for F in hats)
        else:
            hats, clean = (self.transform.coefficients(x, ndim) for x in rows)
        return list(zip(hats, clean, self.transform.grids(space, x0.dtype, x0.device), strict=True))

    def _weight(self, grid: Grid, x0: Tensor, frequency_weight: FrequencyWeight | None) -> Tensor | None:
        """Return the weight of each coefficient, `[B or 1, K]`, None where all count the same."""
        weight = None if frequency_weight is None else weights_at(frequency_weight, grid.frequency, x0)
        if self._by_frequency is None:
            return weight
        fixed = self._by_frequency.to(x0)[equal_bands(grid.frequency, len(self._by_frequency))][None]
        return fixed if weight is None else fixed * weight

    def _over_rows(self, by_row: Tensor, x0: Tensor, ndim: int) -> Tensor:
        """Return the mean `[B]` over the rows of `[B or 1, rows]`, weighted."""
        lead = x0.shape[1 : x0.ndim - ndim]
        if self._weights is not None:
            try:
                weights = self._weights.to(by_row)
                weights = weights.reshape(*weights.shape, *(1,) * (len(lead) - weights.ndim))
                by_row = by_row * weights.expand(lead).reshape(-1)
            except RuntimeError:
                raise ValueError(
                    f"weights must broadcast to the axes that are not transformed, {list(lead)}; "
                    f"got {list(self._weights.shape)}"
                ) from None
        return by_row.mean(1).expand(len(x0))

    def extra_repr(self) -> str:
        """Return transform and comparison with the options that are set."""
        named = {name: getattr(self, name) for name in ("ndim", "layout", "weights", "frequency_weights")}
        said = [f"{name}={value!r}" for name, value in named.items() if value is not None]
        return ", ".join([repr(self.transform), repr(self.comparison), *said, f"reduction={self.reduction!r}"])


def _numbers(name: str, values: Any) -> Tensor | None:
    """Return nested numbers as a tensor, checked."""
    if values is None:
        return None
    try:
        numbers = torch.as_tensor(values, dtype=torch.float32)
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"{name} must be numbers, nested lists of one length at each level; got {values!r}") from None
    if numbers.numel() == 0 or not bool(numbers.isfinite().all()) or bool((numbers < 0).any()):
        raise ValueError(f"{name} must be finite numbers of at least 0; got {values!r}")
    return numbers
