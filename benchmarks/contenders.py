"""What is measured against what: our losses, the same written plainly, peers' losses, and the floors below all of them.

A contender is made for one case; making it fails with an ImportError where its package is not installed, and with a
ValueError where it does not take that kind of data. Either is shown in the table, never passed over.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

import specreg

Step = Callable[[Tensor, Tensor], Tensor | None]
"""`(x0_hat, x0) -> scalar` to run backward through; None for a floor, which is all done when it returns."""

LEVELS = 3


class Case(NamedTuple):
    """Data of one shape; the trailing `ndim` axes are transformed."""

    name: str
    shape: tuple[int, ...]

    @property
    def ndim(self) -> int:
        """Axes that are transformed."""
        return max(1, len(self.shape) - 2)

    @property
    def axes(self) -> tuple[int, ...]:
        """The same, counted from the last."""
        return tuple(range(-self.ndim, 0))


CASES = [
    Case("images 64²", (16, 3, 64, 64)),
    Case("images 32²", (16, 3, 32, 32)),
    Case("images 512²", (4, 3, 512, 512)),
    Case("image 2048²", (1, 3, 2048, 2048)),
    Case("audio crops", (16, 15872)),
    Case("audio 10 s", (4, 1, 220500)),
    Case("video", (1, 4, 16, 64, 64)),
    Case("latents 64²", (8, 4, 64, 64)),
]


def _ours(name: str, **options: Any) -> Callable[[Case], Step]:
    def make(case: Case) -> Step:
        loss = specreg.losses.build(name, **options)
        return lambda x0_hat, x0: loss(x0_hat, x0).mean()

    return make


def _in_float32(make: Callable[[Case], Step]) -> Callable[[Case], Step]:
    """For those that take no half precision: they get copies in float32, and to make them is part of their time."""

    def made(case: Case) -> Step:
        step = make(case)
        return lambda x0_hat, x0: step(x0_hat.float(), x0.float())

    return made


def plain_amplitude(case: Case) -> Step:
    """The paper's Eq. 14 as one would write it: full complex transforms of both, autograd through abs."""

    def step(x0_hat: Tensor, x0: Tensor) -> Tensor:
        spectra = (torch.fft.fftn(x, dim=case.axes, norm="ortho") for x in (x0_hat, x0))
        A_hat, A = (spectrum.abs() for spectrum in spectra)
        return (A - A_hat).abs().mean()

    return step


def plain_amplitude_phase(case: Case) -> Step:
    """The paper's Eq. 15 with the product at each frequency, written plainly, the phase difference wrapped."""

    def step(x0_hat: Tensor, x0: Tensor) -> Tensor:
        F_hat, F_0 = (torch.fft.fftn(x, dim=case.axes, norm="ortho") for x in (x0_hat, x0))
        delta = torch.angle(F_hat) - torch.angle(F_0)
        delta = torch.remainder(delta + torch.pi, 2 * torch.pi) - torch.pi
        return ((F_0.abs() - F_hat.abs()).abs() * (1 + delta.abs())).mean()

    return step


def focal_frequency(case: Case) -> Step:
    """focal-frequency-loss 0.3 with its defaults."""
    from focal_frequency_loss import FocalFrequencyLoss

    if case.ndim != 2:
        raise ValueError("takes images only")
    loss = FocalFrequencyLoss()
    return lambda x0_hat, x0: loss(x0_hat, x0)


def _l1(coefficients: Any) -> Tensor:
    """Mean absolute value over nested coefficients of a wavelet transform."""
    flat: list[Tensor] = []

    def collect(part: Any) -> None:
        if isinstance(part, Tensor):
            flat.append(part)
        else:
            for inner in part.values() if isinstance(part, dict) else part:
                collect(inner)

    collect(coefficients)
    return sum((part.abs().sum() for part in flat), torch.zeros((), device=flat[0].device)) / sum(
        part.numel() for part in flat
    )


def _ptwt(wavelet: str) -> Callable[[Case], Step]:
    def make(case: Case) -> Step:
        import ptwt

        transform = {1: ptwt.wavedec, 2: ptwt.wavedec2, 3: ptwt.wavedec3}[case.ndim]

        def step(x0_hat: Tensor, x0: Tensor) -> Tensor:
            return _l1(transform(x0_hat - x0, wavelet, level=LEVELS, mode="zero"))

        return step

    return make


def _pytorch_wavelets(wavelet: str) -> Callable[[Case], Step]:
    def make(case: Case) -> Step:
        import pytorch_wavelets

        if case.ndim == 3:
            raise ValueError("has no 3-D transform")
        kind = pytorch_wavelets.DWT1DForward if case.ndim == 1 else pytorch_wavelets.DWTForward
        transform: Any = kind(J=LEVELS, wave=wavelet, mode="periodization")

        def step(x0_hat: Tensor, x0: Tensor) -> Tensor:
            difference = x0_hat - x0
            return _l1(transform(difference if difference.ndim > 2 else difference[:, None]))

        return step

    return make


def stft(case: Case) -> Step:
    """auraloss' single STFT loss with its defaults."""
    import auraloss

    if case.ndim != 1:
        raise ValueError("takes audio only")
    loss: Any = auraloss.freq.STFTLoss()

    def step(x0_hat: Tensor, x0: Tensor) -> Tensor:
        x0_hat, x0 = (x if x.ndim > 2 else x[:, None] for x in (x0_hat, x0))
        value: Tensor = loss(x0_hat, x0)
        return value

    return step


def mse(case: Case) -> Step:
    """Mean squared error."""
    return lambda x0_hat, x0: F.mse_loss(x0_hat, x0)


def fft_floor(case: Case) -> Step:
    """Two real transforms forward and one back, unnormalized, and nothing else: less cannot be had."""
    sizes = list(case.shape[-case.ndim :])

    def step(x0_hat: Tensor, x0: Tensor) -> None:
        with torch.no_grad():
            torch.fft.rfftn(x0, dim=case.axes)
            spectrum = torch.fft.rfftn(x0_hat, dim=case.axes)
            torch.fft.irfftn(spectrum, s=sizes, dim=case.axes, norm="forward")

    return step


def copy_floor(case: Case) -> Step:
    """A copy of both tensors."""

    def step(x0_hat: Tensor, x0: Tensor) -> None:
        with torch.no_grad():
            x0_hat.clone()
            x0.clone()

    return step


CONTENDERS: dict[str, Callable[[Case], Step]] = {
    "amplitude": _ours("amplitude"),
    "amplitude_phase": _ours("amplitude_phase"),
    "amplitude_phase, projection": _ours("amplitude_phase", coupling="projection"),
    "haar": _ours("haar", levels=LEVELS),
    "bior1.3": _ours("bior1.3", levels=LEVELS),
    "amplitude, plain": _in_float32(plain_amplitude),
    "amplitude_phase, plain": _in_float32(plain_amplitude_phase),
    "focal-frequency-loss": _in_float32(focal_frequency),
    "haar, ptwt": _in_float32(_ptwt("haar")),
    "bior1.3, ptwt": _in_float32(_ptwt("bior1.3")),
    "haar, pytorch_wavelets": _in_float32(_pytorch_wavelets("haar")),
    "STFT, auraloss": _in_float32(stft),
    "MSE": mse,
    "FFT floor": _in_float32(fft_floor),
    "copy": copy_floor,
}
FLOORS = ("FFT floor", "copy")
"""What has no result; a compiler would leave all of it out."""
