"""ADM (Dhariwal & Nichol 2021, "Diffusion models beat GANs on image synthesis"), in EDM's variant."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from specreg.models.layers import (
    BlockOptions,
    Conv2d,
    Init,
    Linear,
    PositionalEmbedding,
    UNetBlock,
    check_image,
    condition_rows,
    group_norm,
    resolution_levels,
)


class ADM(nn.Module):
    """UNet called as `(x [B, C, H, W], c_noise [B], labels, augment_labels)`; returns `[B, out, H, W]`.

    The arguments are those of `SongUNet` with the same names. Every attention head has 64 channels, so a level with
    fewer channels has no attention.
    """

    def __init__(
        self,
        *,
        img_resolution: int,
        img_channels: int = 3,
        out_channels: int | None = None,
        label_dim: int = 0,
        augment_dim: int = 0,
        model_channels: int = 192,
        channel_mult: Sequence[int] = (1, 2, 3, 4),
        channel_mult_emb: int = 4,
        num_blocks: int = 3,
        attn_resolutions: Sequence[int] = (32, 16, 8),
        dropout: float = 0.10,
    ):
        super().__init__()
        self.img_resolution, self.img_channels, self.levels = img_resolution, img_channels, len(channel_mult)
        self.label_dim, self.augment_dim = label_dim, augment_dim
        embedding = model_channels * channel_mult_emb
        init, zero = Init(mode="fan_in"), Init(0.0, "fan_in")
        options = BlockOptions(
            embedding=embedding,
            dropout=dropout,
            eps=1e-5,
            resample_filter=(1, 1),
            scale_shift=True,
            project_resampled=False,
            skip_scale=1.0,
            head_channels=64,
            init=init,
            init_zero=zero,
            init_attention=None,
        )
        self.map_noise = PositionalEmbedding(model_channels, endpoint=False)
        self.map_augment = Linear(augment_dim, model_channels, bias=False, init=zero) if augment_dim else None
        self.map_layer0 = Linear(model_channels, embedding, init=init)
        self.map_layer1 = Linear(embedding, embedding, init=init)
        # One-hot rows are not scaled by √classes as SongUNet scales them, so the weights are: an embedding starts with
        # a standard deviation of 1.
        label_init = Init(math.sqrt(label_dim), "fan_in_normal")
        self.map_label = Linear(label_dim, embedding, bias=False, init=label_init) if label_dim else None

        sides = resolution_levels(img_resolution, self.levels)
        widths = [model_channels * mult for mult in channel_mult]
        self.enc, self.dec = nn.ModuleDict(), nn.ModuleDict()
        skips, current = [widths[0]], widths[0]
        for level, (side, width) in enumerate(zip(sides, widths, strict=True)):
            if level == 0:
                self.enc[f"{side}x{side}_conv"] = Conv2d(img_channels, current, kernel=3, init=init)
            else:
                self.enc[f"{side}x{side}_down"] = UNetBlock(current, current, options, down=True)
                skips.append(current)
            for i in range(num_blocks):
                attention = side in attn_resolutions
                self.enc[f"{side}x{side}_block{i}"] = UNetBlock(current, width, options, attention=attention)
                current = width
                skips.append(current)
        for level, (side, width) in reversed(list(enumerate(zip(sides, widths, strict=True)))):
            if level == self.levels - 1:
                self.dec[f"{side}x{side}_in0"] = UNetBlock(current, current, options, attention=True)
                self.dec[f"{side}x{side}_in1"] = UNetBlock(current, current, options)
            else:
                self.dec[f"{side}x{side}_up"] = UNetBlock(current, current, options, up=True)
            for i in range(num_blocks + 1):
                attention = side in attn_resolutions
                joined = current + skips.pop()
                self.dec[f"{side}x{side}_block{i}"] = UNetBlock(joined, width, options, attention=attention)
                current = width
        self.out_norm = group_norm(current, eps=1e-5)
        self.out_conv = Conv2d(current, out_channels or img_channels, kernel=3, init=zero)

    def forward(
        self, x: Tensor, c_noise: Tensor, labels: Tensor | None = None, augment_labels: Tensor | None = None
    ) -> Tensor:
        """Return the raw output `[B, out, H, W]`.

        Labels are class indices `[B]` or one-hot rows `[B, label_dim]`; None means rows of zeros.
        """
        check_image(x, self.img_channels, self.levels)
        embedding = self._embed(c_noise, labels, augment_labels).to(x.dtype)
        skips: list[Tensor] = []
        for layer in self.enc.values():
            x = layer(x, embedding) if isinstance(layer, UNetBlock) else layer(x)
            skips.append(x)
        for layer in self.dec.values():
            x = torch.cat([x, skips.pop()], dim=1) if x.shape[1] != layer.channels_in else x
            x = layer(x, embedding)
        out: Tensor = self.out_conv(F.silu(self.out_norm(x)))
        return out

    def _embed(self, c_noise: Tensor, labels: Tensor | None, augment_labels: Tensor | None) -> Tensor:
        embedding = self.map_noise(c_noise).to(self.map_layer0.weight.dtype)
        if augment_labels is not None:
            if self.map_augment is None:
                raise ValueError("augment_labels were given to a network without augmentation conditioning")
            rows = condition_rows("augment_labels", augment_labels, self.augment_dim)
            embedding = embedding + self.map_augment(rows.to(embedding))
        embedding = self.map_layer1(F.silu(self.map_layer0(embedding)))
        if labels is not None:
            if self.map_label is None:
                raise ValueError("labels were given to a network without classes")
            embedding = embedding + self.map_label(condition_rows("labels", labels, self.label_dim).to(embedding))
        return F.silu(embedding)
