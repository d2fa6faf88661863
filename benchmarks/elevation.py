"""Tiles of the Earth's relief for a study on real fields: ETOPO5, of Debian's package ferret-datasets (netCDF-3).

    apt-get download ferret-datasets && dpkg -x ferret-datasets_*.deb relief
    python -m benchmarks.elevation relief/usr/share/ferret-vis/data/etopo5.cdf FOLDER

writes FOLDER/east/{train,test}.npy and FOLDER/west/{train,test}.npy: metres, float32 [N, 1, 32, 32], each tile 160 arc
minutes a side, from 60° S to 60° N. East is for development, west for confirming. Every fourth column of tiles is held
out.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from scipy.io import netcdf_file

SIDE = 32
PER_DEGREE = 12


def main(source: Path, target: Path) -> None:
    """Write both sets."""
    with netcdf_file(source, mmap=False) as file:
        relief = np.array(file.variables["ROSE"][:], dtype=np.float32)  # [2161, 4320], from 90° S, from 0° E
    rows = relief[30 * PER_DEGREE : 150 * PER_DEGREE]
    for name, columns in (("east", rows[:, : 180 * PER_DEGREE]), ("west", rows[:, 180 * PER_DEGREE :])):
        down, across = rows.shape[0] // SIDE, columns.shape[1] // SIDE
        tiles = columns[: down * SIDE, : across * SIDE].reshape(down, SIDE, across, SIDE).transpose(2, 0, 1, 3)
        held_out = np.arange(across) % 4 == 3
        (target / name).mkdir(parents=True, exist_ok=True)
        for part, chosen in (("train", tiles[~held_out]), ("test", tiles[held_out])):
            np.save(target / name / f"{part}.npy", chosen.reshape(-1, 1, SIDE, SIDE))
            print(f"{target / name / part}.npy: {len(chosen) * down} tiles")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:3]))
