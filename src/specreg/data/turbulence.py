"""Fields of two-dimensional turbulence, simulated: vorticity of Kolmogorov flow (extra `turbulence`).

    ∂ω/∂t + u·∇ω = ν ∇²ω − μ ω − 4 cos 4y

on a periodic square of side 2π: a flow driven by a shear at wavenumber 4, with linear drag μ, which is statistically
stationary after a while. It is solved by torch-cfd's pseudo-spectral scheme (Runge-Kutta 4, Crank-Nicolson, 2/3 rule)
on one and a half times the resolution that is kept, so that every mode below the Nyquist frequency of the fields is one
that the solver keeps.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib import format as npy
from numpy.typing import NDArray
from torch import Tensor

from specreg._files import refuse_no_folder, whole_file, write_json

_GROUP = 8  # trajectories at a time: more do not stay in a processor's cache


@dataclass(frozen=True)
class Flow:
    """What is simulated.

    Args:
        resolution: samples a side of the fields.
        viscosity: ν.
        drag: μ.
        dt: time step; times are in units of the forcing, whose amplitude is 1.
        spin_up: time before the first field, from noise.
        interval: time between two fields of a trajectory, longer than the turnover of the largest eddies (about 1).
        trajectories: independent flows that fields of training come from.
        test_trajectories: flows of their own for the fields of test.
        snapshots: fields of each trajectory.
    """

    resolution: int = 64
    viscosity: float = 4e-3
    drag: float = 0.1
    dt: float = 0.0125
    spin_up: float = 15.0
    interval: float = 1.0
    trajectories: int = 32
    test_trajectories: int = 8
    snapshots: int = 48

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not 0 < value < math.inf:
                raise ValueError(f"{name} must be positive; got {value}")
        if self.resolution % 4:
            raise ValueError(f"resolution must be a multiple of 4; got {self.resolution}")


def simulate(flow: Flow, *, seed: int, done: Callable[[float], None] = lambda share: None) -> NDArray[np.float32]:
    """Return vorticity, float32 `[trajectories + test_trajectories, snapshots, 1, y, x]`.

    Args:
        flow: what to simulate.
        seed: of the initial noise.
        done: is told the share of the work that is done.

    Raises:
        ModuleNotFoundError: torch-cfd is not installed; the sentence says how.
    """
    try:
        from torch_cfd.forcings import KolmogorovForcing
        from torch_cfd.grids import Grid
        from torch_cfd.spectral import NavierStokes2DSpectral, RK4CrankNicolsonStepper
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("turbulence needs torch-cfd: pip install 'specreg[turbulence]'") from error
    n, side = 3 * flow.resolution // 2, 2 * math.pi
    grid = Grid(shape=(n, n), domain=((0.0, side), (0.0, side)))
    force = KolmogorovForcing(grid=grid, scale=1.0, wave_number=4, diam=side, vorticity=True)
    solver: Any = NavierStokes2DSpectral(
        viscosity=flow.viscosity, grid=grid, drag=flow.drag, forcing_fn=force, step_fn=RK4CrankNicolsonStepper()
    )
    initial = _noise(flow.trajectories + flow.test_trajectories, n, seed)
    lengths = [round(flow.spin_up / flow.dt), *[round(flow.interval / flow.dt)] * (flow.snapshots - 1)]
    fields = np.empty((len(initial), flow.snapshots, 1, flow.resolution, flow.resolution), np.float32)
    for first in range(0, len(initial), _GROUP):
        state: Any = initial[first : first + _GROUP]
        group = fields[first : first + _GROUP]
        for k, steps in enumerate(lengths):
            with torch.no_grad():
                state, _ = solver(state, flow.dt, steps=steps)
            group[:, k, 0] = _kept(state, flow.resolution).numpy()
            if not np.isfinite(group[:, k]).all():
                raise ValueError(f"the simulation diverged at a time step of {flow.dt}; expected a smaller dt")
            done((first + len(group) * sum(lengths[: k + 1]) / sum(lengths)) / len(fields))
    return fields


def write(folder: Path, flow: Flow, *, seed: int, done: Callable[[float], None] = lambda share: None) -> None:
    """Write train.npy and test.npy, float32 `[N, 1, H, W]`, and turbulence.json, which says what they are.

    Each file is whole or not there. train.npy comes last: where it is there, the others are too.

    Raises:
        ValueError: `folder` is not a folder that files can be written to; before anything is simulated.
        WriteError: a file cannot be written.
    """
    refuse_no_folder(folder, where="turbulence")
    fields = simulate(flow, seed=seed, done=done)
    write_json(folder / "turbulence.json", {**asdict(flow), "seed": seed})
    parts = {"test": fields[flow.trajectories :], "train": fields[: flow.trajectories]}
    for name, part in parts.items():
        array = part.reshape(-1, *part.shape[2:])
        with whole_file(folder / f"{name}.npy") as file:
            # np.save writes past the file object, and says of a full disk only how many values were written.
            npy.write_array_header_1_0(file, npy.header_data_from_array_1_0(array))
            file.write(array.data)


def _noise(count: int, n: int, seed: int) -> Tensor:
    """Return the spectra of Gaussian vorticity around wavenumber 4, of root mean square 3, `[count, n, n // 2 + 1]`."""
    generator = torch.Generator().manual_seed(seed)
    axes = (torch.fft.fftfreq(n) * n, torch.fft.rfftfreq(n) * n)
    wavenumber = torch.hypot(*torch.meshgrid(*axes, indexing="ij"))
    shape = torch.exp(-(((wavenumber - 4) / 2) ** 2))
    shape[0, 0] = 0
    vorticity = torch.fft.irfft2(torch.fft.rfft2(torch.randn(count, n, n, generator=generator)) * shape)
    scale = 3 / vorticity.square().mean((1, 2), keepdim=True).sqrt()
    scaled: Tensor = torch.fft.rfft2(vorticity * scale)
    return scaled


def _kept(state: Tensor, resolution: int) -> Tensor:
    """Return the fields of the modes below the Nyquist frequency of a resolution, `[…, y, x]`.

    The solver's axes are (x, y). Vorticity changes its sign where axes are read in the other order.
    """
    half = resolution // 2
    kept = state.new_zeros(*state.shape[:-2], resolution, half + 1)
    kept[..., :half, :half] = state[..., :half, :half]
    kept[..., -half + 1 :, :half] = state[..., -half + 1 :, :half]
    scale = (resolution / state.shape[-2]) ** 2  # transforms are not normalized
    fields: Tensor = torch.fft.irfft2(kept * scale, s=(resolution, resolution))
    return fields.transpose(-1, -2)
