import numpy as np
import pytest

from specreg.instruments.grid import grid


@pytest.mark.parametrize(
    "shape", [(20, 30), (30, 20), (31, 31), (32, 32), (33, 20), (64,), (63,), (8, 12, 10), (4, 4), (17, 64)]
)
@pytest.mark.parametrize("transform", ["dft", "dct"])
def test_every_coefficient_is_in_one_bin_and_no_bin_is_empty(shape, transform):
    found = grid(shape, None, transform)
    assert found.size.sum() == np.prod(shape)
    assert found.size[0] == 1
    assert (found.size[1:-1] > 0).all()
    assert found.centre[-1] <= 0.5
    assert (np.abs(found.frequency - found.centre) <= found.centre[0] / 2 + 1e-12).all()


def test_bins_of_an_image_by_counting():
    """An independent count over the whole spectrum of 6×8 pixels, whose bins are 1/8 wide."""
    radius = np.hypot(*np.meshgrid(np.fft.fftfreq(6), np.fft.fftfreq(8), indexing="ij")).round(12)
    expected = [np.sum(radius == 0)]
    expected += [
        np.sum((radius >= (m - 0.5) / 8) & (radius < (m + 0.5) / 8) & (radius > 0) & (radius <= 0.5))
        for m in range(1, 5)
    ]
    expected += [np.sum(radius > 0.5)]
    assert grid((6, 8)).size.tolist() == expected


def test_nyquist_of_a_signal_is_counted_once():
    found = grid((16,))
    assert found.size.tolist() == [1, *[2] * 7, 1, 0]
    assert found.frequency[-1] == found.centre[-1] == 0.5


def test_unequal_spacing_is_isotropic_in_physical_frequency():
    """Twice as fine along x: Nyquist is that of y, and finer waves along x are corners."""
    found = grid((32, 64), (1.0, 0.5))
    assert found.spacing == (1.0, 0.5)
    assert found.centre[-1] == 0.5
    assert found.bins == 16
    # the same extent with equal spacing has the same bins up to Nyquist
    assert found.size[1:-1].tolist() == [*grid((32, 32)).size[1:-2].tolist(), found.size[-2]]


def test_band_edges_belong_to_the_band_below():
    found = grid((32, 32))
    assert found.band_of_bin.tolist() == [k for k in range(8) for _ in range(2)]


@pytest.mark.parametrize(
    ("shape", "spacing", "said"),
    [
        ((2, 3), None, "at least 4"),
        ((8, 8), (1.0,), "for each of 2 axes"),
        ((8,), (0.0,), "positive"),
        ((2, 2, 2, 8), None, "one to three axes"),
    ],
)
def test_bad_shapes_are_refused(shape, spacing, said):
    with pytest.raises(ValueError, match=said):
        grid(shape, spacing)
