"""Fields in xarray's objects: read as from their file, and spectra that go back as one."""

import numpy as np
import pytest
import torch

from specreg import instruments

xarray = pytest.importorskip("xarray")


def dataset(seed=0, times=12, members=2):
    g = np.random.default_rng(seed)
    values = g.standard_normal((times, members, 16, 32)).astype(np.float32)
    return xarray.Dataset(
        {"t": (("time", "member", "lat", "lon"), 280 + values), "q": (("time", "member", "lat", "lon"), values[::-1])},
        coords={
            "lat": ("lat", np.linspace(-30, 30, 16, endpoint=False), {"units": "degrees_north"}),
            "lon": ("lon", np.arange(32) * 3.75, {"units": "degrees_east"}),
        },
    )


def test_objects_are_measured_as_their_files(tmp_path):
    pytest.importorskip("h5netcdf")
    data = dataset()
    data.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    for given, path in ((data["t"], "t"), (data, "t,q")):
        source = instruments.open_source(given, variable=None if path == "t" else path)
        own = instruments.measure(source)
        file = instruments.measure(f"{tmp_path / 'a.nc'}:{path}")
        np.testing.assert_allclose(own.power, file.power, rtol=1e-12)
        assert (own.spacing, own.unit, own.channels) == (file.spacing, file.unit, file.channels)
        assert own.sums.samples == 24
        assert own.sums.groups == 12
    assert instruments.open_source(data["q"]).name == "q"


def test_spectra_go_back_with_frequencies_in_units_and_intervals():
    data = dataset()
    spectrum = instruments.measure(data["t"])
    found = spectrum.to_xarray()
    assert found.frequency.attrs["units"] == "cycles per degree"
    np.testing.assert_allclose(found.frequency, spectrum.frequency / 3.75)
    np.testing.assert_allclose(found.power, spectrum.power)
    np.testing.assert_allclose(found.channel_power.mean("channel"), found.power)
    assert bool((found.power_low < found.power).all() & (found.power < found.power_high).all())
    assert found.attrs == {"name": "t", "samples": 24, "independent": 12}
    # White noise is flat, and power that is in no bin is the mean's: an oracle that knows no bins.
    assert float((found.power * found.coefficients).sum() / found.coefficients.sum()) == pytest.approx(1, abs=0.1)
    plain = instruments.measure(torch.randn(8, 1, 16, 16)).to_xarray()
    assert plain.frequency.attrs["units"] == "cycles per sample"


def test_sets_side_by_side():
    first, second = dataset(0)["q"], 2 * dataset(1)["q"].rename("twice")
    result = instruments.spectra(first, second)
    table = result.to_xarray()
    assert list(table["set"].values) == ["q", "twice"]
    total = (table.power * table.coefficients).sum("frequency")
    assert float(total.sel(set="twice") / total.sel(set="q")) == pytest.approx(4, rel=0.1)
    assert table.power_low.shape == (2, len(table.frequency))


def test_what_is_no_field_is_refused_by_name():
    data = dataset()
    with pytest.raises(
        ValueError, match=r"dataset: expected one variable; it holds t, q; take one, as in data\['name'\]"
    ):
        instruments.open_source(data)
    with pytest.raises(ValueError, match=r"no variable 'x'"):
        instruments.open_source(data, variable="x")
    for held in (np.array(["a", "b"]), np.ones(4, complex)):
        with pytest.raises(
            ValueError, match=r"named: expected a variable of real numbers with axes; it holds named \("
        ):
            instruments.open_source(xarray.DataArray(held, dims="x", name="named"))
    with pytest.raises(TypeError, match=r"expected a path, an xarray Dataset or DataArray, .*; got Variable"):
        instruments.measure(data["t"].variable)


def test_powers_are_those_of_numpy_s_transform():
    """Each bin is the mean of |F|² over a ring, counted here by hand; the rings hold all power up to Nyquist."""
    data = dataset(times=6)["q"]
    spectrum = instruments.measure(data, instruments.Settings(window="none", detrend="none")).to_xarray()
    power = np.square(np.abs(np.fft.fft2(data.values.astype(float), norm="ortho"))).mean((0, 1))
    radius = np.hypot(np.fft.fftfreq(16, 3.75)[:, None], np.fft.fftfreq(32, 3.75))  # cycles per degree
    ring = np.rint(radius * 32 * 3.75).astype(int)
    for k in range(1, 16):
        np.testing.assert_allclose(spectrum.power[k - 1], power[ring == k].mean(), rtol=1e-10)
        np.testing.assert_allclose(spectrum.frequency[k - 1], radius[ring == k].mean(), rtol=1e-10)
        assert spectrum.coefficients[k - 1] == (ring == k).sum()


def test_a_wave_has_its_wavelength_where_axes_differ():
    longitude, latitude = 0.5 * np.arange(64), 2.0 * np.arange(32)
    waves = np.cos(2 * np.pi * longitude / 8)[None, None] + np.zeros((2, 32, 1))
    data = xarray.DataArray(
        waves,
        dims=("time", "lat", "lon"),
        coords={"lat": ("lat", latitude, {"units": "degrees_north"}), "lon": ("lon", longitude, {"units": "degrees"})},
    )
    spectrum = instruments.measure(data, instruments.Settings(window="none")).to_xarray()
    width = 1 / (32 * 2.0)  # of a bin, the lowest frequency of the longest axis
    assert float(spectrum.power.idxmax()) == pytest.approx(1 / 8, abs=width)
    assert spectrum.frequency.attrs["units"] == "cycles per degree"


def test_coordinates_of_time_are_those_of_the_file(tmp_path):
    pytest.importorskip("h5netcdf")
    time = np.datetime64("2000-01-01", "ns") + 6 * np.timedelta64(1, "h") * np.arange(64)
    data = xarray.DataArray(np.random.default_rng(0).standard_normal(64), coords={"time": time}, dims="time", name="t")
    data.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    memory, file = instruments.open_source(data, segment=16), instruments.open_source(tmp_path / "a.nc", segment=16)
    assert (memory.spacing, memory.unit) == (file.spacing, file.unit) == ((6.0,), "hours")


def test_names_and_subclasses_that_xarray_allows():
    class Own(xarray.DataArray):
        __slots__ = ()

    data = dataset()["t"]
    expected = instruments.measure(data).power
    for name in ("lat", 3, ("a", "b"), None):
        spectrum = instruments.measure(data.rename(name))
        np.testing.assert_array_equal(spectrum.power, expected)
        assert spectrum.name == ("field" if name is None else str(name))
    np.testing.assert_array_equal(instruments.measure(Own(data)).power, expected)


def test_an_axis_without_a_coordinate_is_said():
    source = instruments.open_source(dataset()["t"].drop_vars("lat"))
    assert source.spacing is None
    assert list(source.notes) == ["the axis lat has no coordinate, so frequencies are per sample"]
    assert not instruments.open_source(dataset()["t"].drop_vars(["lat", "lon"])).notes
