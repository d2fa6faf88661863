"""Dead leaves against what is known of the model in closed form."""

import numpy as np
import pytest
import torch

from specreg.data import DeadLeaves


def test_an_item_depends_on_seed_and_index_alone():
    short, long = DeadLeaves(3, resolution=16), DeadLeaves(50, resolution=16)
    backwards = [long.item(i) for i in reversed(range(3))][::-1]
    assert all(torch.equal(short.item(i), backwards[i]) for i in range(3))
    assert torch.equal(long.item(7), long.item(7))
    assert not torch.equal(DeadLeaves(3, resolution=16, seed=1).item(0), short.item(0))
    assert short.item(0).shape == (3, 16, 16)
    assert DeadLeaves(1, resolution=16, channels=1).item(0).shape == (1, 16, 16)
    levels = (short.item(0) + 1) * 127.5
    torch.testing.assert_close(levels, levels.round(), atol=1e-4, rtol=0)
    assert short.item(0).abs().max() <= 1


def test_discs_larger_than_the_image_make_it_flat_and_small_ones_make_it_noise():
    """The chance that two neighbouring pixels lie in one disc is near 1 for large discs and 0 for tiny ones."""
    flat = DeadLeaves(20, resolution=8, radii=(200, 201), contrast=0, channels=1)
    inside = [flat.item(i).std() for i in range(20)]
    assert np.median(inside) < 1e-6
    values = [float(flat.item(i).mean()) for i in range(20)]
    assert np.std(values) > 0.3


def test_the_covariance_is_the_share_of_points_in_one_disc():
    """Flat discs: two points at distance d are equal if one disc shows at both: p(d) = g(d)/(2·g(0) − g(d)).

    g(d) is the mean area of the intersection of a disc and itself shifted by d (Lee, Mumford & Huang 2001, section 3).
    A pixel is the mean of four points, so its covariance is the mean of p over the pairs of points.
    """
    low, high, lag = 2.0, 6.0, 2
    leaves = DeadLeaves(600, resolution=16, radii=(low, high), contrast=0, channels=1)
    x = torch.stack([leaves.item(i) for i in range(600)]).numpy()[:, 0]
    r = np.linspace(low, high, 2001)
    density = r**-3 / np.trapezoid(r**-3, r)

    def p(d):
        inside = np.clip(d / (2 * r), 0, 1)
        shared = 2 * r**2 * np.arccos(inside) - d * r * np.sqrt(1 - inside**2)
        g, area = np.trapezoid(density * shared, r), np.trapezoid(density * np.pi * r**2, r)
        return g / (2 * area - g)

    points = [(a, b) for a in (-0.25, 0.25) for b in (-0.25, 0.25)]
    covariance = [
        np.mean([p(np.hypot(shift + a - c, b - d)) for a, b in points for c, d in points]) for shift in (0, lag)
    ]
    centred = x - x.mean()
    correlation = (centred[:, :, lag:] * centred[:, :, :-lag]).mean() / (centred**2).mean()
    assert correlation == pytest.approx(covariance[1] / covariance[0], abs=0.02)


def test_power_falls_as_in_photographs():
    """About f^-2 per coefficient for a range of radii (photographs: -1.8 to -2.3)."""
    leaves = DeadLeaves(200, resolution=64, channels=1, contrast=0)
    x = torch.stack([leaves.item(i) for i in range(200)]).numpy()[:, 0]
    power = np.abs(np.fft.fft2(x * np.hanning(64)[:, None] * np.hanning(64)) / 64) ** 2
    f = np.hypot(*np.meshgrid(np.fft.fftfreq(64), np.fft.fftfreq(64)))
    inside = (f > 3 / 64) & (f < 16 / 64)
    slope = np.polyfit(np.log(f[inside]), np.log(power.mean(0)[inside]), 1)[0]
    assert -3.2 < slope < -1.8


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"count": 0}, "count must be at least 1; got 0"),
        ({"channels": 2}, "channels must be 1 .grey. or 3 .colour.; got 2"),
        ({"radii": (3, 2)}, "0 < r_min < r_max .*got 3 and 2"),
        ({"contrast": 2.0}, "contrast must be between 0 and 1; got 2"),
    ],
)
def test_bad_options_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        DeadLeaves(**{"count": 4, **options})
