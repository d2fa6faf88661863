"""Spherical harmonics of fields on latitude-longitude and Gaussian grids, by torch-harmonics (extra `sphere`).

Coefficients a_lm of degree l and order m are scaled so that a field of unit mean square over the sphere has, summed
over all coefficients of the real basis, as much power as there are of these: white noise in this basis has power 1 in
each coefficient, as in an orthonormal Fourier transform.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor

from specreg import _checks
from specreg._compile import constant_tensors

SphereGrid = Literal["equiangular", "legendre-gauss", "lobatto"]
GRIDS = get_args(SphereGrid)


def harmonics(x: Tensor, *, grid: SphereGrid = "equiangular", lmax: int | None = None) -> Tensor:
    """Return the coefficients of `x` `[..., latitudes, longitudes]`: complex `[..., K]`, K those with m ≤ l.

    Args:
        x: fields, from north to south or south to north (which changes phases, not power), longitudes from 0 to 360
            degrees without the last.
        grid: where the latitudes are. "equiangular" has both poles: latitudes π·k/(n - 1); "legendre-gauss" is the
            full Gaussian grid; "lobatto" Gauss-Lobatto's, with poles.
        lmax: number of degrees, 0 … lmax - 1; by default those that the grid's quadrature integrates exactly: n on a
            Gaussian grid, n - 1 on Lobatto's, (n + 1)//2 on an equiangular one, whose higher degrees alias a little.

    Raises:
        ModuleNotFoundError: torch-harmonics is not installed; the sentence says how.
    """
    nlat, nlon = (len(range(n)) for n in x.shape[-2:])
    legendre, degree, order = _legendre(nlat, nlon, grid, lmax, x.dtype, x.device)
    along = torch.view_as_real(torch.fft.rfft(x, norm="forward")[..., : legendre.shape[0]])
    pairs = torch.einsum("...kmc,mlk->...lmc", along, legendre)  # parts apart, because the matrix is real
    return torch.view_as_complex(pairs.contiguous())[..., degree, order]


def degrees(nlat: int, nlon: int, grid: SphereGrid, lmax: int | None = None) -> tuple[Tensor, Tensor]:
    """Return the degree l of each coefficient (int64 `[K]`), and how many of the real basis it stands for (float64).

    That is 1 for order 0 and 2 for every other, as for the half spectrum of a Fourier transform.
    """
    _, degree, order = _legendre(nlat, nlon, grid, lmax, torch.float32, torch.device("cpu"))
    return degree, torch.where(order == 0, 1.0, 2.0).double()


def coefficient_count(nlat: int, nlon: int, grid: SphereGrid, lmax: int | None = None) -> int:
    """Return the number of real coefficients that a grid resolves, lmax² where the orders reach lmax."""
    return int(degrees(nlat, nlon, grid, lmax)[1].sum())


@constant_tensors(32)
def _legendre(
    nlat: int, nlon: int, grid: SphereGrid, lmax: int | None, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Return Legendre functions times quadrature weights, `[mmax, lmax, latitudes]`, and degrees and orders, `[K]`."""
    _checks.choice("grid", grid, GRIDS)
    most = nlat - 1 if grid == "lobatto" else nlat
    if lmax is not None and not 1 <= lmax <= most:
        raise ValueError(f"lmax must be from 1 to {most} on a {grid} grid of {nlat} latitudes; got {lmax}")
    try:
        import torch_harmonics
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "spherical harmonics need torch-harmonics: pip install 'specreg[sphere]' (Python 3.11 or later)"
        ) from error
    lmax = lmax or {"equiangular": (nlat + 1) // 2, "legendre-gauss": nlat, "lobatto": nlat - 1}[grid]
    mmax = min(lmax, (nlon + 1) // 2)  # without the order at Nyquist, half of which a grid does not see
    weights: Tensor = torch_harmonics.RealSHT(nlat, nlon, lmax=lmax, mmax=mmax, grid=grid).weights
    mmax, lmax = weights.shape[:2]  # triangular: as many degrees as orders
    degree, order = torch.meshgrid(torch.arange(lmax), torch.arange(mmax), indexing="ij")
    kept = order <= degree
    degree, order = degree[kept], order[kept]
    count = float(torch.where(order == 0, 1, 2).sum())
    scaled = weights.double() * math.sqrt(count / (4 * math.pi))
    return scaled.to(dtype).to(device), degree.to(device), order.to(device)
