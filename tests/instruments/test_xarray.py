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
    with pytest.raises(ValueError, match=r"dataset: expected one variable; it holds t, q; name one"):
        instruments.open_source(data)
    with pytest.raises(ValueError, match=r"no variable 'x'"):
        instruments.open_source(data, variable="x")
    with pytest.raises(ValueError, match=r"text: expected one variable; it holds text"):
        instruments.open_source(xarray.DataArray(np.array(["a", "b"]), dims="x", name="text"))
