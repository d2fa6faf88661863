"""DiffWave (Kong et al. 2021, arXiv 2009.09761), with a mel spectrogram as its condition or without one.

Parameters have the names of the public checkpoint. The paper's step embedding, a sine and a cosine at 64 frequencies
from 1 to 10⁴, is a table with one row per training step; the embedding of a fractional step is interpolated linearly.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from specreg import _checks

EMBEDDING = 128
HIDDEN = 512
NOISE_SCHEDULE = tuple(1e-4 + (0.05 - 1e-4) * i / 49 for i in range(50))
FAST_SCHEDULE = (1e-4, 1e-3, 1e-2, 0.05, 0.2, 0.5)


# Far beyond any known network. A config may come from a file of unknown origin, and building it must stay cheap.
_LARGEST = {
    "residual_layers": 1000,
    "residual_channels": 16_384,
    "dilation_cycle_length": 24,
    "n_mels": 4096,
    "n_fft": 1 << 20,
    "hop_samples": 1 << 16,
    "sample_rate": 10_000_000,
    "crop_mel_frames": 1_000_000,
}
_MOST_STEPS = 100_000


@dataclass(frozen=True, kw_only=True)
class DiffWaveConfig:
    """Configuration of a DiffWave network and of the sound it is made for, under the names of the public `params`.

    Args:
        residual_layers: number of dilated residual layers.
        residual_channels: channels of each layer.
        dilation_cycle_length: n, where layer i has dilation 2^(i mod n).
        unconditional: whether the network takes no mel spectrogram.
        n_mels: bands of the mel spectrogram.
        n_fft: window of the mel spectrogram, samples.
        hop_samples: samples from one mel frame to the next.
        sample_rate: Hz.
        crop_mel_frames: mel frames of a training crop.
        noise_schedule: β of the training steps, each in (0, 1).
        inference_noise_schedule: β of the fast sampler's steps.
        upsample_factors: the two strides of the mel upsampler, whose product is the hop; None for the two divisors of
            the hop that are nearest to each other, the smaller first: 16 and 16 for 256.

    Raises:
        ValueError: for a value out of range.
    """

    residual_layers: int = 30
    residual_channels: int = 64
    dilation_cycle_length: int = 10
    unconditional: bool = False
    n_mels: int = 80
    n_fft: int = 1024
    hop_samples: int = 256
    sample_rate: int = 22_050
    crop_mel_frames: int = 62
    noise_schedule: Sequence[float] = NOISE_SCHEDULE
    inference_noise_schedule: Sequence[float] = FAST_SCHEDULE
    upsample_factors: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        for name in _LARGEST:
            value = getattr(self, name)
            if type(value) is not int or not 1 <= value <= _LARGEST[name]:
                raise ValueError(
                    f"{name} must be a whole number from 1 to {_LARGEST[name]:,}; got {_checks.shown(value)}"
                )
        if type(self.unconditional) is not bool:
            raise ValueError(f"unconditional must be true or false; got {_checks.shown(self.unconditional)}")
        for name in ("noise_schedule", "inference_noise_schedule"):
            object.__setattr__(self, name, _betas(name, getattr(self, name)))
        factors = self.upsample_factors or _factors(self.hop_samples)
        whole = isinstance(factors, (list, tuple)) and len(factors) == 2 and all(type(f) is int for f in factors)
        if not whole or min(factors) < 1 or math.prod(factors) != self.hop_samples:
            raise ValueError(
                f"upsample_factors must be two whole numbers whose product is hop_samples, {self.hop_samples}; "
                f"got {list(factors) if whole else _checks.shown(factors)}"
            )
        object.__setattr__(self, "upsample_factors", (int(factors[0]), int(factors[1])))

    @property
    def alphas_cumprod(self) -> Tensor:
        """ᾱ of the training steps, float64 `[T]`."""
        return (1 - torch.tensor(self.noise_schedule, dtype=torch.float64)).cumprod(0)


def _betas(name: str, values: Sequence[float]) -> tuple[float, ...]:
    try:
        betas = tuple(float(beta) for beta in values)
    except (TypeError, ValueError):
        raise ValueError(f"{name} must be numbers; got {_checks.shown(values)}") from None
    if len(betas) > _MOST_STEPS:
        raise ValueError(f"{name} must hold at most {_MOST_STEPS:,} numbers; got {len(betas):,}")
    if not betas or not all(0 < beta < 1 for beta in betas):
        raise ValueError(f"{name} must hold numbers between 0 and 1, at least one; got {list(betas[:8])}")
    return betas


def _factors(hop: int) -> tuple[int, int]:
    smaller = next(f for f in range(math.isqrt(hop), 0, -1) if hop % f == 0)
    return smaller, hop // smaller


class StepEmbedding(nn.Module):
    """Embedding of training steps: `[B]`, whole or fractional, to `[B, 512]`."""

    table: Tensor

    def __init__(self, steps: int):
        super().__init__()
        half = EMBEDDING // 2
        frequency = 10 ** (torch.arange(half) * 4 / (half - 1))
        phase = torch.arange(steps)[:, None] * frequency
        self.register_buffer("table", torch.cat([phase.sin(), phase.cos()], dim=1), persistent=False)
        self.projection1 = nn.Linear(EMBEDDING, HIDDEN)
        self.projection2 = nn.Linear(HIDDEN, HIDDEN)

    def forward(self, t: Tensor) -> Tensor:
        """Return the embedding `[B, 512]` of steps `[B]`."""
        if t.is_floating_point():
            low = t.floor().long()
            between = self.table[low].lerp(self.table[t.ceil().long()], (t - low).to(self.table)[:, None])
        else:
            between = self.table[t]
        return F.silu(self.projection2(F.silu(self.projection1(between))))


class MelUpsampler(nn.Module):
    """Upsampling of mel frames `[B, n_mels, frames]` to one column per sample, `[B, n_mels, frames · hop]`."""

    def __init__(self, factors: tuple[int, int]):
        super().__init__()
        self.conv1, self.conv2 = (
            nn.ConvTranspose2d(1, 1, (3, 2 * f), stride=(1, f), padding=(1, f // 2)) for f in factors
        )

    def forward(self, mel: Tensor) -> Tensor:
        """Return `[B, n_mels, frames · hop]` from `mel` `[B, n_mels, frames]`."""
        h = mel.unsqueeze(1)
        for conv in (self.conv1, self.conv2):
            columns = h.shape[-1] * conv.stride[1]
            h = F.leaky_relu(conv(h), 0.4)[..., :columns]  # an odd stride yields one column too many
        return h.squeeze(1)


class ResidualLayer(nn.Module):
    """Dilated convolution with a gate; half of its output goes to the next layer, half to the sum of skips."""

    def __init__(self, channels: int, dilation: int, n_mels: int | None):
        super().__init__()
        self.dilated_conv = _conv(channels, 2 * channels, 3, dilation)
        self.diffusion_projection = nn.Linear(HIDDEN, channels)
        self.conditioner_projection = None if n_mels is None else _conv(n_mels, 2 * channels)
        self.output_projection = _conv(channels, 2 * channels)

    def forward(self, x: Tensor, step: Tensor, condition: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return output and skip, both `[B, C, T]`, of `x` `[B, C, T]`, `step` `[B, 512]` and mel `[B, n_mels, T]`."""
        h = self.dilated_conv(x + self.diffusion_projection(step)[:, :, None])
        if self.conditioner_projection is not None:
            h = h + self.conditioner_projection(condition)
        gate, content = h.chunk(2, dim=1)
        onward, skip = self.output_projection(gate.sigmoid() * content.tanh()).chunk(2, dim=1)
        return (x + onward) / math.sqrt(2), skip


class DiffWave(nn.Module):
    """The network: from noisy sound, its step and, unless unconditional, a mel spectrogram to the noise.

    Args:
        config: see `DiffWaveConfig`.
    """

    def __init__(self, config: DiffWaveConfig | None = None):
        super().__init__()
        config = config or DiffWaveConfig()
        assert config.upsample_factors is not None  # resolved by the config itself
        self.config = config
        width, n_mels = config.residual_channels, None if config.unconditional else config.n_mels
        self.input_projection = _conv(1, width)
        self.diffusion_embedding = StepEmbedding(len(config.noise_schedule))
        self.spectrogram_upsampler = None if config.unconditional else MelUpsampler(config.upsample_factors)
        self.residual_layers = nn.ModuleList(
            ResidualLayer(width, 2 ** (i % config.dilation_cycle_length), n_mels) for i in range(config.residual_layers)
        )
        self.skip_projection = _conv(width, width)
        self.output_projection = _conv(width, 1)
        nn.init.zeros_(self.output_projection.weight)

    def forward(self, x_t: Tensor, t: Tensor, mel: Tensor | None = None) -> Tensor:
        """Return the noise in `x_t`, in its shape.

        Args:
            x_t: `[B, T]` or `[B, 1, T]`.
            t: training steps from 0, `[B]` or one for all, whole or fractional.
            mel: log-mel spectrogram in [0, 1], `[B, n_mels, T / hop]`; None for an unconditional network.

        Raises:
            ValueError: for shapes that do not fit, a missing or unexpected mel spectrogram, and steps outside the
                schedule (checked on the CPU only: reading them would stall an accelerator).
        """
        x = x_t.unsqueeze(1) if x_t.ndim == 2 else x_t
        if x.ndim != 3 or x.shape[1] != 1:
            raise ValueError(f"x_t must be [B, T] or [B, 1, T]; got {list(x_t.shape)}")
        condition = self._condition(mel, x)
        h = F.relu(self.input_projection(x))
        step = self.diffusion_embedding(self._steps(t, len(x)))
        total = torch.zeros_like(h)
        for layer in self.residual_layers:
            h, skip = layer(h, step, condition)
            total = total + skip
        h = F.relu(self.skip_projection(total / math.sqrt(len(self.residual_layers))))
        noise: Tensor = self.output_projection(h)
        return noise.reshape(x_t.shape)

    def _condition(self, mel: Tensor | None, x: Tensor) -> Tensor | None:
        if self.spectrogram_upsampler is None:
            if mel is not None:
                raise ValueError("a mel spectrogram was given to an unconditional DiffWave")
            return None
        if mel is None:
            raise ValueError("this DiffWave is conditioned on a mel spectrogram; got none")
        frames, rest = divmod(x.shape[-1], self.config.hop_samples)
        expected = [len(x), self.config.n_mels, frames]
        if rest or list(mel.shape) != expected:
            raise ValueError(
                f"mel must be [B, n_mels, T / hop], {expected} for {x.shape[-1]} samples at a hop of "
                f"{self.config.hop_samples}; got {list(mel.shape)}"
            )
        condition: Tensor = self.spectrogram_upsampler(mel)
        return condition

    def _steps(self, t: Tensor, batch: int) -> Tensor:
        if t.ndim > 1 or t.numel() not in (1, batch):
            raise ValueError(f"t must be [B], one step a sample, or one for all of {batch}; got {list(t.shape)}")
        last = len(self.config.noise_schedule) - 1
        if t.device.type == "cpu" and not torch.compiler.is_compiling() and not bool(((t >= 0) & (t <= last)).all()):
            raise ValueError(f"steps must be between 0 and {last}; got {t.tolist()}")
        return t.reshape(-1).expand(batch)


def _conv(channels_in: int, channels_out: int, kernel: int = 1, dilation: int = 1) -> nn.Conv1d:
    conv = nn.Conv1d(channels_in, channels_out, kernel, padding=dilation * (kernel // 2), dilation=dilation)
    nn.init.kaiming_normal_(conv.weight)
    return conv
