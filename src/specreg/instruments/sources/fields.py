"""Variables of NetCDF files and Zarr stores, with the spacing of their coordinates, through xarray.

xarray is imported on first use. Values are those of the variable, unpacked from integers where scale_factor
says so, and never scaled to [-1, 1].
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from specreg._checks import nearest
from specreg._files import mistaken_for_data, said
from specreg.instruments.sources.records import Records

SUFFIXES = frozenset((".cdf", ".nc", ".nc3", ".nc4", ".netcdf", ".zarr"))
_ROWS = ("lat", "latitude", "y", "yc", "rlat", "grid_latitude", "northing", "projection_y_coordinate")
_COLUMNS = ("lon", "longitude", "x", "xc", "rlon", "grid_longitude", "easting", "projection_x_coordinate")
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

    remedy = "--tile N (--segment N for one axis) may find parts without them"
    _handles: ClassVar[tuple[str, ...]] = ("_dataset", "_block")
    _kind = "NetCDF or Zarr"
    _choice = "name one after a colon"
    gaps = True

    def __init__(self, path: Path, variable: str | None) -> None:
        self.where = f"{path}:{variable}" if variable else str(path)
        self._path = path
        self.notes = []
        self._dataset: Any = None
        self._block: tuple[int, int, NDArray[Any]] | None = None  # first and last index of the first axis, and values
        with self._reading():
            data = self._data()
            self.channels = tuple(_chosen(data, variable, str(path), self._choice))
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

    def whole(self, i: int) -> NDArray[Any]:
        """Return field i, `[C, *space]`, float32 or float64; missing values are NaN."""
        place = self._places[i]
        if not place:
            return self._load(slice(None))
        if self._block is None or not self._block[0] <= place[0] < self._block[1]:
            count = max(1, _BLOCK // max(1, 8 * len(self.channels) * prod(self._counts[1:]) * prod(self._sizes)))
            start = place[0] // count * count
            stop = min(start + count, self._counts[0])
            self._block = start, stop, self._load(slice(start, stop))
        index = (slice(None), place[0] - self._block[0], *place[1:])
        values: NDArray[Any] = self._block[2][index]
        return values

    def _load(self, first: slice) -> NDArray[Any]:
        """Return a part of the variables `[C, *samples, *space]`."""
        with self._reading():
            data = self._data()
            fields = []
            for name in self.channels:
                variable = data[name].transpose(*self._samples, *self._space)
                values = (variable.isel({self._samples[0]: first}) if self._samples else variable).values
                fields.append(values if values.dtype == np.float64 else _floats(values))
            return np.stack(fields)

    def _grid(self, variable: Any) -> tuple[tuple[float, ...] | None, str]:
        """Return spacing and unit, or None, with a note, where coordinates are absent, uneven or differ."""
        steps, units = [], []
        nothing = "sample" if len(self._space) == 1 else "pixel"
        absent = [dim for dim in self._space if dim not in variable.coords]
        if absent:
            if len(absent) < len(self._space):
                self.notes.append(f"the axis {absent[0]} has no coordinate, so frequencies are per sample")
            return None, nothing
        for dim in self._space:
            coordinate = self._coordinate(variable, dim)
            values = coordinate.values
            if variable.sizes[dim] < 2 or values.dtype.kind not in "iuf":
                return None, nothing
            unit = _unit(str(coordinate.attrs.get("units", "")))
            step = _step(values, unit)
            if step is None:
                self.notes.append(f"the coordinate {dim} is not evenly spaced, so frequencies are per sample")
                return None, nothing
            steps.append(step)
            units.append(unit)
        if len(set(units)) > 1:
            self.notes.append(f"the coordinates have the units {' and '.join(units)}, so frequencies are per sample")
            return None, nothing
        return tuple(steps), units[0] or "coordinate"

    def _coordinate(self, variable: Any, dim: Any) -> Any:
        """Return the coordinate of an axis of space, in numbers with their unit where it has any."""
        return variable.coords[dim].variable

    def _data(self) -> Any:
        if self._dataset is None:
            xarray = xarray_module()
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
        except (OSError, ValueError, KeyError, RuntimeError, TypeError, IndexError, MemoryError) as error:
            if str(error).startswith(str(self._path)):
                raise
            raise ValueError(f"{self._path}: cannot be read as {self._kind}: {said(error)}") from None


class FieldsInMemory(Fields):
    """The same of an xarray Dataset or DataArray, opened or made by the caller.

    Coordinates of time are read as their file would have them: in hours, days, ….
    """

    _handles = ("_block",)
    _kind = "an xarray dataset"
    _choice = "take one, as in data['name'], or give open_source variable="

    def __init__(self, data: Any, variable: str | None = None) -> None:
        array = isinstance(data, xarray_module().DataArray)
        where = "dataset"
        if array:
            where = "field" if data.name is None else str(data.name)
            data = data.to_dataset(name="field" if where in data.coords else where)
        self._given = data.rename({name: str(name) for name in data.data_vars if not isinstance(name, str)})
        super().__init__(Path(where), variable)

    def _coordinate(self, variable: Any, dim: Any) -> Any:
        given = variable.coords[dim].variable
        xarray = xarray_module()
        if given.dtype.kind in "mM" or isinstance(variable.indexes.get(dim), xarray.CFTimeIndex):
            return xarray.conventions.encode_cf_variable(given)
        return given

    def _data(self) -> Any:
        return self._given


def is_xarray(data: object) -> bool:
    """Return whether data are a Dataset or DataArray of xarray, or of a subclass, without importing it."""
    names = {f"{kind.__module__.partition('.')[0]}.{kind.__name__}" for kind in type(data).__mro__}
    return not names.isdisjoint(("xarray.Dataset", "xarray.DataArray"))


def is_zarr(path: Path) -> bool:
    """Return whether a folder is a Zarr store, of version 2 or 3."""
    return any((path / name).is_file() for name in (".zgroup", ".zarray", ".zmetadata", "zarr.json"))


def _chosen(data: Any, variable: str | None, where: str, choice: str) -> list[str]:
    """Return the names of the variables; without a name, the only one of most axes that is no coordinate's bounds."""
    there = [str(name) for name in data.data_vars]
    if variable is None:
        bounds = {variable.attrs.get("bounds") for variable in data.variables.values()}
        fields = [name for name in there if data[name].ndim and data[name].dtype.kind in "iuf" and name not in bounds]
        largest = max((data[name].ndim for name in fields), default=0)
        found = [name for name in fields if data[name].ndim == largest]
        if not found:
            held = ", ".join(f"{name} ({data[name].dtype}, {data[name].ndim} axes)" for name in there)
            raise ValueError(f"{where}: expected a variable of real numbers with axes; it holds {held or 'none'}")
        if len(found) != 1:
            raise ValueError(f"{where}: expected one variable; it holds {', '.join(there)}; {choice}")
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
    """Return the axes of space: latitude and longitude, or y and x, in that order; else the last two, or one."""
    rows = [dim for dim in dims if str(dim).lower() in _ROWS]
    columns = [dim for dim in dims if str(dim).lower() in _COLUMNS]
    if len(rows) == len(columns) == 1:
        return rows[0], columns[0]
    return dims[-2:]


def _step(values: NDArray[Any], unit: str) -> float | None:
    """Return the spacing of a coordinate, None where it is not even beyond the rounding of its values."""
    rounding = 2 * float(np.spacing(np.abs(values).max())) if values.dtype.kind == "f" else 0.0
    exact = values.astype(np.float64)
    differences = np.diff(np.unwrap(exact, period=360) if unit == "degree" else exact)
    mean = float(differences.mean())
    if not mean or not np.isfinite(mean) or np.abs(differences - mean).max() > EVEN * abs(mean) + rounding:
        return None
    return abs(mean)


def _packed(variable: Any) -> bool:
    stored = variable.encoding.get("dtype", variable.dtype)
    return np.dtype(stored).kind in "iu"


def _floats(values: NDArray[Any]) -> NDArray[Any]:
    """Return values as floats that hold them exactly: float64 for integers of more than 16 bits."""
    wide = values.dtype.kind in "iu" and values.dtype.itemsize > 2
    return values.astype(np.float64 if wide else np.float32)


def _unit(text: str) -> str:
    name = text.partition(" since ")[0].strip()  # a time counts from some date
    return _UNITS.get(name.lower(), name)


def xarray_module() -> Any:
    """Return xarray; ImportError says what to install."""
    try:
        import xarray
    except ImportError as error:
        raise ImportError('NetCDF and Zarr need xarray: pip install "specreg[fields]"') from error
    return xarray
