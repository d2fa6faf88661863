import numpy as np
import pytest
import torch

from instruments.sources.files import encoded, everything, folder_of, noise
from specreg.instruments.sources import open_source


def test_tiles_cover_each_picture_and_share_its_group(tmp_path):
    big, odd, small = noise(8, 12), noise(7, 9, seed=1), noise(3, 20, seed=2)
    files = {"a.png": encoded(big), "b.png": encoded(odd), "c.png": encoded(small)}
    source = open_source(folder_of(tmp_path / "x", files), tile=4)
    assert source.shape == (1, 4, 4)
    assert source.keys()[:3] == ["a@0,0", "a@0,4", "a@0,8"]
    assert source.keys()[6:] == ["b@0,0", "b@0,4"]
    assert list(source.groups()) == [0] * 6 + [1] * 2
    assert source.notes == ("1 of 3 are smaller than 4×4 and left out, such as c.png, 3×20",)
    found = everything(source)[:, 0].numpy()
    rows = found[:6].reshape(2, 3, 4, 4).transpose(0, 2, 1, 3).reshape(8, 12)
    np.testing.assert_allclose(rows, big / 127.5 - 1, atol=1e-6)
    np.testing.assert_allclose(found[7], odd[:4, 4:8] / 127.5 - 1, atol=1e-6)
    for i in range(len(source)):
        assert torch.equal(source.read(i, i + 1)[0, 0], torch.from_numpy(found[i]))


def test_sizes_that_differ_are_named_with_the_remedy(tmp_path):
    files = {"a.png": encoded(noise(8, 12)), "b/c.png": encoded(noise(7, 9))}
    path = folder_of(tmp_path / "x", files)
    says = "expected samples of one size; a.png is 8×12, b/c.png is 7×9; --tile N cuts all of them into samples of N×N "
    says += "pixels"
    with pytest.raises(ValueError, match=f"^{path}: {says}$"):
        everything(open_source(path))


def test_a_tile_that_fits_nowhere_is_refused(tmp_path):
    path = folder_of(tmp_path / "x", {"a.png": encoded(noise(8, 12)), "b.png": encoded(noise(9, 9))})
    with pytest.raises(ValueError, match=r"no sample of 10×10 fits: the largest of 2 is 8×12"):
        open_source(path, tile=10)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"tile": 0}, r"tile must be a length of 1 or more, or one for each of the 2 axes of .*; got 0"),
        ({"tile": (4, 4, 4)}, r"one for each of the 2 axes of .*; got \(4, 4, 4\)"),
        ({"segment": 4}, r"x has samples of 2 axes: segment cuts samples of one axis; use tile"),
        ({"limit": 0}, r"limit must be 1 or more; got 0"),
        ({"channels": "grey"}, r"channels must be one of all, luma, luma-chroma; got 'grey'"),
        ({"variable": "red"}, r"x holds pictures, which have no variables; got 'red'"),
    ],
)
def test_options_that_do_not_fit_are_refused(tmp_path, options, says):
    path = folder_of(tmp_path / "x", {"a.png": encoded(noise(8, 12))})
    with pytest.raises(ValueError, match=says):
        open_source(path, **options)


def test_a_limit_takes_samples_evenly_from_the_whole_set(tmp_path):
    stored = np.arange(10, dtype=np.float32)[:, None] * np.ones(7, dtype=np.float32)
    np.save(tmp_path / "x.npy", stored)
    source = open_source(str(tmp_path / "x.npy"), limit=4)
    assert source.keys() == ["0", "2", "5", "7"]
    assert everything(source)[:, 0, 0].tolist() == [0, 2, 5, 7]
    assert list(source.groups()) == [0, 1, 2, 3]
    assert len(open_source(str(tmp_path / "x.npy"), limit=11)) == 10


def test_a_limited_set_of_tiles_reads_the_same_tiles(tmp_path):
    path = folder_of(tmp_path / "x", {f"{i}.png": encoded(noise(8, 8, seed=i)) for i in range(5)})
    whole, part = open_source(path, tile=4), open_source(path, tile=4, limit=7)
    table = dict(zip(whole.keys(), everything(whole), strict=True))
    assert len(set(part.keys())) == 7
    for key, sample in zip(part.keys(), everything(part), strict=True):
        assert torch.equal(sample, table[key])


def test_reading_outside_the_set_is_an_error(tmp_path):
    source = open_source(folder_of(tmp_path / "x", {"a.png": encoded(noise(8, 12))}))
    with pytest.raises(IndexError, match="samples 0 to 2 of x, which has 1"):
        source.read(0, 2)


def test_values_whose_sum_overflows_are_finite(tmp_path):
    np.save(tmp_path / "x.npy", np.full((2, 64), 1e37, dtype=np.float32))
    assert everything(open_source(str(tmp_path / "x.npy"))).tolist() == [[[pytest.approx(1e37)] * 64]] * 2


def test_nothing_can_be_read_of_a_set(tmp_path):
    source = open_source(folder_of(tmp_path / "x", {"a.png": encoded(noise(8, 12))}))
    assert source.read(1, 1).shape == (0, 1, 8, 12)
