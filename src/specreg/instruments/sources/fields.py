"""Variables of NetCDF files and Zarr stores, with the spacing of their coordinates, through xarray.

xarray is imported on first use. Values are those of the variable, unpacked from integers where scale_factor
says so, and never scaled to [-1, 1].
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from specreg._checks import nearest
from specreg._files import mistaken_for_data
from specreg.instruments.sources.protocol import Records

SUFFIXES = frozenset((".cdf", ".nc", ".nc3", ".nc4", ".netcdf", ".zarr"))
_ROWS = ("lat", "latitude", "y", "yc", "rlat", "northing", "projection_y_coordinate")
_COLUMNS = ("lon", "longitude", "x", "xc", "rlon", "easting", "projection_x_coordinate")
EVEN = 1e-3
"""Largest deviation of a coordinate's steps from their mean, relative to it, that counts as even spacing."""
_BLOCK = 1 << 25  # bytes read at a time: chunks of a file may span many samples
_UNITS = {
    "degrees_north": "degree", "degrees_east": "degree", "degree_north": "degree", "degree_east": "degree",
    "degrees": "degree", "degree": "degree", "meters": "m", "metres": "m", "meter": "m", "metre": "m", "m": "m",
    "kilometers": "km", "kilometres": "km", "km": "km", "s": "s", "seconds": "s",
}  # fmt: skip


class Fields(Records):
    """`Records` of one variable, or of several of the same axes as channels: "temperature" or "u,v".

    Space is the axes named as latitude and longitude or as y and x, else the last two, or the only one. All other axes
    are samples; those that share the first of them are one group.
    """

    remedy = "--tile N cuts them"
    step = 0.0
    gaps = True

    def __init__(self, path: Path, variable: str | None) -> None:
        self.where = f"{path}:{variable}" if variable else str(path)
        self._path = path
        self.notes = []
        self._dataset: Any = None
        self._block: tuple[int, int, NDArray[Any]] | None = None  # first and last index of the first axis, and values
        with self._reading():
            data = self._data()
            self.channels = tuple(_chosen(data, variable, str(path)))
            first = data[self.channels[0]]
            for name in self.channels:
                _check(data[name], first, str(path))
            rows = _space(first.dims)
            self._samples = tuple(dim for dim in first.dims if dim not in rows)
            self._space = rows
            self.space = len(rows)
            self._sizes = tuple(int(first.sizes[dim]) for dim in rows)
            self._counts = tuple(int(first.sizes[dim]) for dim in self._samples)
            self.spacing, self.unit = self._grid(first)
            self.step = max(
                float(data[name].encoding.get("scale_factor", 1.0)) if _packed(data[name]) else 0.0
                for name in self.channels
            )
        places = list(np.ndindex(self._counts)) if self._counts else [()]
        labels = [",".join(f"{dim}={k}" for dim, k in zip(self._samples, place, strict=True)) for place in places]
        self.keys = self.names = [label or "field" for label in labels]
        self.groups = [place[0] if place else 0 for place in places]
        self._places = places

    def size(self, i: int) -> tuple[int, ...]:
        """Return the size of the axes of space, the same for every field."""
        return self._sizes

    def part(self, i: int, begin: tuple[int, ...] | None, size: tuple[int, ...]) -> NDArray[Any]:
        """Return field i, or a tile of it, `[C, *space]`, float32 or float64; missing values are NaN."""
        place = self._places[i]
        if not place:
            values = self._load(slice(None))
        else:
            if self._block is None or not self._block[0] <= place[0] < self._block[1]:
                count = max(1, _BLOCK // max(1, 8 * len(self.channels) * prod(self._counts[1:]) * prod(self._sizes)))
                start = place[0] // count * count
                stop = min(start + count, self._counts[0])
                self._block = start, stop, self._load(slice(start, stop))
            values = self._block[2][:, place[0] - self._block[0], *place[1:]]
        if begin is None:
            return values
        return values[:, *(slice(at, at + side) for at, side in zip(begin, size, strict=True))]

    def _load(self, first: slice) -> NDArray[Any]:
        """Return a part of the variables `[C, *samples, *space]`."""
        if not self._samples and self._block is not None:
            return self._block[2]
        with self._reading():
            data = self._data()
            fields = []
            for name in self.channels:
                variable = data[name].transpose(*self._samples, *self._space)
                values = (variable.isel({self._samples[0]: first}) if self._samples else variable).values
                fields.append(values if values.dtype == np.float64 else _floats(values))
            loaded: NDArray[Any] = np.stack(fields)
        if not self._samples:
            self._block = 0, 1, loaded
        return loaded

    def _grid(self, variable: Any) -> tuple[tuple[float, ...] | None, str]:
        """Return spacing and unit, or None and "pixel" with a note where coordinates are absent, uneven or differ."""
        steps, units = [], []
        for dim in self._space:
            if dim not in variable.coords or variable.sizes[dim] < 2:
                return None, "pixel"
            values = variable.coords[dim].values
            if values.dtype.kind not in "iuf":
                return None, "pixel"
            differences = np.diff(values.astype(np.float64))
            mean = differences.mean()
            if not mean or not np.isfinite(mean) or np.abs(differences - mean).max() > EVEN * abs(mean):
                self.notes.append(f"the coordinate {dim} is not evenly spaced, so frequencies are per sample")
                return None, "pixel"
            steps.append(abs(float(mean)))
            units.append(_unit(str(variable.coords[dim].attrs.get("units", ""))))
        if len(set(units)) > 1:
            self.notes.append(f"the coordinates have the units {' and '.join(units)}, so frequencies are per sample")
            return None, "pixel"
        return tuple(steps), units[0] or "coordinate"

    def _data(self) -> Any:
        if self._dataset is None:
            xarray = _xarray()
            if not self._path.is_dir() and self._path.suffix != ".zarr" and (found := mistaken_for_data(self._path)):
                raise ValueError(f"it {found}")
            zarr = self._path.is_dir()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of metadata that is not consolidated
                self._dataset = xarray.open_dataset(
                    self._path, engine="zarr" if zarr else None, decode_times=False, cache=False
                )
        return self._dataset

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError, KeyError, RuntimeError, TypeError, IndexError) as error:
            if str(error).startswith(str(self._path)):
                raise
            line = " ".join((str(error) or type(error).__name__).split())
            raise ValueError(f"{self._path}: cannot be read as NetCDF or Zarr: {line[:300]}") from None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_dataset": None, "_block": None}


def is_zarr(path: Path) -> bool:
    """Return whether a folder is a Zarr store, of version 2 or 3."""
    return any((path / name).is_file() for name in (".zgroup", ".zarray", ".zmetadata", "zarr.json"))


def _chosen(data: Mapping[str, Any], variable: str | None, where: str) -> list[str]:
    """Return the names of the variables; without a name, the only one that has space and is no coordinate."""
    there = [str(name) for name in getattr(data, "data_vars", data)]
    if variable is None:
        fields = [name for name in there if data[name].ndim and data[name].dtype.kind in "iuf"]
        largest = max((data[name].ndim for name in fields), default=0)
        found = [name for name in fields if data[name].ndim == largest]
        if len(found) != 1:
            raise ValueError(
                f"{where}: expected one variable; it holds {', '.join(there) or 'none'}; name one after a colon"
            )
        return found
    names = variable.split(",")
    for name in names:
        if name not in there:
            raise ValueError(
                f"{where}: no variable {name!r}{nearest(name, there)}; it holds {', '.join(there) or 'none'}"
            )
    return names


def _check(variable: Any, first: Any, where: str) -> None:
    if variable.dtype.kind not in "iuf":
        raise ValueError(f"{where}: expected real numbers in {variable.name}; got {variable.dtype}")
    if not variable.ndim or not variable.size:
        raise ValueError(
            f"{where}: expected at least one axis and one value in {variable.name}; got {dict(variable.sizes)}"
        )
    if variable.sizes != first.sizes:
        raise ValueError(
            f"{where}: variables that are channels need the same axes; {first.name} has {dict(first.sizes)}, "
            f"{variable.name} {dict(variable.sizes)}"
        )


def _space(dims: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the axes of space: latitude and longitude, or y and x, in the order of the variable; else the last two."""
    rows = [dim for dim in dims if str(dim).lower() in _ROWS]
    columns = [dim for dim in dims if str(dim).lower() in _COLUMNS]
    if len(rows) == len(columns) == 1:
        return rows[0], columns[0]
    return dims[-2:]


def _packed(variable: Any) -> bool:
    stored = variable.encoding.get("dtype", variable.dtype)
    return np.dtype(stored).kind in "iu"


def _floats(values: NDArray[Any]) -> NDArray[Any]:
    """Return values as floats that hold them exactly: float64 for integers of more than 16 bits."""
    wide = values.dtype.kind in "iu" and values.dtype.itemsize > 2
    return values.astype(np.float64 if wide else np.float32)


def _unit(text: str) -> str:
    return _UNITS.get(text.strip().lower(), text.strip())


def _xarray() -> Any:
    try:
        import xarray
    except ImportError as error:
        raise ImportError('NetCDF and Zarr need xarray: pip install "specreg[fields]"') from error
    return xarray
