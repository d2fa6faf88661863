import numpy as np
import torch

from specreg.randomness import DataOrder, Stream, draw, integer_seed, rng


def test_a_number_depends_on_seed_stream_step_and_index_alone():
    values = {
        (seed, stream, step, index): rng(seed, stream, step, index).random()
        for seed in (0, 1)
        for stream in Stream
        for step in (0, 1)
        for index in (0, 1)
    }
    assert len(set(values.values())) == len(values)
    assert values[1, Stream.NOISE, 1, 0] == rng(1, Stream.NOISE, 1, 0).random()
    assert integer_seed(3, Stream.INIT) == integer_seed(3, Stream.INIT) != integer_seed(4, Stream.INIT)


def test_a_batch_is_the_same_however_it_is_shared_out():
    whole = draw(7, 3, range(8), (1, 4, 4), lambda g: int(g.integers(100)))
    parts = [draw(7, 3, range(start, start + 2), (1, 4, 4), lambda g: int(g.integers(100))) for start in (0, 2, 4, 6)]
    torch.testing.assert_close(torch.cat([p.noise for p in parts]), whole.noise, rtol=0, atol=0)
    assert torch.equal(torch.cat([p.t for p in parts]), whole.t)


def test_noise_is_unit_normal_and_timesteps_uniform():
    noise, t = draw(0, 0, range(400), (1, 8, 8), lambda g: int(g.integers(10)))
    assert abs(float(noise.mean())) < 4 / noise.numel() ** 0.5
    assert abs(float(noise.var()) - 1) < 4 * (2 / noise.numel()) ** 0.5
    counts = np.bincount(t.numpy(), minlength=10)
    assert ((counts - 40) ** 2 / 40).sum() < 27.9  # 99.9% of chi-squared with 9 degrees of freedom


def test_every_item_comes_once_an_epoch_in_a_new_order():
    order = DataOrder(seed=0, items=10, batch_size=4)
    places = [(step, index) for step in range(10) for index in range(4)]
    items = [order.item(*place) for place in places]
    epochs = [items[i : i + 10] for i in range(0, 40, 10)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert epochs[0] != epochs[1]
    assert [DataOrder(0, 10, 4).item(*place) for place in reversed(places)] == items[::-1]
