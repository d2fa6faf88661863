import pickle

import numpy as np
import pytest

from instruments.sources.files import everything
from specreg.instruments.sources import open_source

xarray = pytest.importorskip("xarray")
pytest.importorskip("h5netcdf")


def normal(*shape, dtype=np.float32, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def dataset(values, dims=("time", "lat", "lon"), spacing=0.25, units="degrees_north", name="t2m", **coords):
    grid = {dim: 10.0 + spacing * np.arange(size) for dim, size in zip(dims, values.shape, strict=True)}
    grid["time"] = np.arange(values.shape[0]) * 6
    found = xarray.Dataset({name: (dims, values)}, coords={dim: grid[dim] for dim in dims} | coords)
    for dim in {*dims} - {"time", "level"}:
        found[dim].attrs["units"] = units
    return found


def written(data, path, **options):
    if path.suffix == ".zarr":
        pytest.importorskip("zarr")
        data.to_zarr(path, **options)
    else:
        options = {"engine": "h5netcdf"} | options
        data.to_netcdf(path, **options)
    return str(path)


@pytest.mark.parametrize("kind", ["x.nc", "x.zarr"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_fields_are_read_with_their_grid(tmp_path, kind, dtype):
    stored = normal(5, 6, 8, dtype=dtype)
    path = written(dataset(stored), tmp_path / kind)
    source = open_source(f"{path}:t2m")
    assert (source.name, source.shape, source.channels) == (f"{kind}:t2m", (1, 6, 8), ("t2m",))
    assert source.spacing == pytest.approx((0.25, 0.25))
    assert (source.unit, source.rounding, source.notes) == ("degree", 0.0, ())
    found = everything(source).numpy()
    assert found.dtype == np.dtype(dtype)
    assert np.array_equal(found[:, 0], stored)
    assert source.keys() == [f"time={i}" for i in range(5)]
    assert list(source.groups()) == list(range(5))
    again = pickle.loads(pickle.dumps(source))
    assert np.array_equal(everything(again), found)
    assert np.array_equal(everything(open_source(path)), found)  # the only variable needs no name


def test_netcdf_3_is_read(tmp_path):
    pytest.importorskip("scipy")
    stored = normal(5, 6, 8)
    path = written(dataset(stored), tmp_path / "x.nc", engine="scipy", format="NETCDF3_64BIT")
    assert np.array_equal(everything(open_source(path))[:, 0], stored)


def test_space_is_found_by_name_and_other_axes_are_samples(tmp_path):
    stored = normal(3, 8, 2, 6)
    path = written(dataset(stored, dims=("time", "longitude", "level", "latitude")), tmp_path / "x.nc")
    source = open_source(path, tile=3)
    assert source.keys()[:3] == ["time=0,level=0@0,0", "time=0,level=0@0,3", "time=0,level=0@3,0"]
    assert list(source.groups()) == [group for group in range(3) for _ in range(8)]
    expected = stored.transpose(0, 2, 3, 1)[..., :6]  # [time, level, latitude, longitude]
    tiles = expected.reshape(6, 2, 3, 2, 3).transpose(0, 1, 3, 2, 4).reshape(24, 3, 3)
    assert np.array_equal(everything(source)[:, 0], tiles)
    assert source.spacing == pytest.approx((0.25, 0.25))


def test_variables_can_be_channels(tmp_path):
    u, v = normal(5, 6, 8), normal(5, 6, 8, seed=1)
    data = dataset(u, name="u", units="km", dims=("time", "y", "x"))
    data["v"] = (("time", "y", "x"), v)
    data["mask"] = (("y", "x"), np.ones((6, 8)))
    path = written(data, tmp_path / "x.nc")
    source = open_source(f"{path}:u,v")
    assert (source.channels, source.unit) == (("u", "v"), "km")
    assert np.array_equal(everything(source), np.stack([u, v], axis=1))
    with pytest.raises(ValueError, match=r"x\.nc: expected one variable; it holds u, v, mask; name one after a colon"):
        open_source(path)
    with pytest.raises(ValueError, match=r"no variable 'mas' \(did you mean 'mask'\?\); it holds u, v, mask"):
        open_source(f"{path}:mas")
    with pytest.raises(ValueError, match=r"channels need the same axes; u has .*, mask \{'y': 6, 'x': 8\}"):
        open_source(f"{path}:u,mask")


def test_one_field_and_one_series(tmp_path):
    field, series = normal(6, 8), normal(40)
    data = xarray.Dataset({"field": (("y", "x"), field), "series": (("time",), series)})
    path = written(data, tmp_path / "x.nc")
    source = open_source(f"{path}:field", tile=2)
    assert source.keys()[:2] == ["field@0,0", "field@0,2"]
    assert np.array_equal(source.read(1, 2)[0, 0], field[:2, 2:4])
    assert (source.spacing, source.unit) == (None, "pixel")
    source = open_source(f"{path}:series", segment=10)
    assert np.array_equal(everything(source)[:, 0], series.reshape(4, 10))
    assert source.unit == "sample"


@pytest.mark.parametrize("shift", [0.0009, 0.002])
def test_spacing_is_given_where_it_is_even(tmp_path, shift):
    lat = np.arange(6.0)[::-1].copy()  # north first
    lat[3] += shift
    data = dataset(normal(5, 6, 8), spacing=1.0).assign_coords(lat=("lat", lat, {"units": "degrees_north"}))
    source = open_source(written(data, tmp_path / "x.nc"))
    if shift < 1e-3:
        assert source.spacing == pytest.approx((1, 1))
    else:
        assert (source.spacing, source.unit) == (None, "pixel")
        assert source.notes == ("the coordinate lat is not evenly spaced, so frequencies are per sample",)


def test_spacing_is_even_beyond_the_rounding_and_the_turn_of_longitudes(tmp_path):
    fine = (359.5 + 0.0135 * np.arange(8)).astype(np.float32)  # steps differ by 1e-3 of a step and more
    assert np.ptp(np.diff(fine.astype(float))) > 1e-3 * 0.0135
    turning = (350.0 + 2.5 * np.arange(8)) % 360
    for lon, step in ((fine, 0.0135), (turning, 2.5)):
        coordinate = ("grid_longitude", lon, {"units": "degrees"})
        lat = ("grid_latitude", lon[:6], {"units": "degrees"})
        data = xarray.Dataset({"t": (("grid_latitude", "grid_longitude", "level"), normal(6, 8, 2))})
        data = data.assign_coords(grid_longitude=coordinate, grid_latitude=lat)
        source = open_source(written(data, tmp_path / f"{step}.nc"))
        assert source.shape == (1, 6, 8)
        assert source.spacing == pytest.approx((step, step), rel=1e-3)


def test_bounds_of_coordinates_are_no_fields(tmp_path):
    data = dataset(normal(5, 6, 8))
    data["lon_bounds"] = (("lat", "lon", "corner"), normal(6, 8, 4))
    data["lon"].attrs["bounds"] = "lon_bounds"
    assert open_source(written(data, tmp_path / "x.nc")).channels == ("t2m",)


def test_coordinates_of_two_units_give_no_spacing(tmp_path):
    data = dataset(normal(5, 6, 8), dims=("time", "depth", "x"))
    data["depth"].attrs["units"], data["x"].attrs["units"] = "m", "km"
    source = open_source(written(data, tmp_path / "x.nc"))
    assert (source.spacing, source.unit) == (None, "pixel")
    assert source.notes == ("the coordinates have the units m and km, so frequencies are per sample",)


def test_samples_with_missing_values_are_left_out_and_counted(tmp_path):
    stored = normal(5, 6, 8)
    stored[1, 0, 0] = stored[3, 5, 7] = np.nan
    path = written(dataset(stored), tmp_path / "x.nc")
    source = open_source(path)
    assert source.keys() == ["time=0", "time=2", "time=4"]
    assert list(source.groups()) == [0, 1, 2]
    assert source.notes == ("2 of 5 samples have missing values (NaN) and are left out",)
    assert np.array_equal(everything(source)[:, 0], stored[[0, 2, 4]])
    tiles = open_source(path, tile=4)  # the lower 2 rows are in no tile
    assert tiles.notes == ("1 of 10 samples have missing values (NaN) and are left out",)
    assert len(open_source(path, tile=4, limit=4)) == 4
    stored[:, 2, 2] = np.nan
    path = written(dataset(stored), tmp_path / "y.nc")
    with pytest.raises(ValueError, match=r"y\.nc: each of its 5 samples of 6×8 has missing values \(NaN\); --tile N"):
        open_source(path)


def test_infinite_values_are_an_error(tmp_path):
    stored = normal(5, 6, 8)
    stored[1, 0, 0] = np.inf
    source = open_source(written(dataset(stored), tmp_path / "x.nc"))
    with pytest.raises(ValueError, match=r"^time=1 in .*x\.nc: it holds NaN or infinity"):
        everything(source)


def test_packed_integers_are_unpacked_and_their_rounding_known(tmp_path):
    stored = normal(5, 6, 8, dtype=np.float64)
    stored[2, 1, 1] = np.nan
    packing = {"t2m": {"dtype": "int16", "scale_factor": 0.01, "add_offset": 3.0, "_FillValue": -32768}}
    source = open_source(written(dataset(stored), tmp_path / "x.nc", encoding=packing))
    assert source.rounding == pytest.approx(0.01**2 / 12)
    assert len(source) == 4
    np.testing.assert_allclose(everything(source)[:, 0], stored[[0, 1, 3, 4]], atol=0.00501)
    whole = dataset((100 * np.nan_to_num(stored)).astype(np.int32))
    source = open_source(written(whole, tmp_path / "y.nc"))
    assert source.rounding == pytest.approx(1 / 12)
    assert np.array_equal(everything(source)[:, 0], whole["t2m"].values)


@pytest.mark.parametrize("kind", ["text", "cut", "empty"])
def test_damaged_files_are_named(tmp_path, kind):
    path = tmp_path / "x.nc"
    written(dataset(normal(50, 60, 80)), path)
    whole = path.read_bytes()
    path.write_bytes({"text": b"<html><title>Sign in</title>", "cut": whole[:3000], "empty": b""}[kind])
    with pytest.raises(ValueError, match=r"^.*x\.nc: cannot be read as NetCDF or Zarr: "):
        open_source(str(path))


def test_variables_that_are_not_numbers_are_refused(tmp_path):
    data = xarray.Dataset({"name": (("y",), np.array(["a", "b"])), "one": ((), 1.0)})
    path = written(data, tmp_path / "x.nc")
    with pytest.raises(ValueError, match=r"x\.nc: expected real numbers in name; got "):
        open_source(f"{path}:name")
    with pytest.raises(ValueError, match=r"x\.nc: expected at least one axis and one value in one; got \{\}"):
        open_source(f"{path}:one")
    with pytest.raises(
        ValueError, match=r"x\.nc: expected a variable of real numbers with axes; it holds name \(.*, 1 axes\), one \("
    ):
        open_source(path)


def test_long_sets_are_read_in_blocks(tmp_path, monkeypatch):
    from specreg.instruments.sources import fields

    stored = normal(7, 6, 8)
    path = written(dataset(stored), tmp_path / "x.nc")
    monkeypatch.setattr(fields, "_BLOCK", 3 * 8 * 6 * 8)
    source = open_source(path)
    for i in (0, 6, 2, 3, 5):
        assert np.array_equal(source.read(i, i + 1)[0, 0], stored[i])
    assert np.array_equal(source.read(1, 7)[:, 0], stored[1:])


def test_a_series_has_the_spacing_of_its_time(tmp_path):
    time = ("time", 6.0 * np.arange(40), {"units": "hours since 2000-01-01"})
    data = xarray.Dataset({"series": (("time",), normal(40))}, coords={"time": time})
    source = open_source(written(data, tmp_path / "x.nc"))
    assert (source.spacing, source.unit, source.shape) == ((6.0,), "hours", (1, 40))
