"""Simulated turbulence: seeded, stationary in kind, resolved; the solver beside a decay known in closed form."""

import math

import numpy as np
import pytest
import torch

pytest.importorskip("torch_cfd")

from disks import room_for
from specreg._files import WriteError
from specreg.data import turbulence
from specreg.data.turbulence import Flow, simulate, write

TINY = Flow(resolution=16, trajectories=2, test_trajectories=1, snapshots=2, spin_up=1.0, interval=0.5)


def test_fields_are_a_function_of_the_seed_and_trajectories_of_their_number(tmp_path):
    first = simulate(TINY, seed=3)
    assert first.shape == (3, 2, 1, 16, 16)
    np.testing.assert_array_equal(first, simulate(TINY, seed=3))
    assert np.abs(first - simulate(TINY, seed=4)).max() > 1
    told = []
    write(tmp_path / "set", TINY, seed=3, done=told.append)
    assert told[-1] == pytest.approx(1)
    assert told == sorted(told)
    np.testing.assert_array_equal(np.load(tmp_path / "set" / "train.npy"), first[:2].reshape(4, 1, 16, 16))
    np.testing.assert_array_equal(np.load(tmp_path / "set" / "test.npy"), first[2:].reshape(2, 1, 16, 16))


@pytest.fixture
def still(monkeypatch):
    """Zeros in place of a simulation; returns the flows that were simulated."""
    simulated = []

    def zeros(flow, *, seed, done):
        simulated.append(flow)
        return np.zeros((flow.trajectories + flow.test_trajectories, flow.snapshots, 1, 16, 16), np.float32)

    monkeypatch.setattr(turbulence, "simulate", zeros)
    return simulated


def test_a_file_in_the_place_of_the_folder_is_refused_before_the_simulation(tmp_path, still):
    (tmp_path / "set").write_text("mine")
    with pytest.raises(ValueError, match=r"expected a folder .*set is a file"):
        write(tmp_path / "set", TINY, seed=0)
    assert not still
    assert (tmp_path / "set").read_text() == "mine"


def test_a_full_disk_is_a_sentence_and_leaves_no_fields_that_are_cut(tmp_path, still):
    """`specreg turbulence` refuses a folder with train.npy, so a part of it would be in the way of the same command."""
    with room_for(3000), pytest.raises(WriteError, match=r"set/train\.npy: cannot be written \(File too large\)"):
        write(tmp_path / "set", TINY, seed=0)
    assert sorted(path.name for path in (tmp_path / "set").iterdir()) == ["test.npy", "turbulence.json"]
    assert np.load(tmp_path / "set" / "test.npy").shape == (2, 1, 16, 16)
    write(tmp_path / "set", TINY, seed=0)
    assert np.load(tmp_path / "set" / "train.npy").shape == (4, 1, 16, 16)


def test_a_taylor_green_vortex_under_the_laminar_force_follows_its_equation(monkeypatch):
    """From ω = b cos 4y nothing is advected: b' = −(16 ν + μ) b − 4."""
    flow = Flow(resolution=16, trajectories=1, test_trajectories=1, snapshots=1, spin_up=2.0)

    def laminar(count, n, seed):
        y = torch.arange(n) * (2 * math.pi / n)
        field = torch.cos(4 * y).expand(count, n, n)  # along the last axis
        return torch.fft.rfft2(field)

    monkeypatch.setattr(turbulence, "_noise", laminar)
    found = simulate(flow, seed=0)[0, 0, 0]
    rate = 16 * flow.viscosity + flow.drag
    limit = -4 / rate
    expected = limit + (1 - limit) * math.exp(-rate * 2.0)
    y = np.arange(16) * (2 * math.pi / 16)
    wave = np.broadcast_to(expected * np.cos(4 * y)[:, None], found.shape)
    np.testing.assert_allclose(found, wave, atol=2e-3 * abs(expected))


def test_enstrophy_goes_to_smaller_and_energy_to_larger_scales():
    """What two-dimensional turbulence is known for; with axes in the wrong order both signs would be wrong."""
    from specreg.metrics.turbulence import fluxes

    flow = Flow(resolution=32, trajectories=8, test_trajectories=1, snapshots=4, spin_up=6.0, viscosity=1e-2)
    found = fluxes(torch.from_numpy(simulate(flow, seed=0)[:8].reshape(-1, 32, 32)))
    assert bool((found.enstrophy[4:12] > 0).all())  # beyond the force at wavenumber 4
    assert float(found.energy[1]) < 0


def test_what_is_kept_are_the_modes_below_nyquist():
    g = torch.Generator().manual_seed(0)
    wide = torch.randn(1, 24, 24, generator=g, dtype=torch.float64)
    kept = torch.fft.fft2(turbulence._kept(torch.fft.rfft2(wide), 16).mT, norm="forward")[0]
    whole = torch.fft.fft2(wide, norm="forward")[0]
    for ky in (-7, 0, 3, 7):
        for kx in (-7, 0, 5, 7):
            torch.testing.assert_close(kept[ky, kx], whole[ky, kx])
    assert float(kept[8].abs().max()) < 1e-12


@pytest.mark.parametrize(("field", "value"), [("viscosity", -1.0), ("resolution", 18), ("snapshots", 0)])
def test_flows_that_cannot_be_are_refused(field, value):
    with pytest.raises(ValueError, match=f"{field} must be"):
        Flow(**{field: value})
