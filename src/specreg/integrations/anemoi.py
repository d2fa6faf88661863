"""anemoi-training: the spectral term as one of its losses, named in its YAML. Read from anemoi-training 0.17.1.

    training_loss:
      datasets:
        data:
          _target_: anemoi.training.losses.combined.CombinedLoss
          loss_weights: [1.0, 0.1]                                  # the second is λ
          losses:
            - _target_: anemoi.training.losses.WeightedMSELoss
              scalers: [general_variable, node_weights]
            - _target_: specreg.integrations.anemoi.SpectralLoss
              loss: sht:amse
              y_dim: 721
              x_dim: 1440
              scalers: [general_variable]                           # none of the grid

Under its EDM objective, losses get the denoised state (or tendency), the clean one and `weights=`, λ_EDM(σ) of each
sample and member: 1/σ² + 1/σ_data². That is inverted for σ, so that the term has its own weight by noise level.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from anemoi.training.losses.base import BaseLoss
from anemoi.training.utils.enums import TensorDim
from torch import Tensor

from specreg import NoiseLevel, SpectralRegularizer, SpectralTerm


def sigma_from_weights(weights: Tensor, sigma_data: float) -> Tensor:
    """Return σ of EDM's weights (σ² + σ_data²) / (σ·σ_data)², in the shape of `weights`.

    In float32 the relative error of σ is about 3e-8·(σ/σ_data)²: below 1% up to σ = 500·σ_data. Where the weights
    cannot be told from 1/σ_data² (from about 2900·σ_data on), σ is finite, large and arbitrary.

    Raises:
        ValueError: where a weight is below 1/σ_data², the smallest that there is; or sigma_data is not positive.
    """
    _check_sigma_data(sigma_data)
    weights = weights.detach()
    weights = weights if weights.dtype == torch.float64 else weights.float()
    least, eps = 1 / sigma_data**2, torch.finfo(weights.dtype).eps
    if not bool((weights >= least * (1 - 8 * eps)).all()):
        raise ValueError(
            f"weights must be EDM's, at least 1/sigma_data² = {least:.6g}; the smallest is {float(weights.min()):.6g}: "
            "sigma_data is that of the model (model.model.edm.sigma_data)"
        )
    return (weights - least).clamp_min(least * eps).rsqrt()


class SpectralLoss(BaseLoss):  # type: ignore[misc]
    """A spectral loss of fields on a rectangular grid, by variable, weighted by noise level where `weights` tell it.

    Args:
        loss: see `SpectralRegularizer`: "fft:amplitude", "sht:amse", "dct:log_power", …, of one variable at a time.
        x_dim: grid points along longitude, or x: the axis that varies fastest in the flattened grid.
        y_dim: grid points along latitude, or y.
        sigma_data: of the model, 1 in anemoi's configurations: what `weights` were made with.
        noise_weight: weight of the term by noise level, see `SpectralRegularizer`.
        subgrid: first point and end of the rectangle in the grid, where there are others beside it (a limited area
            inside a stretched grid); all when None.
        ignore_nans: whether points that are NaN in the target are masked; see the mask of `SpectralRegularizer`.

    λ is this loss's entry in `loss_weights` of CombinedLoss; an automatic λ is not to be had, since losses do not see
    each other there. Without `weights` (validation metrics, deterministic training) the noise weight is 1.
    """

    def __init__(
        self,
        loss: str | Sequence[str] = "fft:amplitude",
        *,
        x_dim: int,
        y_dim: int,
        sigma_data: float = 1.0,
        noise_weight: str = "snr",
        subgrid: Sequence[int | None] | None = None,
        ignore_nans: bool = False,
    ):
        super().__init__(ignore_nans=ignore_nans)
        _check_sigma_data(sigma_data)
        names = loss if isinstance(loss, str) else list(loss)
        self.regularizer = SpectralRegularizer(names, weight=1.0, noise_weight=noise_weight)
        self.x_dim, self.y_dim, self.sigma_data = x_dim, y_dim, sigma_data
        self.subgrid = slice(*(subgrid or (0, None)))
        self.supports_sharding = False  # the trainer then gathers the grid before the losses

    def add_scaler(self, dimension: int | tuple[int, ...], scaler: Tensor, *, name: str | None = None) -> None:
        """See BaseLoss; scalers along the grid are refused, because a spectrum has no grid points.

        Raises:
            ValueError: for scalers along the grid, by name.
        """
        dimensions = (dimension,) if isinstance(dimension, int) else tuple(dimension)
        sizes = dict(zip(dimensions, torch.as_tensor(scaler).shape, strict=False))
        if any(sizes.get(axis, 1) > 1 for axis in (TensorDim.GRID, TensorDim.GRID - len(TensorDim))):
            raise ValueError(
                f"scaler {name!r} has a value for each grid point, and a spectrum has no grid points; "
                f"leave it out of the scalers of {type(self).__name__} (sht transforms weight areas themselves)"
            )
        super().add_scaler(dimension, scaler, name=name)

    def scale(
        self,
        x: Tensor,
        subset_indices: tuple[Any, ...] | None = None,
        *,
        without_scalers: list[str] | list[int] | None = None,
        grid_shard_slice: slice | None = None,
    ) -> Tensor:
        """See BaseLoss, which insists on a scaler along the grid where there are any."""
        scalers = self.scaler
        if without_scalers:
            by_name = isinstance(without_scalers[0], str)
            scalers = scalers.without(without_scalers) if by_name else scalers.without_by_dim(without_scalers)
        scaled: Tensor = scalers.scale_iteratively(x, subset_indices=subset_indices)
        return scaled

    def forward(
        self,
        pred: Tensor,
        target: Tensor,
        squash: bool = True,
        *,
        weights: Tensor | None = None,
        scaler_indices: tuple[Any, ...] | None = None,
        without_scalers: list[str] | list[int] | None = None,
        grid_shard_slice: slice | None = None,
        group: Any = None,
        squash_mode: Any = "avg",
        **_kwargs: Any,
    ) -> Tensor:
        """Return the term, `[]`, or one value a variable, `[variables]`, where `squash` is false.

        Args:
            pred: denoised fields, `[batch, times, members, grid points, variables]`.
            target: clean fields of that shape.
            squash: whether variables are averaged, or summed under `squash_mode="sum"`.
            weights: EDM's weights, of a shape that broadcasts to `[batch, times, members, 1, 1]`.
            scaler_indices: variables to return, as `(..., indices)`.
            without_scalers: scalers to leave out, by name or by dimension.
            grid_shard_slice: must be None: a transform needs the whole grid.
            group: unused, as the grid is whole.
            squash_mode: "avg" or "sum".

        Raises:
            ValueError: for a grid that is not y_dim · x_dim points, shards, or weights that are not EDM's.
        """
        if grid_shard_slice is not None:
            raise ValueError(f"{type(self).__name__} needs the whole grid; got the shard {grid_shard_slice}")
        lead, variables = tuple(pred.shape[:3]), pred.shape[-1]
        x0_hat, x0 = self._fields("pred", pred), self._fields("target", target)
        level = NoiseLevel.edm(x0.new_ones(1))
        if weights is not None:
            try:
                each = weights.expand(*lead, 1, 1)
            except RuntimeError:
                raise ValueError(
                    f"weights must broadcast to batch, times and members, {[*lead, 1, 1]}; got {list(weights.shape)}"
                ) from None
            level = NoiseLevel.edm(sigma_from_weights(each, self.sigma_data).expand(*lead, 1, variables).flatten())
        mask = ~x0.isnan() if self.ignore_nans else None
        term: SpectralTerm = self.regularizer(x0_hat, x0, level, mask=mask)
        each_field = term.per_sample if weights is None else term.per_sample * term.weight
        out = self.scale(each_field.reshape(*lead, 1, variables), scaler_indices, without_scalers=without_scalers)
        reduced: Tensor = self.reduce(out, squash, squash_mode=squash_mode)
        return reduced

    def _fields(self, name: str, x: Tensor) -> Tensor:
        """Return `[batch, times, members, grid, variables]` as `[batch · times · members · variables, 1, y, x]`."""
        x = x[..., self.subgrid, :]
        if x.ndim != len(TensorDim) or x.shape[TensorDim.GRID] != self.y_dim * self.x_dim:
            raise ValueError(
                f"{name} must be [batch, times, members, {self.y_dim}·{self.x_dim} grid points, variables]; "
                f"got {list(x.shape)}"
            )
        return x.transpose(-1, -2).reshape(-1, 1, self.y_dim, self.x_dim)


def _check_sigma_data(sigma_data: float) -> None:
    if not 0 < sigma_data < float("inf"):
        raise ValueError(f"sigma_data must be a positive finite number; got {sigma_data!r}")
