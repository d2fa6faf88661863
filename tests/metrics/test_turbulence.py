"""Statistics of vorticity beside closed forms and sums written out."""

import math

import numpy as np
import pytest
import torch

from specreg.metrics import turbulence

SIDE = 16


def grid():
    axis = torch.arange(SIDE, dtype=torch.float64) * (2 * math.pi / SIDE)
    return torch.meshgrid(axis, axis, indexing="ij")


def taylor_green(a=2):
    """ψ = sin ax · sin ay: u = a sin ax cos ay, v = −a cos ax sin ay, ω = 2a² sin ax sin ay."""
    y, x = grid()
    return 2 * a**2 * torch.sin(a * x) * torch.sin(a * y)[None]


def noise(n=3, seed=0):
    g = torch.Generator().manual_seed(seed)
    omega = torch.fft.fft2(torch.randn(n, SIDE, SIDE, generator=g, dtype=torch.float64))
    k = torch.fft.fftfreq(SIDE, dtype=torch.float64) * SIDE
    omega[:, k.abs() == SIDE // 2] = 0
    omega[:, :, k.abs() == SIDE // 2] = 0
    omega[:, 0, 0] = 0
    return torch.fft.ifft2(omega).real


def test_velocity_is_taylor_greens():
    y, x = grid()
    u, v = turbulence.velocity(taylor_green())
    torch.testing.assert_close(u[0], 2 * torch.sin(2 * x) * torch.cos(2 * y))
    torch.testing.assert_close(v[0], -2 * torch.cos(2 * x) * torch.sin(2 * y))


def test_spectra_add_up_and_a_mode_lies_in_its_shell():
    omega = noise()
    found = turbulence.spectra(omega)
    u, v = turbulence.velocity(omega)
    k = np.hypot(*np.meshgrid(*[np.fft.fftfreq(SIDE) * SIDE] * 2))
    inside = np.round(k) <= SIDE // 2
    modes = np.abs(np.fft.fft2(omega.numpy()) / SIDE**2) ** 2
    assert float(found.enstrophy.sum()) == pytest.approx(0.5 * (modes * inside).sum((1, 2)).mean())
    whole = 0.5 * float((u**2 + v**2).mean())
    corners = 0.5 * np.divide(modes, k**2, where=~inside, out=np.zeros_like(modes)).sum((1, 2)).mean()
    assert float(found.energy.sum()) == pytest.approx(whole - corners)
    single = turbulence.spectra(taylor_green())  # |k| = √8, in shell 3
    assert single.wavenumber.tolist() == list(range(1, SIDE // 2 + 1))
    assert float(single.enstrophy[2]) == pytest.approx(0.5 * 8**2 / 4)
    assert float(single.energy[2]) == pytest.approx(0.5 * 8**2 / 4 / 8)
    assert float(single.energy.sum()) == pytest.approx(float(single.energy[2]))


def test_slopes_are_those_that_were_planted():
    side, g = 128, torch.Generator().manual_seed(1)
    k = torch.hypot(*torch.meshgrid(*[torch.fft.fftfreq(side, dtype=torch.float64) * side] * 2, indexing="ij"))
    white = torch.fft.fft2(torch.randn(20, side, side, generator=g, dtype=torch.float64))
    omega = torch.fft.ifft2(white * k.clamp_min(1) ** -1.0).real  # |ω̂|² ~ k^-2, so Z ~ k^-1 and E ~ k^-3
    found = turbulence.spectra(omega)
    logs = [torch.log(values[3:40]).numpy() for values in (found.wavenumber, found.energy, found.enstrophy)]
    assert np.polyfit(logs[0], logs[1], 1)[0] == pytest.approx(-3, abs=0.05)
    assert np.polyfit(logs[0], logs[2], 1)[0] == pytest.approx(-1, abs=0.05)


def test_structure_functions_of_a_single_mode():
    """u = −cos y·0 … of ω = cos 3x: v = sin(3x)/3, whose longitudinal increments (along y) are 0."""
    _, x = grid()
    flat = turbulence.structure_functions(torch.cos(3 * x)[None])
    assert float(flat.second.abs().max()) < 1e-20
    found = turbulence.structure_functions(taylor_green())
    expected = 2 * (1 - torch.cos(2 * found.separation))  # ⟨δu²⟩ = 2⟨u²⟩(1 − cos ar), ⟨u²⟩ = a²/4
    torch.testing.assert_close(found.second, expected)
    assert float(found.third.abs().max()) < 1e-12


def test_structure_functions_are_their_sums():
    omega = noise(2)
    u, v = (x.numpy() for x in turbulence.velocity(omega))
    found = turbulence.structure_functions(omega)
    for r in (1, 3, 8):
        steps = [np.take(u, (np.arange(SIDE) + r) % SIDE, 2) - u, np.take(v, (np.arange(SIDE) + r) % SIDE, 1) - v]
        assert float(found.second[r - 1]) == pytest.approx(np.mean(np.square(steps)))
        assert float(found.third[r - 1]) == pytest.approx(np.mean(np.power(steps, 3)))


def test_fluxes_are_the_sums_over_all_triads():
    """Σ over pairs of modes p + q = k, written out, of modes small enough that their sums stay on the grid."""
    g = np.random.default_rng(0)
    modes = {}
    for kx in range(-3, 4):
        for ky in range(-3, 4):
            if (kx, ky) > (0, 0):
                modes[kx, ky] = complex(*g.standard_normal(2))
                modes[-kx, -ky] = modes[kx, ky].conjugate()
    y, x = (a.numpy() for a in grid())
    omega = sum(c * np.exp(1j * (kx * x + ky * y)) for (kx, ky), c in modes.items()).real
    transfer = {"energy": np.zeros(SIDE), "enstrophy": np.zeros(SIDE)}
    for (px, py), a in modes.items():
        for (qx, qy), b in modes.items():
            k = (px + qx, py + qy)
            if k in modes:
                psi = a / (px**2 + py**2)
                advected = (1j * py * psi) * (1j * qx * b) + (-1j * px * psi) * (1j * qy * b)
                shell = round(math.hypot(*k))
                transfer["enstrophy"][shell] += (modes[k].conjugate() * advected).real
                transfer["energy"][shell] += (modes[k].conjugate() / (k[0] ** 2 + k[1] ** 2) * advected).real
    found = turbulence.fluxes(torch.from_numpy(omega)[None])
    np.testing.assert_allclose(found.enstrophy, np.cumsum(transfer["enstrophy"])[1 : SIDE // 2 + 1], atol=1e-10)
    np.testing.assert_allclose(found.energy, np.cumsum(transfer["energy"])[1 : SIDE // 2 + 1], atol=1e-10)
    assert abs(float(found.energy[-1])) < 1e-10  # nothing is made or lost
    assert abs(float(found.enstrophy[-1])) < 1e-10


def test_effective_resolution_ends_at_the_first_shell_that_is_off():
    truth = torch.tensor([9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0])
    off = torch.tensor([3.0, 1.0, 1.0, 1.2, 1.2, 1.0, 1.9, 1.0, 1.0])
    assert turbulence.effective_resolution(truth * off, truth) == 5  # at 6 the shell 7 is near
    assert turbulence.effective_resolution(truth * off, truth, tolerance_db=3) == 9
    assert turbulence.effective_resolution(0 * truth, truth) == 0


def test_fields_in_blocks_are_those_at_once(monkeypatch):
    omega = noise(5)
    at_once = [measure(omega) for measure in (turbulence.spectra, turbulence.structure_functions, turbulence.fluxes)]
    monkeypatch.setattr(turbulence, "_AT_ONCE", 2 * SIDE**2)  # two, two and one
    in_blocks = [measure(omega) for measure in (turbulence.spectra, turbulence.structure_functions, turbulence.fluxes)]
    for one, other in zip(at_once, in_blocks, strict=True):
        for values, others in zip(one, other, strict=True):
            torch.testing.assert_close(values, others, rtol=1e-12, atol=1e-14)


def test_kurtosis_and_shapes():
    values = torch.randn(200_000, generator=torch.Generator().manual_seed(0))
    assert turbulence.kurtosis(5 + 2 * values) == pytest.approx(3, abs=0.05)
    with pytest.raises(ValueError, match=r"vorticity must be \[N, H, H\] with an even H; got \[2, 5, 5\]"):
        turbulence.spectra(torch.zeros(2, 5, 5))
    with pytest.raises(ValueError, match=r"vorticity must be \[N, H, H\] with an even H; got \[0, 8, 8\]"):
        turbulence.fluxes(torch.zeros(0, 8, 8))


def test_a_seam_is_seen_and_a_periodic_field_has_none():
    side = 16
    ramp = torch.arange(side, dtype=torch.float64).expand(3, side, side)  # steps of 1, and of 15 across the edge
    assert turbulence.seam(ramp) == pytest.approx((side - 1) ** 2)
    assert turbulence.seam(ramp.mT) == pytest.approx((side - 1) ** 2)
    noise = torch.randn(64, side, side, generator=torch.Generator().manual_seed(0))
    assert turbulence.seam(noise) == pytest.approx(1, abs=0.05)
    assert turbulence.seam(torch.zeros(1, side, side)) == 0
