from __future__ import annotations

import numpy as np
import pytest
import torch

from specreg.data import Checkerboards, board_bands, boards


def test_board_is_the_product_of_two_square_waves() -> None:
    data = Checkerboards(20, resolution=24, squares=(2, 3), seed=5)
    for i in range(len(data)):
        s, dx, dy = data.board(i)
        assert s in (2, 3)
        assert 0 <= dx < 2 * s
        assert 0 <= dy < 2 * s
        expected = [[(-1.0) ** ((x + dx) // s + (y + dy) // s) for x in range(24)] for y in range(24)]
        assert data[i].dtype == torch.float32
        assert data[i].tolist() == [expected]


def test_item_is_a_function_of_seed_and_index_only() -> None:
    few, many = Checkerboards(8, seed=1), Checkerboards(100, seed=1)
    backwards = {i: few[i] for i in reversed(range(8))}
    assert all(torch.equal(backwards[i], many[i]) for i in range(8))
    other = Checkerboards(100, seed=2)
    assert [other.board(i) for i in range(100)] != [many.board(i) for i in range(100)]
    # The stream is pinned: a run resumed under another numpy must see the same boards.
    assert [Checkerboards(3, seed=0).board(i) for i in range(3)] == [(4, 5, 4), (2, 3, 3), (8, 1, 14)]


def test_draws_cover_the_family_evenly() -> None:
    data = Checkerboards(3000, seed=3)
    draws = [data.board(i) for i in range(3000)]
    for s in (2, 4, 8):
        assert sum(draw[0] == s for draw in draws) == pytest.approx(1000, abs=4 * np.sqrt(3000 * 2 / 9))
    phases = [(dx, dy) for s, dx, dy in draws if s == 2]
    assert set(phases) == {(dx, dy) for dx in range(4) for dy in range(4)}


def test_boards_are_all_boards_once() -> None:
    family = boards(16, squares=(1, 2, 4))
    assert family.shape == (2 + 8 + 32, 16, 16)
    as_tuples = {tuple(board.flatten().tolist()) for board in family}
    assert len(as_tuples) == len(family)
    drawn = Checkerboards(200, resolution=16, squares=(1, 2, 4))
    assert all(tuple(drawn[i].flatten().tolist()) in as_tuples for i in range(200))


@pytest.mark.parametrize(("resolution", "squares"), [(64, (2, 4, 8)), (24, (3, 4)), (8, (1,))])
def test_all_energy_lies_in_the_bands_and_every_band_is_used(resolution: int, squares: tuple[int, ...]) -> None:
    family = boards(resolution, squares).double().numpy()
    energy = np.abs(np.fft.fft2(family, norm="ortho")) ** 2
    bands = board_bands(resolution, squares).numpy()
    total = energy.sum(axis=(1, 2))
    np.testing.assert_allclose(total, resolution**2)
    np.testing.assert_allclose(energy[:, bands].sum(axis=1), total)
    assert (energy[:, bands].max(axis=0) > 1e-6).all()
    assert bands.sum() == sum(s * s for s in squares)  # odd multiples below N for periods that share none


def test_bands_of_a_board_that_does_not_close_are_refused() -> None:
    with pytest.raises(ValueError, match=r"2·5 pixels, must divide the resolution 64"):
        board_bands(64, (4, 5))


def test_bad_options_and_indices() -> None:
    for squares in ((), (2, 2), (0,), (40,)):
        with pytest.raises(ValueError, match="squares"):
            Checkerboards(4, squares=squares)
    with pytest.raises(ValueError, match="count"):
        Checkerboards(0)
    with pytest.raises(ValueError, match="seed"):
        Checkerboards(1, seed=-1)
    with pytest.raises(IndexError):
        Checkerboards(4)[4]
    assert len(list(Checkerboards(4))) == 4  # iteration ends
