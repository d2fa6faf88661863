"""Statistics of two-dimensional turbulence from vorticity on a periodic square of side 2π.

All take vorticity ω `[N, H, H]` in float64 (other floats are raised) and average over the N fields. Wavenumbers are
whole numbers, the shell k holds |k| from k − 1/2 to k + 1/2, and shells end at H/2: beyond lie only corners.

Velocity follows from ω = ∂v/∂x − ∂u/∂y without a mean flow, with x along the last axis and y along the one before.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

_AT_ONCE = 1 << 19
"""Values that are worked on together: their transforms stay within some ten megabytes however many fields there are."""


class Spectra(NamedTuple):
    """Spectra by shell, k from 1 to H/2."""

    wavenumber: Tensor  # [K]
    energy: Tensor  # [K], ½ Σ |û|² + |v̂|²; summed over all k it is half of the mean square velocity
    enstrophy: Tensor  # [K], ½ Σ |ω̂|²


class Fluxes(NamedTuple):
    """What the nonlinear term carries from wavenumbers up to k to those beyond, k from 1 to H/2."""

    wavenumber: Tensor  # [K]
    energy: Tensor  # [K], negative where energy goes to larger scales
    enstrophy: Tensor  # [K], positive where enstrophy goes to smaller scales


class StructureFunctions(NamedTuple):
    """Moments of longitudinal velocity increments at separations of 1 … H/2 samples, along both axes."""

    separation: Tensor  # [R], of a side of 2π
    second: Tensor  # [R], ⟨δu²⟩
    third: Tensor  # [R], ⟨δu³⟩


def spectra(vorticity: Tensor) -> Spectra:
    """Return the energy and the enstrophy spectrum."""
    enstrophy = _averaged(lambda block: 0.5 * _modes(block).abs().square().mean(0), vorticity)
    wavenumbers = _wavenumbers(vorticity)
    squared = wavenumbers.square().sum(0)
    energy = enstrophy / squared.clamp_min(1)  # of k = 0, which no shell holds
    numbers, shells = _shells(wavenumbers)
    return Spectra(numbers, *(_summed(values, shells, len(numbers)) for values in (energy, enstrophy)))


def velocity(vorticity: Tensor) -> tuple[Tensor, Tensor]:
    """Return the velocities along x and y, `[N, H, H]` each."""
    modes, (ky, kx) = _modes(vorticity), _wavenumbers(vorticity)
    psi = modes / (kx.square() + ky.square()).clamp_min(1)  # −∇²ψ = ω
    # A derivative has no value at the Nyquist frequency, whose sign is not known.
    along = [_without_nyquist(k) for k in (ky, kx)]
    u, v = 1j * along[0] * psi, -1j * along[1] * psi
    return _field(u), _field(v)


def structure_functions(vorticity: Tensor) -> StructureFunctions:
    """Return the second- and the third-order longitudinal structure function."""
    found = _averaged(_increments, vorticity)
    separation = torch.arange(1, len(found) + 1, dtype=torch.float64) * (2 * torch.pi / vorticity.shape[-1])
    return StructureFunctions(separation, found[:, 0], found[:, 1])


def _increments(vorticity: Tensor) -> Tensor:
    """Return ⟨δu²⟩ and ⟨δu³⟩ at every separation, `[R, 2]`."""
    u, v = velocity(vorticity)
    moments = []
    for r in range(1, vorticity.shape[-1] // 2 + 1):
        increments = torch.stack([u.roll(-r, -1) - u, v.roll(-r, -2) - v])
        squares = increments.square()
        moments.append(torch.stack([squares.mean(), (squares * increments).mean()]))
    return torch.stack(moments)


def fluxes(vorticity: Tensor) -> Fluxes:
    """Return the spectral fluxes of energy and enstrophy, Π(k) = Σ over |q| ≤ k of Re(f̂* (u·∇ω)^), f = ψ and ω.

    Products are formed on a grid one and a half times as fine, so that no alias enters.
    """
    wavenumbers = _wavenumbers(vorticity)
    numbers, shells = _shells(wavenumbers)
    found = [_summed(transfer, shells, len(numbers)).cumsum(0) for transfer in _averaged(_transfer, vorticity)]
    return Fluxes(numbers, *found)


def _transfer(vorticity: Tensor) -> Tensor:
    """Return Re(f̂* (u·∇ω)^) of each mode for f = ψ and ω, `[2, H, H]`."""
    modes, wavenumbers = _modes(vorticity), _wavenumbers(vorticity)
    ky, kx = (_without_nyquist(k) for k in wavenumbers)
    squared = wavenumbers.square().sum(0).clamp_min(1)
    psi = modes / squared
    u, v, along_x, along_y = (
        _field(_padded(f)) for f in (1j * ky * psi, -1j * kx * psi, 1j * kx * modes, 1j * ky * modes)
    )
    advected = _cut(torch.fft.fft2(u * along_x + v * along_y, norm="forward"), vorticity.shape[-1])
    return torch.stack([(f.conj() * advected).real.mean(0) for f in (psi, modes)])


FIRST_SHELL = 4
"""Shells below have at most two dozen modes, so that their power differs by decibels between sets of one flow."""


def effective_resolution(found: Tensor, truth: Tensor, *, tolerance_db: float = 1.0) -> int:
    """Return the largest k up to which a spectrum `[K]` by shell is within `tolerance_db` of the truth's.

    At each k from `FIRST_SHELL` on, the power within a sixth of k on either side is compared. It looks no further than
    the first k that is off, and says nothing of phases. 0 where the first one is off.
    """
    numbers = torch.arange(1, len(truth) + 1, dtype=torch.float64)
    near = (numbers[:, None] - numbers).abs() <= numbers[:, None] / 6
    ratio = (near * found).sum(1) / (near * truth).sum(1)
    wrong = ~((10 * ratio.log10()).abs() <= tolerance_db)[FIRST_SHELL - 1 :]  # NaN is wrong too
    if not bool(wrong.any()):
        return len(truth)
    first = int(wrong.int().argmax())
    return first + FIRST_SHELL - 1 if first else 0


def seam(vorticity: Tensor) -> float:
    """Return the mean square step across the edges of the square over that inside, near 1 for periodic fields.

    A step across the edges has enstrophy at all wavenumbers, falling as k⁻² along the axes, that is in no eddy.
    """
    _checked(vorticity)
    steps = [(vorticity - vorticity.roll(1, axis)).double().square() for axis in (1, 2)]
    by_line = steps[0].mean((0, 2)), steps[1].mean((0, 1))  # the first line of each is the step across the edge
    across = sum(float(line[0]) for line in by_line)
    inside = sum(float(line[1:].mean()) for line in by_line)
    return across / max(inside, torch.finfo(torch.float64).tiny)


def kurtosis(values: Tensor) -> float:
    """Return ⟨(x − ⟨x⟩)⁴⟩ / ⟨(x − ⟨x⟩)²⟩² of all values; 3 for a Gaussian."""
    centred = values.double() - values.double().mean()
    return float(centred.pow(4).mean() / centred.square().mean().square())


def _averaged(measure: Callable[[Tensor], Tensor], vorticity: Tensor) -> Tensor:
    """Return `measure`, a mean over fields, of all fields `[N, H, H]`, a block at a time."""
    _checked(vorticity)
    blocks = vorticity.split(max(1, _AT_ONCE // vorticity[0].numel()))
    return torch.stack([measure(block) * (len(block) / len(vorticity)) for block in blocks]).sum(0)


def _checked(vorticity: Tensor) -> None:
    shape = vorticity.shape
    if vorticity.ndim != 3 or not shape[0] or shape[1] != shape[2] or shape[1] % 2 or not shape[1]:
        raise ValueError(f"vorticity must be [N, H, H] with an even H; got {list(shape)}")


def _modes(vorticity: Tensor) -> Tensor:
    """Return ω̂ `[N, H, H]`, so that the sum of |ω̂|² is the mean of ω²."""
    _checked(vorticity)
    modes: Tensor = torch.fft.fft2(vorticity.double(), norm="forward")
    return modes


def _wavenumbers(vorticity: Tensor) -> Tensor:
    """Return (ky, kx) `[2, H, H]`."""
    side = vorticity.shape[-1]
    axis = torch.fft.fftfreq(side, dtype=torch.float64) * side
    return torch.stack(torch.meshgrid(axis, axis, indexing="ij"))


def _field(modes: Tensor) -> Tensor:
    field: Tensor = torch.fft.ifft2(modes, norm="forward").real
    return field


def _without_nyquist(k: Tensor) -> Tensor:
    return torch.where(k.abs() == k.shape[-1] // 2, 0.0, k)


def _shells(wavenumbers: Tensor) -> tuple[Tensor, Tensor]:
    """Return the numbers of the shells, and the shell of each mode; those beyond the last are in one more."""
    most = wavenumbers.shape[-1] // 2
    shell = wavenumbers.square().sum(0).sqrt().round().long()
    return torch.arange(1, most + 1, dtype=torch.float64), shell.clamp_max(most + 1)


def _summed(values: Tensor, shells: Tensor, count: int) -> Tensor:
    total = values.new_zeros(count + 2).index_add_(0, shells.flatten(), values.flatten())
    return total[1 : count + 1]


def _padded(modes: Tensor) -> Tensor:
    """Return modes on a grid of 3/2 the size; those at Nyquist, half of which would be missing, are left out."""
    side = modes.shape[-1]
    wide = modes.new_zeros(*modes.shape[:-2], 3 * side // 2, 3 * side // 2)
    half = side // 2
    for rows in (slice(0, half), slice(-half + 1, None)):
        for columns in (slice(0, half), slice(-half + 1, None)):
            wide[..., rows, columns] = modes[..., rows, columns]
    return wide


def _cut(wide: Tensor, side: int) -> Tensor:
    """Return the modes of the smaller grid, the inverse of `_padded`."""
    half = side // 2
    modes = wide.new_zeros(*wide.shape[:-2], side, side)
    for rows in (slice(0, half), slice(-half + 1, None)):
        for columns in (slice(0, half), slice(-half + 1, None)):
            modes[..., rows, columns] = wide[..., rows, columns]
    return modes
