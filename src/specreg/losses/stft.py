"""Multi-resolution STFT amplitude loss (Yamamoto et al. 2020, arXiv 1910.11480), a common training loss of vocoders.

It is not one of the paper's losses, but has their interface. With S and Ŝ the amplitudes of the short-time spectra of
x0 and x0_hat at one resolution, floored at `AMPLITUDE_FLOOR`, the mean over resolutions of

    convergence · ‖w·(S − Ŝ)‖_F / ‖S‖_F  +  log_amplitude · mean w·|ln S − ln Ŝ|  +  linear_amplitude · mean w·|S − Ŝ|

where w is 1, or a weight by frequency. Amplitudes are not normalized. The loss equals that of auraloss.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from specreg import _checks
from specreg._compile import constant_tensors
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

# auraloss's 1e-8 in power. Smaller amplitudes count as silence in value and gradient, so gradients stay finite.
AMPLITUDE_FLOOR = 1e-4
FFT_SIZES = (1024, 2048, 512)
HOP_SIZES = (120, 240, 50)
WIN_LENGTHS = (600, 1200, 240)


class _Resolution(NamedTuple):
    fft_size: int
    hop: int
    window: int


class MultiResolutionSTFT(SpectralLoss):
    """Multi-resolution STFT amplitude loss of sound `[B, T]` or `[B, C, T]`; channels are transformed one by one.

    Args:
        fft_sizes: transform lengths in samples, one per resolution; clips must be longer than half the largest.
        hop_sizes: distances between frames in samples.
        win_lengths: lengths of the Hann windows in samples, each at most its transform's.
        convergence: weight of spectral convergence, not negative.
        log_amplitude: weight of the log-amplitude distance (natural logarithm).
        linear_amplitude: weight of the amplitude distance.
        layout: names of the axes where they are not `[B, C, T]`, such as "btc".
        reduction: "mean" as written in the module's docstring; "sum" is that times C·T, so that λ_sum = λ_mean/(C·T)
            as for the other losses.

    The gradient with respect to x0_hat is finite everywhere, silence included: at amplitudes below
    `AMPLITUDE_FLOOR` it is 0, above it at most 1/`AMPLITUDE_FLOOR` per coefficient. Amplitudes beyond 1e19 overflow.

    Raises:
        ValueError: for options out of range, for images and video, and for clips that are too short.
    """

    bands = 8

    def __init__(
        self,
        *,
        fft_sizes: Sequence[int] = FFT_SIZES,
        hop_sizes: Sequence[int] = HOP_SIZES,
        win_lengths: Sequence[int] = WIN_LENGTHS,
        convergence: float = 1.0,
        log_amplitude: float = 1.0,
        linear_amplitude: float = 0.0,
        layout: str | None = None,
        reduction: Reduction = "mean",
    ):
        super().__init__()
        for name, sizes in (("fft_sizes", fft_sizes), ("hop_sizes", hop_sizes), ("win_lengths", win_lengths)):
            if not isinstance(sizes, Sequence) or not all(type(n) is int for n in sizes):
                raise ValueError(f"{name} must be whole numbers, one for each resolution; got {sizes!r}")
        given = {"convergence": convergence, "log_amplitude": log_amplitude, "linear_amplitude": linear_amplitude}
        for name, weight in given.items():
            if isinstance(weight, bool) or not isinstance(weight, (int, float)):
                raise ValueError(f"{name} must be a number; got {weight!r}")
        self.fft_sizes, self.hop_sizes, self.win_lengths = tuple(fft_sizes), tuple(hop_sizes), tuple(win_lengths)
        self.convergence, self.log_amplitude = float(convergence), float(log_amplitude)
        self.linear_amplitude = float(linear_amplitude)
        self.layout = layout if layout is None else _checks.layout_letters(layout)
        self.reduction: Reduction = reduction
        _checks.choice("reduction", reduction, REDUCTIONS)
        lengths = {len(self.fft_sizes), len(self.hop_sizes), len(self.win_lengths)}
        if len(lengths) != 1 or lengths == {0}:
            raise ValueError(
                "fft_sizes, hop_sizes and win_lengths must have one number for each resolution; "
                f"got {fft_sizes}, {hop_sizes}, {win_lengths}"
            )
        for resolution in self.resolutions:
            fft_size, hop, window = resolution
            if not (hop >= 1 and 1 <= window <= fft_size):
                raise ValueError(
                    f"expected whole numbers with hop >= 1 and 1 <= window <= FFT size; got {tuple(resolution)}"
                )
        weights = (self.convergence, self.log_amplitude, self.linear_amplitude)
        if not all(0 <= weight < float("inf") for weight in weights) or not any(weights):
            raise ValueError(
                f"convergence, log_amplitude and linear_amplitude must not be negative, nor all 0; got {weights}"
            )

    @property
    def resolutions(self) -> list[_Resolution]:
        """FFT size, hop and window length of each resolution."""
        return [_Resolution(*sizes) for sizes in zip(self.fft_sizes, self.hop_sizes, self.win_lengths, strict=True)]

    def forward(self, x0_hat: Tensor, x0: Tensor, frequency_weight: FrequencyWeight | None = None) -> Tensor:
        """Return the loss of each sample, `[B]`; `frequency_weight` as in `SpectralLoss`."""
        x0_hat, x0 = self._sound(x0_hat, x0)
        with torch.autocast(x0.device.type, enabled=False):
            losses = [self._one(x0_hat, x0, resolution, frequency_weight) for resolution in self.resolutions]
            loss = torch.stack(losses).mean(0)
        if x0.device.type == "cpu" and not torch.compiler.is_compiling() and not bool(loss.isfinite().all()):
            refuse_non_finite(x0)
        return loss * x0[0].numel() if self.reduction == "sum" else loss

    def by_band(self, x0_hat: Tensor, x0: Tensor) -> dict[str, Tensor]:
        """Return the mean |S − Ŝ| of each sample in eight bands of |frequency|, named by edges in cycles per sample."""
        x0_hat, x0 = self._sound(x0_hat.detach(), x0)
        total = x0.new_zeros(len(x0), self.bands)
        with torch.autocast(x0.device.type, enabled=False):
            for resolution in self.resolutions:
                error = (_amplitude(x0_hat, resolution) - _amplitude(x0, resolution)).abs().mean((1, 3))
                frequency = _frequencies(resolution.fft_size, x0)
                band = equal_bands(frequency, self.bands)
                counts = torch.bincount(band, minlength=self.bands).clamp_min(1)
                total += torch.zeros_like(total).index_add_(1, band, error) / counts
        means = total / len(self.resolutions)
        return dict(zip(frequency_band_names(self.bands), means.unbind(1), strict=True))

    def _sound(self, x0_hat: Tensor, x0: Tensor) -> tuple[Tensor, Tensor]:
        x0_hat, x0, ndim = pair(x0_hat, x0, None, self.layout)
        if ndim != 1:
            raise ValueError(f"mr_stft is for sound, [B, T] or [B, C, T]; got {list(x0.shape)}")
        if x0.shape[-1] <= max(self.fft_sizes) // 2:
            raise ValueError(
                f"mr_stft needs more than {max(self.fft_sizes) // 2} samples, half its largest FFT size; "
                f"got {x0.shape[-1]}"
            )
        return x0_hat, x0

    def _one(
        self, x0_hat: Tensor, x0: Tensor, resolution: _Resolution, frequency_weight: FrequencyWeight | None
    ) -> Tensor:
        """Return the loss at one resolution, `[B]`."""
        S_hat, S = _amplitude(x0_hat, resolution), _amplitude(x0, resolution)
        weight = S.new_ones(())
        if frequency_weight is not None:
            weights = weights_at(frequency_weight, _frequencies(resolution.fft_size, S), S)
            weight = weights[:, None, :, None]
        loss = S.new_zeros(len(S))
        if self.convergence:
            error = torch.linalg.vector_norm((weight * (S - S_hat)).flatten(1), dim=1)
            loss = loss + self.convergence * error / torch.linalg.vector_norm(S.flatten(1), dim=1)
        if self.log_amplitude:
            loss = loss + self.log_amplitude * (weight * (S.log() - S_hat.log()).abs()).flatten(1).mean(1)
        if self.linear_amplitude:
            loss = loss + self.linear_amplitude * (weight * (S - S_hat).abs()).flatten(1).mean(1)
        return loss


def _amplitude(x: Tensor, resolution: _Resolution) -> Tensor:
    """Return the floored amplitudes of the short-time spectra of `[B, C, T]`: `[B, C, fft_size // 2 + 1, frames]`."""
    spectrum = torch.stft(
        x.flatten(0, 1),
        resolution.fft_size,
        resolution.hop,
        resolution.window,
        _window(resolution.window, x.dtype, x.device),
        return_complex=True,
    )
    # Of the power, as the derivative of a complex modulus is not finite for subnormal numbers.
    power = torch.view_as_real(spectrum).square().sum(-1)
    amplitude: Tensor = power.clamp_min(AMPLITUDE_FLOOR**2).sqrt()
    return amplitude.reshape(*x.shape[:2], *amplitude.shape[1:])


@constant_tensors(64)
def _window(length: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.hann_window(length, dtype=dtype, device=device)


def _frequencies(fft_size: int, like: Tensor) -> Tensor:
    frequency: Tensor = torch.fft.rfftfreq(fft_size, dtype=like.dtype, device=like.device)
    return frequency
