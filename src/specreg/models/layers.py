"""Layers of the EDM networks: resampling convolutions, embeddings of the noise level, the residual block.

Parameter names are those of the public checkpoints. Sources: Song et al. 2021 ("Score-based generative modeling
through SDEs", DDPM++ and NCSN++), Dhariwal & Nichol 2021 (ADM), Karras et al. 2022 (EDM, appendix F).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def group_norm(channels: int, *, eps: float) -> nn.GroupNorm:
    """Return a GroupNorm of min(32, channels // 4) groups."""
    return nn.GroupNorm(max(1, min(32, channels // 4)), channels, eps=eps)


class Init(NamedTuple):
    """Distribution of initial weights.

    | mode | distribution | variance | bias |
    |---|---|---|---|
    | fan_avg | uniform | 2·gain²/(fan_in + fan_out) | 0 |
    | fan_in | uniform | gain²/(3·fan_in) | as the weights |
    | fan_in_normal | normal | gain²/fan_in | as the weights |
    """

    gain: float = 1.0
    mode: Literal["fan_avg", "fan_in", "fan_in_normal"] = "fan_avg"

    @torch.no_grad()
    def fill(self, weight: Tensor, bias: Tensor | None) -> None:
        """Fill a weight `[out, in, ...]` and its bias in place."""
        space = weight[0, 0].numel() if weight.ndim > 2 else 1
        fan_in, fan_out = weight.shape[1] * space, weight.shape[0] * space
        if self.mode == "fan_in_normal":
            for values in (weight, bias):
                if values is not None:
                    values.normal_(0.0, self.gain / math.sqrt(fan_in))
            return
        bound = math.sqrt(6 / (fan_in + fan_out) if self.mode == "fan_avg" else 1 / fan_in)
        weight.uniform_(-bound, bound).mul_(self.gain)
        if bias is not None:
            bias.zero_() if self.mode == "fan_avg" else bias.uniform_(-bound, bound).mul_(self.gain)


class Linear(nn.Linear):
    """A linear layer that takes its initialization as an argument."""

    def __init__(self, features_in: int, features_out: int, *, bias: bool = True, init: Init):
        super().__init__(features_in, features_out, bias=bias)
        init.fill(self.weight, self.bias)


class Conv2d(nn.Module):
    """Convolution that may halve or double the resolution with a fixed separable filter; `kernel=0` only resamples.

    The input is `[B, in, H, W]`, the output `[B, out, H', W']`. With `fused` the filter and its stride follow the
    convolution instead of preceding it, and the input is padded once for both.

    Args:
        channels_in: channels of the input.
        channels_out: channels of the output; they must equal `channels_in` without a kernel.
        kernel: side of the kernel, odd; 0 for no convolution.
        up: whether the resolution is doubled first.
        down: whether the resolution is halved first.
        resample_filter: taps of the filter along one axis, which are normalized; (1, 1) is the box filter.
        fused: see above; it acts only with `down`.
        init: initialization of weight and bias.
    """

    periodic: bool
    """Whether the image goes on at its opposite edge, instead of zeros beyond its edges; with the box filter alone."""
    weight: nn.Parameter | None
    bias: nn.Parameter | None
    resample_filter: Tensor | None

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        *,
        kernel: int,
        up: bool = False,
        down: bool = False,
        resample_filter: Sequence[float] = (1, 1),
        fused: bool = False,
        init: Init = Init(),  # noqa: B008  (immutable)
    ):
        super().__init__()
        self.up, self.down, self.fused, self.pad = up, down, fused, kernel // 2
        self.box = tuple(resample_filter) == (1, 1)
        self.periodic = False
        self.weight = self.bias = None
        if kernel:
            self.weight = nn.Parameter(torch.empty(channels_out, channels_in, kernel, kernel))
            self.bias = nn.Parameter(torch.zeros(channels_out))
            init.fill(self.weight, self.bias)
        taps = torch.tensor(resample_filter, dtype=torch.float32)
        taps = taps.outer(taps) / taps.sum().square()
        self.register_buffer("resample_filter", taps[None, None] if up or down else None)
        self.filter_pad = (len(resample_filter) - 1) // 2

    def forward(self, x: Tensor) -> Tensor:
        """Return `[B, out, H', W']`."""
        if self.fused and self.down and self.weight is not None:
            x = F.conv2d(x, self.weight, padding=self.pad + self.filter_pad)
            x = self._halve(x, 0)
            assert self.bias is not None
            return x + self.bias.to(x.dtype)[:, None, None]
        if self.up:
            x = self._double(x)
        if self.down:
            x = self._halve(x, self.filter_pad)
        if self.weight is None:
            return x
        if self.periodic and self.pad:
            return F.conv2d(F.pad(x, (self.pad,) * 4, mode="circular"), self.weight, self.bias)
        return F.conv2d(x, self.weight, self.bias, padding=self.pad)

    def _double(self, x: Tensor) -> Tensor:
        if self.box:
            return F.interpolate(x, scale_factor=2.0, mode="nearest")
        taps = self._taps(x)
        return F.conv_transpose2d(x, 4 * taps, groups=x.shape[1], stride=2, padding=self.filter_pad)

    def _halve(self, x: Tensor, padding: int) -> Tensor:
        if self.box:
            return F.avg_pool2d(x, 2)
        return F.conv2d(x, self._taps(x), groups=x.shape[1], stride=2, padding=padding)

    def _taps(self, x: Tensor) -> Tensor:
        assert self.resample_filter is not None
        return self.resample_filter.to(x.dtype).expand(x.shape[1], 1, -1, -1)

    def extra_repr(self) -> str:
        """Return shape and resampling, for `print(network)`."""
        shape = "resample" if self.weight is None else "×".join(map(str, self.weight.shape))
        return shape + (", up" if self.up else "") + (", down" if self.down else "") + (", fused" if self.fused else "")


class PositionalEmbedding(nn.Module):
    """Embedding [cos, sin] of c_noise times frequencies that fall geometrically from 1, `[B]` to `[B, channels]`.

    With `endpoint` the last frequency is 1/10000 (DDPM++); else the sequence stops one step before 1/10000 (ADM).
    """

    def __init__(self, channels: int, *, endpoint: bool):
        super().__init__()
        self.count, self.last = channels // 2, channels // 2 - endpoint

    def forward(self, c_noise: Tensor) -> Tensor:
        """Return the embedding `[B, channels]` of `c_noise` `[B]`, always float32."""
        powers = torch.arange(self.count, dtype=torch.float32, device=c_noise.device) / self.last
        angles = c_noise.float()[:, None] * (1 / 10000) ** powers
        return torch.cat([angles.cos(), angles.sin()], dim=1)


class FourierEmbedding(nn.Module):
    """Embedding [cos, sin] of 2π·c_noise times fixed normal frequencies with standard deviation `scale`."""

    freqs: Tensor

    def __init__(self, channels: int, *, scale: float = 16.0):
        super().__init__()
        self.register_buffer("freqs", torch.randn(channels // 2) * scale)

    def forward(self, c_noise: Tensor) -> Tensor:
        """Return the embedding `[B, channels]` of `c_noise` `[B]`, always float32."""
        angles = c_noise.float()[:, None] * (2 * math.pi * self.freqs.float())
        return torch.cat([angles.cos(), angles.sin()], dim=1)


class BlockOptions(NamedTuple):
    """Options that all blocks of a network share."""

    embedding: int  # channels of the noise embedding
    dropout: float
    eps: float  # of GroupNorm
    resample_filter: Sequence[float]
    scale_shift: bool  # the embedding scales and shifts after norm1 (ADM); else it is added before
    project_resampled: bool  # whether the skip of a resampling block also has a 1×1 convolution
    skip_scale: float  # factor of the output after each residual sum
    head_channels: int | None  # channels of an attention head; None for one head
    init: Init
    init_zero: Init  # last layer of each residual branch
    init_attention: Init | None  # of qkv; None for `init`


class UNetBlock(nn.Module):
    """Residual block: GroupNorm, SiLU and convolution, twice, with the noise embedding between; then self-attention.

    The input is `[B, in, H, W]` with an embedding `[B, E]`, the output `[B, out, H', W']`. Attention is optional, and
    absent where a block has fewer channels than one head needs.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        options: BlockOptions,
        *,
        up: bool = False,
        down: bool = False,
        attention: bool = False,
    ):
        super().__init__()
        o = options
        self.channels_in, self.channels_out = channels_in, channels_out
        self.scale_shift, self.skip_scale, self.dropout = o.scale_shift, o.skip_scale, o.dropout
        self.heads = channels_out // (o.head_channels or channels_out) if attention else 0
        resample = {"up": up, "down": down, "resample_filter": o.resample_filter}
        self.norm0 = group_norm(channels_in, eps=o.eps)
        self.conv0 = Conv2d(channels_in, channels_out, kernel=3, up=up, down=down, resample_filter=o.resample_filter,
                            init=o.init)  # fmt: skip
        self.affine = Linear(o.embedding, channels_out * (1 + o.scale_shift), init=o.init)
        self.norm1 = group_norm(channels_out, eps=o.eps)
        self.conv1 = Conv2d(channels_out, channels_out, kernel=3, init=o.init_zero)
        self.skip: Conv2d | None = None
        if channels_in != channels_out or up or down:
            project = o.project_resampled or channels_in != channels_out
            self.skip = Conv2d(channels_in, channels_out, kernel=int(project), init=o.init, **resample)  # type: ignore[arg-type]
        if self.heads:
            self.norm2 = group_norm(channels_out, eps=o.eps)
            self.qkv = Conv2d(channels_out, 3 * channels_out, kernel=1, init=o.init_attention or o.init)
            self.proj = Conv2d(channels_out, channels_out, kernel=1, init=o.init_zero)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Return `[B, out, H', W']` from `x` `[B, in, H, W]` and the embedding `[B, E]`."""
        h = self.conv0(F.silu(self.norm0(x)))
        moved = self.affine(embedding)[:, :, None, None].to(h.dtype)
        if self.scale_shift:
            scale, shift = moved.chunk(2, dim=1)
            h = F.silu(torch.addcmul(shift, self.norm1(h), scale + 1))
        else:
            h = F.silu(self.norm1(h + moved))
        h = self.conv1(F.dropout(h, self.dropout, self.training))
        h = (h + (x if self.skip is None else self.skip(x))) * self.skip_scale
        out: Tensor = (h + self._attend(h)) * self.skip_scale if self.heads else h
        return out

    def _attend(self, x: Tensor) -> Tensor:
        b, c, height, width = x.shape
        qkv = self.qkv(self.norm2(x)).reshape(b, self.heads, c // self.heads, 3, height * width)
        q, k, v = qkv.permute(3, 0, 1, 4, 2).unbind(0)
        attended = F.scaled_dot_product_attention(q, k, v).transpose(-1, -2).reshape(b, c, height, width)
        out: Tensor = self.proj(attended)
        return out


def condition_rows(name: str, value: Tensor, width: int) -> Tensor:
    """Return conditioning as float rows `[B, width]`; class indices `[B]` become one-hot rows.

    Raises ValueError for other shapes.
    """
    if not value.is_floating_point() and value.ndim == 1:
        return F.one_hot(value.long(), width).float()
    if value.ndim != 2 or value.shape[1] != width:
        raise ValueError(f"{name} must be [B, {width}]" + f"; got {list(value.shape)}")
    return value


def resolution_levels(resolution: int, levels: int) -> list[int]:
    """Return the sides of the levels; raises ValueError where an odd side would have to be halved."""
    if resolution % 2 ** (levels - 1):
        raise ValueError(
            f"img_resolution must be a multiple of {2 ** (levels - 1)} for {levels} levels; got {resolution}"
        )
    return [resolution >> level for level in range(levels)]


def check_image(x: Tensor, channels: int, levels: int) -> None:
    """Raise ValueError unless `x` is `[B, channels, H, W]` with sides that the levels can halve."""
    if x.ndim != 4 or x.shape[1] != channels:
        raise ValueError(f"x must be [B, {channels}, H, W]; got {list(x.shape)}")
    if x.shape[2] % 2 ** (levels - 1) or x.shape[3] % 2 ** (levels - 1):
        raise ValueError(f"height and width must be multiples of {2 ** (levels - 1)}; got {list(x.shape)}")
