"""Networks. Each is called as `(x_t, t)` or `(x_t, t, labels)`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from specreg import _checks
from specreg.models.small_unet import SmallUNet
from specreg.models.unet2d import UNet2D

__all__ = ["AUGMENT_LABELS", "KINDS", "SONGUNET_FORMS", "Conditioning", "SmallUNet", "build", "conditioning"]

KINDS = ("small_unet", "unet2d")

AUGMENT_LABELS = 9
"""Width of the augmentation conditioning of EDM's networks; see `specreg.data.augment`."""

SONGUNET_FORMS: dict[str, dict[str, Any]] = {
    "ddpmpp": {
        "embedding_type": "positional", "encoder_type": "standard", "channel_mult_noise": 1, "resample_filter": [1, 1],
    },
    "ncsnpp": {
        "embedding_type": "fourier", "encoder_type": "residual", "channel_mult_noise": 2,
        "resample_filter": [1, 3, 3, 1],
    },
}  # fmt: skip
"""Options of SongUNet for DDPM++ and NCSN++ ("VP" and "VE" in the file names of EDM's checkpoints)."""


class Conditioning(NamedTuple):
    """Sizes of the conditioning that a network takes beside x and t."""

    classes: int  # 0 for none
    augment: int  # width of the augmentation conditioning; 0 for none


def conditioning(network: nn.Module) -> Conditioning:
    """Return the sizes of a network's conditioning; zeros for networks other than EDM's."""
    inner = getattr(network, "model", network)
    return Conditioning(getattr(inner, "label_dim", 0), getattr(inner, "augment_dim", 0))


def build(
    kind: str,
    *,
    channels: int,
    resolution: int,
    width: int,
    multipliers: Sequence[int],
    blocks: int,
    attention: Sequence[int],
    patch_size: int = 1,
    dropout: float = 0.0,
    seed: int = 0,
) -> nn.Module:
    """Return a new network of a kind; its weights depend on `seed` alone, and the global random state stays unchanged.

    Args:
        kind: "small_unet", or "unet2d" for diffusers' UNet2DModel.
        channels: channels of the images.
        resolution: side of the images, pixels.
        width: channels of the first level, before its multiplier.
        multipliers: multipliers of `width`, one per level.
        blocks: residual blocks per level.
        attention: levels, counted from 0, whose blocks have self-attention.
        patch_size: see SmallUNet.
        dropout: dropout probability in every residual block.
        seed: seed of the initial weights.
    """
    _checks.choice("model kind", kind, KINDS)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if kind == "small_unet":
            return SmallUNet(
                channels,
                width=width,
                multipliers=multipliers,
                blocks=blocks,
                attention=attention,
                patch_size=patch_size,
                dropout=dropout,
            )
        if patch_size != 1:
            raise ValueError(f"unet2d has no patch_size; expected 1, got {patch_size}")
        plain, attending = ("DownBlock2D", "UpBlock2D"), ("AttnDownBlock2D", "AttnUpBlock2D")
        kinds = [attending if level in attention else plain for level in range(len(multipliers))]
        return UNet2D(
            sample_size=resolution,
            in_channels=channels,
            out_channels=channels,
            block_out_channels=tuple(width * m for m in multipliers),
            layers_per_block=blocks,
            down_block_types=tuple(down for down, _ in kinds),
            up_block_types=tuple(up for _, up in reversed(kinds)),
            norm_num_groups=math.gcd(32, width),
            dropout=dropout,
        )
