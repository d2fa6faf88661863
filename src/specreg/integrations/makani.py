"""NVIDIA makani: the spectral losses as one of its losses, by name in its YAML.

Read from makani at commit 2dfc4c8 (August 2026); it is on no package index.

    from makani.utils.training import deterministic_trainer as trainer

    trainer.LossHandler = with_term(trainer.LossHandler)

    losses:
      - {type: l2, channel_weights: auto, parameters: {squared: true}}
      - {type: specreg, channel_weights: auto, relative_weight: 0.1, parameters: {loss: "sht:amse"}}

Makani trains forecasts: there is no noise, so there is no weight by noise level. `relative_weight` is λ.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from makani.utils.losses.base_loss import GeometricBaseLoss, LossType
from torch import Tensor

from specreg import losses


class SpectralLoss(GeometricBaseLoss):  # type: ignore[misc]
    """A spectral loss of each channel, `[B, channels]`, which makani's handler weights and sums.

    Args:
        img_shape: latitudes and longitudes of the globe.
        crop_shape: those of the fields, which must be the globe's for `sht`.
        crop_offset: where the crop begins.
        channel_names: names of the channels.
        grid_type: makani's grid, which `sht` transforms take as theirs: "equiangular", "legendre-gauss" or "lobatto".
        loss: see `specreg.losses.build`.
        spatial_distributed: must come to nothing: a transform needs the whole field.

    Ensembles: the loss of each member, averaged. (Makani gives deterministic losses the ensemble's mean, whose spectrum
    rightly falls; this one asks for the members.)
    """

    def __init__(
        self,
        img_shape: tuple[int, int],
        crop_shape: tuple[int, int],
        crop_offset: tuple[int, int],
        channel_names: Sequence[str],
        grid_type: str,
        loss: str = "fft:amplitude",
        spatial_distributed: bool = False,
        **_kwargs: Any,
    ):
        super().__init__(
            img_shape=img_shape,
            crop_shape=crop_shape,
            crop_offset=crop_offset,
            channel_names=list(channel_names),
            grid_type=grid_type,
            spatial_distributed=spatial_distributed,
        )
        if self.spatial_distributed:
            raise ValueError("specreg's losses need whole fields; got fields distributed over latitude or longitude")
        on_sphere = loss.strip().startswith("sht")
        if on_sphere and tuple(crop_shape) != tuple(img_shape):
            raise ValueError(f"{loss} needs the whole globe, {tuple(img_shape)}; got a crop of {tuple(crop_shape)}")
        self.spectral_loss = losses.build(loss, **({"grid": grid_type} if on_sphere else {}))
        if on_sphere:
            self.sht = True  # makani compiles the losses that have no attribute of this name

    @property
    def type(self) -> Any:
        """The kind of loss that gets the members of ensembles, in makani's terms."""
        return LossType.Probabilistic

    def forward(self, prd: Tensor, tar: Tensor, wgt: Tensor | None = None, **_kwargs: Any) -> Tensor:
        """Return the loss of each channel, `[B, C]`.

        Args:
            prd: forecasts, `[B, C, latitudes, longitudes]`, or `[B, members, C, …]`.
            tar: what came true, `[B, C, latitudes, longitudes]`.
            wgt: must be None: to makani's losses it is a weight of points in some and of coefficients in others.
        """
        if wgt is not None:
            raise ValueError("specreg's losses take no wgt; weights by frequency are an option of the loss")
        members = prd.shape[1] if prd.ndim == 5 else 1
        if prd.ndim == 5:
            tar = tar.unsqueeze(1).expand_as(prd)
        rows = self.spectral_loss(prd.reshape(-1, 1, *prd.shape[-2:]), tar.reshape(-1, 1, *tar.shape[-2:]))
        by_member: Tensor = rows.reshape(len(prd), members, prd.shape[-3])
        return by_member.mean(1)


def with_term(handler: type) -> type:
    """Return a subclass of makani's LossHandler that knows the type "specreg" too."""

    class WithTerm(handler):  # type: ignore[misc]
        @torch.compiler.disable(recursive=False)  # type: ignore[untyped-decorator]
        def _parse_loss_type(self, loss_type: str) -> Any:
            return SpectralLoss if loss_type.strip() == "specreg" else super()._parse_loss_type(loss_type)

    WithTerm.__name__ = f"{handler.__name__}WithTerm"
    return WithTerm
