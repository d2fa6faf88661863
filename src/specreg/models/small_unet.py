"""A UNet small enough to train on two CPU cores, with self-attention at the coarse levels.

Residual blocks with scale-shift time conditioning and one head of self-attention at the listed levels, as in
improved DDPM (Nichol & Dhariwal 2021). `patch_size` folds pixels into channels before the first level (Hoogeboom et
al. 2023, "simple diffusion"), which lowers the cost of every level.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from specreg import _checks


def timestep_embedding(t: Tensor, width: int, *, max_period: float = 10_000.0) -> Tensor:
    """Return the sinusoidal embedding `[B, width]` of timesteps `[B]` (integers or fractions), as in DDPM."""
    frequencies = torch.exp(-math.log(max_period) * torch.arange(width // 2, device=t.device) / (width // 2))
    angles = _checks.append_dims(t.float(), 2) * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=1)


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(math.gcd(channels, 8), channels)


def _zero(module: nn.Conv2d) -> nn.Conv2d:
    """Return the last layer of a residual branch with zero weights, so that the block starts as the identity."""
    nn.init.zeros_(module.weight)
    if module.bias is not None:
        nn.init.zeros_(module.bias)
    return module


class ResidualBlock(nn.Module):
    """GroupNorm, SiLU, convolution, twice; the embedding scales and shifts the second norm."""

    def __init__(self, channels_in: int, channels_out: int, embedding: int, *, attention: bool, dropout: float):
        super().__init__()
        self.norm0 = _norm(channels_in)
        self.conv0 = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.affine = nn.Linear(embedding, 2 * channels_out)
        self.norm1 = _norm(channels_out)
        self.dropout = nn.Dropout(dropout)
        self.conv1 = _zero(nn.Conv2d(channels_out, channels_out, 3, padding=1))
        self.skip = nn.Identity() if channels_in == channels_out else nn.Conv2d(channels_in, channels_out, 1)
        self.attention = Attention(channels_out) if attention else nn.Identity()

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Return `[B, C_out, H, W]` from `x` `[B, C_in, H, W]` and the embedding `[B, E]`."""
        scale, shift = self.affine(embedding)[:, :, None, None].chunk(2, dim=1)
        h = self.conv0(F.silu(self.norm0(x)))
        h = F.silu(self.norm1(h) * (1 + scale) + shift)
        out: Tensor = self.attention(self.skip(x) + self.conv1(self.dropout(h)))
        return out


class Attention(nn.Module):
    """Residual self-attention over all positions, with about one head per 64 channels."""

    def __init__(self, channels: int):
        super().__init__()
        self.heads = next(heads for heads in range(max(1, channels // 64), 0, -1) if channels % heads == 0)
        self.norm = _norm(channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.proj = _zero(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` `[B, C, H, W]` plus its attention."""
        b, c, h, w = x.shape
        qkv = self.qkv(self.norm(x)).reshape(b, 3, self.heads, c // self.heads, h * w)
        q, k, v = qkv.transpose(-1, -2).unbind(1)
        out = F.scaled_dot_product_attention(q, k, v).transpose(-1, -2).reshape(b, c, h, w)
        mixed: Tensor = self.proj(out)
        return x + mixed


class SmallUNet(nn.Module):
    """UNet for images `[B, channels, H, W]`, called as `(x, t)`, or as `(x, t, labels)` when it has classes.

    Args:
        channels: channels of the images.
        width: channels of the first level, before its multiplier.
        multipliers: multipliers of `width`, one per level; each further level halves the resolution.
        blocks: residual blocks per level.
        attention: levels, counted from 0, whose blocks have self-attention; the last level includes the bottleneck.
        patch_size: side of the pixel squares folded into channels before the first level.
        classes: number of class labels; 0 for none. The label `classes` itself means "no class".
        dropout: dropout probability in every residual block.
    """

    def __init__(
        self,
        channels: int = 1,
        *,
        width: int = 32,
        multipliers: Sequence[int] = (1, 2, 2),
        blocks: int = 1,
        attention: Sequence[int] = (2,),
        patch_size: int = 1,
        classes: int = 0,
        dropout: float = 0.0,
    ):
        super().__init__()
        if width % 2:
            raise ValueError(f"width must be even, half sines and half cosines of the timestep; got {width}")
        self.patch_size = patch_size
        self.divisor = patch_size * 2 ** (len(multipliers) - 1)
        self.width = width
        embedding = 4 * width
        self.embed = nn.Sequential(nn.Linear(width, embedding), nn.SiLU(), nn.Linear(embedding, embedding))
        self.classes = nn.Embedding(classes + 1, embedding) if classes else None

        def block(channels_in: int, channels_out: int, level: int) -> ResidualBlock:
            return ResidualBlock(channels_in, channels_out, embedding, attention=level in attention, dropout=dropout)

        folded = channels * patch_size**2
        self.conv_in = nn.Conv2d(folded, width, 3, padding=1)
        self.down = nn.ModuleList()
        self.up = nn.ModuleList()
        skips, current = [width], width
        last = len(multipliers) - 1
        for level, multiplier in enumerate(multipliers):
            for _ in range(blocks):
                self.down.append(block(current, width * multiplier, level))
                current = width * multiplier
                skips.append(current)
            if level < last:
                self.down.append(nn.Conv2d(current, current, 3, stride=2, padding=1))
                skips.append(current)
        self.middle = nn.ModuleList([block(current, current, last), block(current, current, -1)])
        for level in reversed(range(len(multipliers))):
            for _ in range(blocks + 1):
                self.up.append(block(current + skips.pop(), width * multipliers[level], level))
                current = width * multipliers[level]
            if level:
                self.up.append(nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(current, current, 3, padding=1)))
        self.norm_out = _norm(current)
        self.conv_out = _zero(nn.Conv2d(current, folded, 3, padding=1))

    def forward(self, x: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return the network's output in the shape of `x`, for timesteps `t` `[B]` and class labels `[B]`."""
        if x.shape[-1] % self.divisor or x.shape[-2] % self.divisor:
            raise ValueError(f"height and width must be multiples of {self.divisor}; got {list(x.shape)}")
        if labels is not None and self.classes is None:
            raise ValueError("labels were given to a network without classes")
        embedding = self.embed(timestep_embedding(t, self.width).to(x.dtype))
        if self.classes is not None:
            none = torch.full_like(t, self.classes.num_embeddings - 1, dtype=torch.int64)
            embedding = embedding + self.classes(none if labels is None else labels)
        embedding = F.silu(embedding)

        h = self.conv_in(F.pixel_unshuffle(x, self.patch_size))
        skips = [h]
        for layer in self.down:
            h = layer(h, embedding) if isinstance(layer, ResidualBlock) else layer(h)
            skips.append(h)
        for layer in self.middle:
            h = layer(h, embedding)
        for layer in self.up:
            h = layer(torch.cat([h, skips.pop()], dim=1), embedding) if isinstance(layer, ResidualBlock) else layer(h)
        return F.pixel_shuffle(self.conv_out(F.silu(self.norm_out(h))), self.patch_size)
