"""SongUNet: the networks DDPM++ and NCSN++ of Song et al. 2021, as EDM uses them (Karras et al. 2022, Table 7).

DDPM++ is `embedding_type="positional"`, `encoder_type="standard"`, `channel_mult_noise=1`, `resample_filter=(1, 1)`;
NCSN++ is `"fourier"`, `"residual"`, 2 and `(1, 3, 3, 1)`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from specreg import _checks
from specreg.models.layers import (
    BlockOptions,
    Conv2d,
    FourierEmbedding,
    Init,
    Linear,
    PositionalEmbedding,
    UNetBlock,
    check_image,
    condition_rows,
    group_norm,
    resolution_levels,
)

EmbeddingType = Literal["positional", "fourier"]
EncoderType = Literal["standard", "residual"]


class SongUNet(nn.Module):
    """UNet called as `(x [B, C, H, W], c_noise [B], labels, augment_labels)`; returns `[B, out, H, W]`.

    Args:
        img_resolution: side of the images that the network was made for, pixels; the layers are named after it.
        img_channels: channels of the images.
        out_channels: channels of the output; None for `img_channels`. iDDPM's networks have twice as many.
        label_dim: number of classes; 0 for none.
        augment_dim: width of the augmentation conditioning; 0 for none.
        model_channels: channels of the first level, before its multiplier.
        channel_mult: multipliers of `model_channels`, one per level.
        channel_mult_emb: multiplier of `model_channels` for the noise embedding.
        num_blocks: residual blocks per level.
        attn_resolutions: sides, in pixels, of the levels whose blocks have attention.
        dropout: dropout probability in every residual block.
        embedding_type: embedding of the noise level, "positional" or "fourier".
        channel_mult_noise: multiplier of `model_channels` for the noise embedding before its two layers.
        encoder_type: "standard", or "residual" for a second path that carries the filtered image.
        resample_filter: taps of the filter that halves and doubles the resolution.
        periodic: whether images go on at their opposite edges, as fields in a periodic box do; only DDPM++'s form can.
    """

    def __init__(
        self,
        *,
        img_resolution: int,
        img_channels: int = 3,
        out_channels: int | None = None,
        label_dim: int = 0,
        augment_dim: int = 0,
        model_channels: int = 128,
        channel_mult: Sequence[int] = (1, 2, 2, 2),
        channel_mult_emb: int = 4,
        num_blocks: int = 4,
        attn_resolutions: Sequence[int] = (16,),
        dropout: float = 0.10,
        embedding_type: EmbeddingType = "positional",
        channel_mult_noise: int = 1,
        encoder_type: EncoderType = "standard",
        resample_filter: Sequence[float] = (1, 1),
        periodic: bool = False,
    ):
        super().__init__()
        _checks.choice("embedding_type", embedding_type, ("positional", "fourier"))
        _checks.choice("encoder_type", encoder_type, ("standard", "residual"))
        if periodic and tuple(resample_filter) != (1, 1):
            raise ValueError(f"periodic needs resample_filter (1, 1); got {tuple(resample_filter)}")
        if periodic and encoder_type != "standard":
            raise ValueError(f"periodic needs encoder_type standard; got {encoder_type}")
        self.img_resolution, self.img_channels, self.levels = img_resolution, img_channels, len(channel_mult)
        self.label_dim, self.augment_dim = label_dim, augment_dim
        noise, embedding = model_channels * channel_mult_noise, model_channels * channel_mult_emb
        init, init_zero = Init(), Init(1e-5)
        options = BlockOptions(
            embedding=embedding,
            dropout=dropout,
            eps=1e-6,
            resample_filter=resample_filter,
            scale_shift=False,
            project_resampled=True,
            skip_scale=math.sqrt(0.5),
            head_channels=None,
            init=init,
            init_zero=init_zero,
            init_attention=Init(math.sqrt(0.2)),
        )
        if embedding_type == "positional":
            self.map_noise: nn.Module = PositionalEmbedding(noise, endpoint=True)
        else:
            self.map_noise = FourierEmbedding(noise)
        self.map_label = Linear(label_dim, noise, init=init) if label_dim else None
        self.map_augment = Linear(augment_dim, noise, bias=False, init=init) if augment_dim else None
        self.map_layer0 = Linear(noise, embedding, init=init)
        self.map_layer1 = Linear(embedding, embedding, init=init)

        sides = resolution_levels(img_resolution, self.levels)
        widths = [model_channels * mult for mult in channel_mult]
        self.enc, self.dec = nn.ModuleDict(), nn.ModuleDict()
        skips, current, side_path = [model_channels], model_channels, img_channels
        for level, (side, width) in enumerate(zip(sides, widths, strict=True)):
            if level == 0:
                self.enc[f"{side}x{side}_conv"] = Conv2d(img_channels, model_channels, kernel=3, init=init)
            else:
                self.enc[f"{side}x{side}_down"] = UNetBlock(current, current, options, down=True)
                if encoder_type == "residual":
                    self.enc[f"{side}x{side}_aux_residual"] = Conv2d(
                        side_path, current, kernel=3, down=True, fused=True, resample_filter=resample_filter, init=init
                    )
                    side_path = current
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
                attention = i == num_blocks and side in attn_resolutions
                joined = current + skips.pop()
                self.dec[f"{side}x{side}_block{i}"] = UNetBlock(joined, width, options, attention=attention)
                current = width
        self.dec[f"{img_resolution}x{img_resolution}_aux_norm"] = group_norm(current, eps=1e-6)
        self.dec[f"{img_resolution}x{img_resolution}_aux_conv"] = Conv2d(
            current, out_channels or img_channels, kernel=3, init=init_zero
        )
        for module in self.modules():
            if isinstance(module, Conv2d):
                module.periodic = periodic

    def forward(
        self, x: Tensor, c_noise: Tensor, labels: Tensor | None = None, augment_labels: Tensor | None = None
    ) -> Tensor:
        """Return the raw output `[B, out, H, W]`.

        Labels are class indices `[B]` or one-hot rows `[B, label_dim]`; None means rows of zeros.
        """
        check_image(x, self.img_channels, self.levels)
        embedding = self._embed(c_noise, labels, augment_labels).to(x.dtype)
        skips: list[Tensor] = []
        side_path = x
        for name, layer in self.enc.items():
            if name.endswith("aux_residual"):
                x = skips[-1] = side_path = (x + layer(side_path)) * math.sqrt(0.5)
            else:
                x = layer(x, embedding) if isinstance(layer, UNetBlock) else layer(x)
                skips.append(x)
        for layer in self.dec.values():
            if isinstance(layer, UNetBlock):
                x = torch.cat([x, skips.pop()], dim=1) if x.shape[1] != layer.channels_in else x
                x = layer(x, embedding)
            else:
                x = F.silu(layer(x)) if isinstance(layer, nn.GroupNorm) else layer(x)
        return x

    def _embed(self, c_noise: Tensor, labels: Tensor | None, augment_labels: Tensor | None) -> Tensor:
        embedding = torch.cat(self.map_noise(c_noise).chunk(2, dim=1)[::-1], dim=1)
        embedding = embedding.to(self.map_layer0.weight.dtype)
        if self.map_label is not None:
            rows = embedding.new_zeros(1, self.label_dim)
            if labels is not None:
                rows = condition_rows("labels", labels, self.label_dim).to(embedding)
            embedding = embedding + self.map_label(rows * math.sqrt(self.label_dim))
        elif labels is not None:
            raise ValueError("labels were given to a network without classes")
        if augment_labels is not None:
            if self.map_augment is None:
                raise ValueError("augment_labels were given to a network without augmentation conditioning")
            rows = condition_rows("augment_labels", augment_labels, self.augment_dim)
            embedding = embedding + self.map_augment(rows.to(embedding))
        return F.silu(self.map_layer1(F.silu(self.map_layer0(embedding))))
