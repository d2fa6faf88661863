import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from instruments.sources.files import everything, folder_of, noise, tar_of, zip_of
from specreg.instruments.sources import open_source
from specreg.instruments.sources.layouts import is_layout, layout_of


def normal(*shape, dtype=np.float32, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def saved(path, array):
    np.save(path, array)
    return str(path)


LAYOUTS = {
    # shape, options: the layout it is read in
    (7, 16): "bt",
    (5, 1, 16): "bct",
    (5, 2, 16): "bct",
    (5, 16, 2): "btc",
    (5, 8, 9): "bhw",
    (5, 3, 8, 9): "bchw",
    (5, 8, 9, 3): "bhwc",
    (5, 1, 8, 8): "bchw",
    (5, 8, 8, 1): "bhwc",
    (5, 16, 32, 32): "bchw",
    (5, 32, 32, 16): "bhwc",
    (5, 3, 4, 4): "bchw",
    (5, 2, 6, 8, 9): "bcdhw",
    (5, 6, 8, 9, 2): "bdhwc",
}


@pytest.mark.parametrize("shape", LAYOUTS)
@pytest.mark.parametrize("named", [False, True])
def test_axes_are_read_in_order(tmp_path, shape, named):
    stored, layout = normal(*shape), LAYOUTS[shape]
    path = saved(tmp_path / "x.npy", stored)
    source = open_source(f"{path}:{layout}" if named else path)
    expected = np.moveaxis(stored, layout.index("c"), 1) if "c" in layout else stored[:, None]
    assert source.shape == expected.shape[1:]
    assert np.array_equal(everything(source), expected)
    assert np.array_equal(source.read(2, 4), expected[2:4])
    assert source.keys() == [str(i) for i in range(shape[0])]
    assert list(source.groups()) == list(range(shape[0]))
    assert source.unit == ("pixel" if len(expected.shape) > 3 else "sample")
    assert (source.rounding, source.spacing) == (0.0, None)


@pytest.mark.parametrize(
    ("shape", "says"),
    [
        ((5, 32, 32, 32), r"may be \[samples, channels, height, width\] or \[samples, height, width, channels\]"),
        ((5, 4, 4, 4), r"may be \[samples, channels, height, width\] or"),
        ((5, 64, 16, 16), r"name them behind a colon, such as .*x\.npy:bchw"),
        ((512, 512, 3), r"may be \[samples, time, channels\] or \[height, width, channels\]"),
        ((5, 3, 3), r"may be \[samples, channels, time\] or"),
        ((2, 2, 2, 2, 2, 2), r"expected an array of 1 to 5 axes; got shape \[2, 2, 2, 2, 2, 2\]"),
    ],
)
def test_axes_that_are_not_clear_are_asked_for(tmp_path, shape, says):
    with pytest.raises(ValueError, match=says):
        open_source(saved(tmp_path / "x.npy", normal(*shape)))


def test_named_axes_settle_what_is_not_clear(tmp_path):
    stored = normal(5, 8, 8, 8)
    path = saved(tmp_path / "x.npy", stored)
    assert np.array_equal(everything(open_source(f"{path}:bhwc")), stored.transpose(0, 3, 1, 2))
    assert np.array_equal(everything(open_source(path, variable="bdhw")), stored[:, None])
    with pytest.raises(ValueError, match=r"the axes 'bhw' are 3; the array has 4: \[5, 8, 8, 8\]"):
        open_source(f"{path}:bhw")
    with pytest.raises(ValueError, match=r"expected axes behind the colon, such as .*x\.npy:bchw; got 'velocity'"):
        open_source(f"{path}:velocity")


def test_layouts_are_letters_once_each():
    assert all(map(is_layout, ["t", "bt", "btc", "hw", "chw", "bcdhw"]))
    assert not any(map(is_layout, ["", "b", "bc", "tb", "bhwh", "bxy", "latents", "bdhwt"]))
    assert layout_of((64, 16, 16), "x", one_sample=False, tiled=False) == "bhw"
    assert layout_of((5, 64, 16, 16), "x", one_sample=False, tiled=False, latents=True) == "bchw"


def test_one_picture_in_an_array_is_cut_into_tiles(tmp_path):
    grey, colour = normal(8, 12), normal(8, 12, 3)
    found = everything(open_source(saved(tmp_path / "x.npy", grey), tile=4))
    assert np.array_equal(found[:, 0], grey.reshape(2, 4, 3, 4).transpose(0, 2, 1, 3).reshape(6, 4, 4))
    source = open_source(saved(tmp_path / "y.npy", colour), tile=4)
    assert source.channels == ("red", "green", "blue")
    assert np.array_equal(source.read(1, 2)[0], colour[:4, 4:8].transpose(2, 0, 1))
    assert list(source.groups()) == [0] * 6


def test_one_long_signal_is_cut_into_segments(tmp_path):
    stored = normal(23)
    source = open_source(saved(tmp_path / "x.npy", stored), segment=5)
    assert source.shape == (1, 5)
    assert source.keys() == ["x@0", "x@5", "x@10", "x@15"]
    assert np.array_equal(everything(source)[:, 0], stored[:20].reshape(4, 5))
    with pytest.raises(ValueError, match="tile cuts pictures, fields and volumes; use segment"):
        open_source(str(tmp_path / "x.npy"), tile=5)


@pytest.mark.parametrize(
    ("dtype", "low", "high"), [("uint8", -1, 1), ("uint16", -1, 1), ("int8", -1, 127 / 128), ("int16", -1, 1 - 2**-15)]
)
def test_integers_are_scaled_by_their_range(tmp_path, dtype, low, high):
    info = np.iinfo(dtype)
    stored = np.array([[info.min, info.max, info.min, info.max]], dtype=dtype)
    source = open_source(saved(tmp_path / "x.npy", stored))
    np.testing.assert_allclose(source.read(0, 1)[0, 0], [low, high, low, high], atol=1e-7)
    assert source.rounding == pytest.approx(((high - low) / (info.max - info.min)) ** 2 / 12, rel=1e-6)
    assert source.read(0, 1).dtype == torch.float32


@pytest.mark.parametrize(("dtype", "read"), [("f2", "f4"), ("f4", "f4"), (">f4", "f4"), ("f8", "f8"), (">f8", "f8")])
@pytest.mark.parametrize("order", ["C", "F"])
def test_floats_keep_their_values(tmp_path, dtype, read, order):
    stored = np.asarray(normal(5, 8, 9).astype(dtype), order=order)
    found = everything(open_source(saved(tmp_path / "x.npy", stored))).numpy()
    assert found.dtype == np.dtype(read)
    assert np.array_equal(found[:, 0], stored)


@pytest.mark.parametrize(
    ("stored", "says"),
    [
        (normal(5, 8, 9) + 1j, r"expected real values; got complex64"),
        (np.ones((5, 8, 9), dtype=np.int64), r"expected floats, or integers of 8 or 16 bits.*; got int64"),
        (np.ones((5, 8, 9), dtype=bool), r"got bool"),
        (np.array(["a", "b"]), r"got <U1"),
        (np.float32(1), r"expected an array of samples; got one number"),
        (normal(0, 8, 9), r"expected values; its shape is \[0, 8, 9\]"),
        (normal(5, 0, 9), r"expected values; its shape is \[5, 0, 9\]"),
    ],
)
def test_arrays_that_are_no_samples_are_refused(tmp_path, stored, says):
    with pytest.raises(ValueError, match=rf"x\.npy.*{says}"):
        open_source(saved(tmp_path / "x.npy", stored))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_named(tmp_path, bad):
    stored = normal(5, 8, 9)
    stored[3, 2, 1] = bad
    source = open_source(saved(tmp_path / "x.npy", stored))
    assert np.array_equal(source.read(0, 3)[:, 0], stored[:3])
    with pytest.raises(ValueError, match=r"^sample 3 in .*x\.npy: it holds NaN or infinity$"):
        source.read(2, 5)


def test_headers_that_lie_and_files_cut_short_are_refused(tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, normal(5, 8, 9))
    data = path.read_bytes()
    path.write_bytes(data[:-4])
    with pytest.raises(ValueError, match=r"its header promises \[5, 8, 9\] of float32, 1440 bytes; found 1436"):
        open_source(str(path))
    path.write_bytes(data.replace(b"(5, 8, 9)", b"(5e9,8,9)"))
    with pytest.raises(ValueError, match=r"x\.npy: cannot be read as a NumPy array: "):
        open_source(str(path))
    with path.open("wb") as file:  # many samples of nothing, which no file is too short for
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (10**15, 8, 0)})
    with pytest.raises(ValueError, match=r"x\.npy: expected values; its shape is \[1000000000000000, 8, 0\]"):
        open_source(str(path))
    path.write_bytes(data[:6] + b"\x01\x00\x04\x00(1,(")
    with pytest.raises(ValueError, match=r"x\.npy: cannot be read as a NumPy array: "):
        open_source(str(path))
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\nsize 1234\n")
    with pytest.raises(ValueError, match=r"it is a Git LFS pointer to the 1,234 bytes that belong here"):
        open_source(str(path))
    objects = np.empty(3, dtype=object)
    np.save(path, objects, allow_pickle=True)
    with pytest.raises(ValueError, match=r"expected floats.*; got object"):
        open_source(str(path))


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_of_an_npz(tmp_path, save):
    images, other = noise(5, 8, 9, 3), normal(4, 32)
    path = str(tmp_path / "x.npz")
    save(path, images=images, other=other)
    source = open_source(path)
    assert source.name == "x.npz"
    np.testing.assert_allclose(everything(source), images.transpose(0, 3, 1, 2) / 127.5 - 1, atol=1e-6)
    assert torch.equal(source.read(1, 2), everything(source)[1:2])
    other_source = open_source(f"{path}:other")
    assert other_source.name == "x.npz:other"
    assert np.array_equal(everything(other_source)[:, 0], other)
    assert np.array_equal(everything(open_source(f"{path}:other:hw")), other[None, None])
    with pytest.raises(ValueError, match=r"no array 'others'; it holds images, other"):
        open_source(f"{path}:others")
    save(path, first=other, second=other)
    with pytest.raises(ValueError, match=r"expected one array; it holds first, second; name one after a colon"):
        open_source(path)
    whole = (tmp_path / "x.npz").read_bytes()
    (tmp_path / "x.npz").write_bytes(whole[:200])
    with pytest.raises(ValueError, match=r"^.*/x\.npz: cannot be read as a NumPy array: File is not a zip file$"):
        open_source(path)


@pytest.mark.parametrize("pack", [folder_of, zip_of, tar_of])
def test_parts_are_one_set(tmp_path, pack):
    import io

    def bytes_of(array, save=np.save):
        buffer = io.BytesIO()
        save(buffer, array)
        return buffer.getvalue()

    ending = {folder_of: "folder", zip_of: "x.zip", tar_of: "x.tar"}[pack]
    stored = noise(5, 8, 9, 3)
    many = pack(tmp_path / f"many-{ending}", {"0.npy": bytes_of(stored[:2]), "1.npy": bytes_of(stored[2:])})
    source = open_source(many)
    assert source.keys() == ["0#0", "0#1", "1#0", "1#1", "1#2"]
    np.testing.assert_allclose(everything(source), stored.transpose(0, 3, 1, 2) / 127.5 - 1, atol=1e-6)
    assert torch.equal(everything(pickle.loads(pickle.dumps(source))), everything(source))
    single = pack(tmp_path / f"single-{ending}", {f"{i}.npz": bytes_of(stored[i], np.savez) for i in range(5)})
    assert open_source(single).keys() == ["0", "1", "2", "3", "4"]
    assert torch.equal(everything(open_source(single)), everything(source))
    grey = pack(tmp_path / f"grey-{ending}", {f"{i}.npy": bytes_of(stored[i, ..., 0]) for i in range(5)})
    assert torch.equal(everything(open_source(grey)), everything(source)[:, :1])


def test_parts_of_other_axes_are_named(tmp_path):
    np.save(tmp_path / "0.npy", normal(3, 8, 9, 3))
    np.save(tmp_path / "1.npy", normal(3, 8, 9))
    with pytest.raises(ValueError, match=r"expected arrays of 4 axes as 0\.npy; 1\.npy has shape \[3, 8, 9\]"):
        open_source(str(tmp_path))
    np.save(tmp_path / "1.npy", normal(3, 8, 10, 3))
    with pytest.raises(ValueError, match=r"one size; 0\.npy\[0\] is 8×9, 1\.npy\[0\] is 8×10; --tile N"):
        everything(open_source(str(tmp_path)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_latents(tmp_path, dtype):
    stored = torch.from_numpy(normal(5, 16, 8, 8)).to(dtype)
    path = str(tmp_path / "x.safetensors")
    save_file({"latents": stored, "labels": torch.zeros(5, dtype=torch.int64)}, path)
    source = open_source(path)
    assert source.channels == tuple(map(str, range(16)))
    found = everything(source)
    assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert torch.equal(found, stored.to(found.dtype))
    assert torch.equal(everything(pickle.loads(pickle.dumps(source))), found)
    assert torch.equal(everything(open_source(f"{path}:latents")), found)
    with pytest.raises(ValueError, match=r"x\.safetensors: expected floats.*; got int64"):
        open_source(f"{path}:labels")
    with pytest.raises(ValueError, match=r"no array 'latent'; it holds labels, latents"):
        open_source(f"{path}:latent")


def test_damaged_safetensors_are_named(tmp_path):
    path = tmp_path / "x.safetensors"
    save_file({"latents": torch.zeros(2, 4, 8, 8)}, path)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(ValueError, match=r"^.*x\.safetensors: cannot be read as safetensors: "):
        open_source(str(path))
    path.write_bytes(b"<html><title>Sign in</title></html>")
    with pytest.raises(ValueError, match=r"it is a web page \('Sign in'\)"):
        open_source(str(path))
