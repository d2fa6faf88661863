"""Half spectra of real n-dimensional signals, and what turns sums over them into sums over the full spectrum.

Notation of the paper: F is the n-dimensional DFT over the trailing axes, A = |F[x]| its amplitude and
φ = arg F[x] its phase. Signals are real, so F[x](−k) is the conjugate of F[x](k) and half of the last axis is
enough; `bin_weights` says how many bins of the full spectrum each kept bin stands for.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Norm = Literal["ortho", "backward", "forward"]
NORMS = ("ortho", "backward", "forward")

_ADJOINT: dict[str, str] = {"ortho": "ortho", "backward": "forward", "forward": "backward"}


def _axes(ndim: int) -> tuple[int, ...]:
    return tuple(range(-ndim, 0))


def half_spectrum(x: Tensor, *, ndim: int, norm: Norm = "ortho") -> Tensor:
    """DFT of real `x` over its last `ndim` axes: `[..., *space]` -> complex `[..., *space[:-1], N // 2 + 1]`.

    `norm` is torch.fft's: "ortho" keeps coefficients on the scale of the data at every size.
    """
    spectrum: Tensor = torch.fft.rfftn(x, dim=_axes(ndim), norm=norm)
    return spectrum


def half_spectrum_adjoint(g: Tensor, *, shape: torch.Size, ndim: int, norm: Norm = "ortho") -> Tensor:
    """Gradient with respect to x of Σ f(F_k) over the *full* spectrum, given g = ∂f/∂Re F + i ∂f/∂Im F on half.

    The sum's doubled bins and the inverse transform's implied conjugate half are the same bins, so `g` is
    taken without bin weights.
    """
    x: Tensor = torch.fft.irfftn(g, s=shape[-ndim:], dim=_axes(ndim), norm=_ADJOINT[norm])
    return x


def bin_weights(size: int, *, dtype: torch.dtype, device: torch.device | None = None) -> Tensor:
    """How many full-spectrum bins each half-spectrum bin of an axis of `size` stands for: `[size // 2 + 1]`.

    1 for the zero frequency and, at even sizes, for Nyquist; 2 for every bin between.
    """
    weights = torch.full((size // 2 + 1,), 2.0, dtype=dtype, device=device)
    weights[:1].fill_(1.0)  # setting an item would send the number to a GPU
    if size % 2 == 0:
        weights[-1:].fill_(1.0)
    return weights


def amplitude(spectrum: Tensor) -> Tensor:
    """A = |F|, real; its gradient at F = 0 is 0."""
    return spectrum.abs()


def phase(spectrum: Tensor) -> Tensor:
    """φ = arg F in (−π, π], real; 0 where F = 0."""
    return spectrum.angle()


def phase_difference(spectrum_hat: Tensor, spectrum: Tensor) -> Tensor:
    """φ̂ − φ wrapped to (−π, π]: the angle of F̂·conj(F), taken of unit phasors so that products cannot underflow.

    0 wherever one of the two is 0, since a zero coefficient has no phase.
    """
    return torch.angle(torch.sgn(spectrum_hat) * torch.sgn(spectrum).conj())
