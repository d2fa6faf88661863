from __future__ import annotations

import io
import json
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import DataLoader

from specreg.data import ImageDataset


def noise(*shape: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def png(pixels: NDArray[np.uint8], mode: str | None = None) -> bytes:
    buffer = io.BytesIO()
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(buffer, format="PNG")
    return buffer.getvalue()


def write_zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def expected(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    return pixels.reshape(*pixels.shape[:2], -1).transpose(2, 0, 1) / 127.5 - 1


def test_folder_zip_and_array_give_the_same_items(tmp_path: Path) -> None:
    pixels = noise(5, 8, 8, 3)
    names = ["b/2.png", "a.png", "b/1.PNG", "é.png", "B.png"]
    folder = tmp_path / "folder"
    for name, image in zip(names, pixels, strict=True):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(png(image))
    (folder / "readme.txt").write_text("no image")
    (folder / ".hidden.png").write_bytes(b"no image")
    write_zip(tmp_path / "images.zip", {n: png(p) for n, p in zip(names, pixels, strict=True)})
    order = sorted(names)
    ranked = pixels[[names.index(name) for name in order]]
    np.save(tmp_path / "last.npy", ranked)
    np.save(tmp_path / "first.npy", ranked.transpose(0, 3, 1, 2))
    np.savez(tmp_path / "both.npz", images=ranked, labels=np.arange(5))

    for source in ("folder", "images.zip", "last.npy", "first.npy", "both.npz"):
        data = ImageDataset(tmp_path / source)
        assert len(data) == 5
        assert data.shape == (3, 8, 8)
        assert (data.resolution, data.channels) == (8, 3)
        for i in range(5):
            assert data[i].dtype == torch.float32
            np.testing.assert_allclose(data[i], expected(ranked[i]), atol=1e-6)
    assert ImageDataset(folder).names == tuple(order)
    labels = ImageDataset(tmp_path / "both.npz").labels
    assert labels is not None
    assert labels.tolist() == [0, 1, 2, 3, 4]


def test_links_to_folders_are_part_of_the_set(tmp_path: Path) -> None:
    for name in ("set/0.png", "disk/1.png", "disk/more/2.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(png(noise(4, 4)))
    (tmp_path / "set/disk").symlink_to(tmp_path / "disk", target_is_directory=True)
    (tmp_path / "set/gone.png").symlink_to(tmp_path / "nowhere.png")
    data = ImageDataset(tmp_path / "set")
    assert data.names == ("0.png", "disk/1.png", "disk/more/2.png", "gone.png")
    with pytest.raises(ValueError, match=r"cannot read the image gone\.png .*No such file"):
        data.item(3)


def test_range_is_exactly_minus_one_to_one(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([[[0, 255], [51, 204]]], dtype=np.uint8))
    assert ImageDataset(tmp_path / "x.npy")[0].tolist() == [[[-1, 1], [pytest.approx(-0.6), pytest.approx(0.6)]]]


def test_channels_follow_the_first_image_or_the_option(tmp_path: Path) -> None:
    colour, grey = noise(4, 4, 3), noise(4, 4, seed=1)
    path = write_zip(tmp_path / "x.zip", {"0.png": png(colour), "1.png": png(grey)})
    as_first = ImageDataset(path)
    assert as_first.channels == 3
    np.testing.assert_allclose(as_first[1], expected(np.stack([grey] * 3, axis=2)), atol=1e-6)
    luma = colour @ np.array([0.299, 0.587, 0.114])  # ITU-R 601, what Pillow documents for "L"
    np.testing.assert_allclose(ImageDataset(path, channels=1)[0][0], luma / 127.5 - 1, atol=1 / 127.5)
    np.save(tmp_path / "grey.npy", grey[None])
    assert ImageDataset(tmp_path / "grey.npy").shape == (1, 4, 4)
    assert ImageDataset(tmp_path / "grey.npy", channels=3).shape == (3, 4, 4)
    np.save(tmp_path / "colour.npy", colour[None])
    assert torch.equal(ImageDataset(tmp_path / "colour.npy", channels=1)[0], ImageDataset(path, channels=1)[0])


def test_every_mode_is_read(tmp_path: Path) -> None:
    wide = np.array([[0, 257, 32768, 65535]] * 4, dtype=np.uint16)
    rgb = noise(4, 4, 3)
    few = Image.fromarray(rgb).quantize(8)
    files = {"palette.png": io.BytesIO(), "cmyk.tif": io.BytesIO(), "bits.png": io.BytesIO()}
    few.save(files["palette.png"], format="PNG")
    Image.fromarray(rgb).convert("CMYK").save(files["cmyk.tif"], format="TIFF")
    Image.fromarray(rgb[..., 0] > 127).save(files["bits.png"], format="PNG")
    path = write_zip(tmp_path / "x.zip", {name: file.getvalue() for name, file in files.items()})
    data = ImageDataset(path, channels=3)
    np.testing.assert_allclose(data[2], expected(np.array(few.convert("RGB"))), atol=1e-6)
    np.testing.assert_allclose(data[1], expected(rgb), atol=1e-6)  # Pillow's CMYK is 255 - RGB
    assert set(data[0].unique().tolist()) == {-1.0, 1.0}
    deep = ImageDataset(write_zip(tmp_path / "16.zip", {"16.png": png(wide)}))
    assert deep.channels == 1
    np.testing.assert_allclose(deep[0][0, 0] * 127.5 + 127.5, [0, 1, 128, 255], atol=1e-4)


def tiff(pixels: NDArray[np.integer]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="TIFF")
    return buffer.getvalue()


def test_32_bit_integers_of_8_bit_images_stay_what_they_are(tmp_path: Path) -> None:
    pixels = noise(4, 4)
    pixels[0, :2] = 0, 255
    path = write_zip(tmp_path / "x.zip", {"x.tif": tiff(pixels.astype(np.int32)), "y.png": png(pixels)})
    data = ImageDataset(path)
    assert torch.equal(data[0], data[1])
    np.testing.assert_allclose(data[0], expected(pixels), atol=1e-6)


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("x.tif", tiff(np.array([[0, 256]], dtype=np.int32)), "its 32-bit integers go from 0 to 256, .* expected"),
        ("x.tif", tiff(np.array([[-1, 255]], dtype=np.int32)), "its 32-bit integers go from -1 to 255"),
        ("x.tif", tiff(np.array([[0, 200]], dtype=np.uint16)), "its 16-bit values end at 200 of 65535: 8-bit values"),
        ("x.png", png(np.array([[0, 255]], dtype=np.uint16)), "its 16-bit values end at 255 of 65535: 8-bit values"),
        ("x.pgm", b"P5 2 1 65535\n\0\1\0\2", "its 16-bit values end at 2 of 65535: 8-bit values"),
    ],
)  # fmt: skip
def test_values_of_another_range_are_named(tmp_path: Path, name: str, data: bytes, words: str) -> None:
    with pytest.raises(ValueError, match=rf"cannot read the image {name} .*{words}"):
        ImageDataset(write_zip(tmp_path / "x.zip", {name: data}))


def test_16_bits_of_every_format_stay_good(tmp_path: Path) -> None:
    wide = np.array([[0, 257, 32768, 65535]], dtype=np.uint16)
    files = {"x.tif": tiff(wide), "y.png": png(wide), "z.pgm": b"P5 4 1 65535\n" + wide.astype(">u2").tobytes()}
    for image in ImageDataset(write_zip(tmp_path / "x.zip", files)):
        np.testing.assert_allclose(image[0, 0] * 127.5 + 127.5, [0, 1, 128, 255], atol=1e-4)
    assert ImageDataset(write_zip(tmp_path / "black.zip", {"x.png": png(0 * wide)}))[0].unique().tolist() == [-1]


def test_formats_that_are_not_read_are_named(tmp_path: Path) -> None:
    files = {"a.png": png(noise(4, 4)), "b.HEIC": b"", "c.heic": b"", "sub/d.avif": b"", "._e.heic": b"", "f.txt": b""}
    path = write_zip(tmp_path / "x.zip", files)
    with pytest.warns(UserWarning, match=r"x\.zip: pictures in formats that are not read: 1 \.avif, 2 \.heic; convert"):
        assert len(ImageDataset(path)) == 1
    del files["a.png"]
    with pytest.raises(
        ValueError, match=r"no image in .*: none of its 5 files ends .*: 1 \.avif, 2 \.heic; convert them"
    ):
        ImageDataset(write_zip(tmp_path / "y.zip", files))


def test_other_endings_of_the_same_formats_are_read(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(noise(8, 8)).save(buffer, format="JPEG")
    path = write_zip(tmp_path / "x.zip", dict.fromkeys(("a.jpg", "b.jfif", "c.JPE"), buffer.getvalue()))
    assert len({image.sum().item() for image in ImageDataset(path)}) == 1
    assert len(ImageDataset(path)) == 3


def test_labels_of_edm_archives(tmp_path: Path) -> None:
    files = {f"00000/img0000000{i}.png": png(noise(4, 4, 3, seed=i)) for i in range(3)}
    table = [[name, 9 - i] for i, name in enumerate(files)][::-1]
    entry = json.dumps({"labels": table}).encode()
    data = ImageDataset(write_zip(tmp_path / "l.zip", {"dataset.json": entry, **files}))
    assert data.labels is not None
    assert data.labels.dtype == np.int64
    assert [data.label(i) for i in range(3)] == data.labels.tolist() == [9, 8, 7]
    null = ImageDataset(write_zip(tmp_path / "n.zip", {"dataset.json": b'{"labels": null}', **files}))
    assert null.labels is None
    assert null.label(0) is None


@pytest.mark.parametrize("written", ["00000\\img{}.png", "./00000/img{}.png", "00000//img{}.png"])
def test_member_names_of_other_zip_programs_are_the_same_files_and_keep_their_labels(
    tmp_path: Path, written: str
) -> None:
    pictures = [noise(4, 4, 3, seed=i) for i in range(2)]
    entry = json.dumps({"labels": [[f"00000/img{i}.png", 7 + i] for i in range(2)]}).encode()
    files = {written.format(i): png(pixels) for i, pixels in enumerate(pictures)}
    folders = {"00000\\" if "\\" in written else "00000/": b""}
    data = ImageDataset(write_zip(tmp_path / "x.zip", {"dataset.json": entry, **folders, **files}))
    assert data.names == ("00000/img0.png", "00000/img1.png")
    assert [data.label(i) for i in range(2)] == [7, 8]
    for copy in (data, pickle.loads(pickle.dumps(data))):
        np.testing.assert_allclose(copy.item(1).numpy(), expected(pictures[1]), atol=1e-6)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ('{"labels": [["0.png", 1]]}', "no label for 1 of 2 images: 1.png"),
        ('{"labels": [["0.png", 1], ["1.png", 0.5]]}', "whole numbers .*; got 0.5"),
        ('{"labels": [["0.png", 1], ["1.png", -1]]}', "whole numbers from 0 .*; got -1"),
        ('{"labels": [["0.png", 1], ["1.png", 1' + 30 * "0" + "]]}", "whole numbers .*; got an integer of 100 bits"),
        ('{"labels": ' + 100_000 * "[" + "]" * 100_000 + "}", "dataset.json in .* should be"),
        ("\udcff", "dataset.json in .* should be"),
        ('{"labels": [1, 2]}', "dataset.json in .* should be"),
        ("[", "dataset.json in .* should be"),
    ],
)
def test_bad_labels_are_named(tmp_path: Path, entry: str, message: str) -> None:
    files = {f"{i}.png": png(noise(4, 4)) for i in range(2)}
    with pytest.raises(ValueError, match=message):
        ImageDataset(write_zip(tmp_path / "x.zip", {"dataset.json": entry.encode(errors="surrogateescape"), **files}))


def test_other_sizes_and_damage_are_named_on_access(tmp_path: Path) -> None:
    good = png(noise(8, 8, 3))
    damaged = {
        "cut.png": good[: len(good) // 2],
        "junk.png": b"junk",
        "script.png": b"%!PS-Adobe-3.0 EPSF-3.0\n",
    }
    path = write_zip(tmp_path / "x.zip", {"0.png": good, "9.png": png(noise(8, 6, 3)), **damaged})
    data = ImageDataset(path)
    assert data.names == ("0.png", "9.png", "cut.png", "junk.png", "script.png")
    remedy = r"; `specreg dataset SRC OUT\.zip` makes pictures of one size and leaves damaged ones out$"
    with pytest.raises(ValueError, match=r"9\.png .*expected 8×8 pixels \(H×W\), found 8×6" + remedy):
        data.item(1)
    for i in (2, 3, 4):
        with pytest.raises(ValueError, match=f"cannot read the image {data.names[i]} .*{remedy}"):
            data[i]
    with pytest.raises(ValueError, match=r"0\.png .*expected 16×16 .* found 8×8"):
        ImageDataset(path, resolution=16)


def test_flipped_bits_in_the_archive_are_noticed(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "x.zip", {f"{i}.png": png(noise(16, 16, seed=i)) for i in range(2)})
    data = bytearray(path.read_bytes())
    data[data.index(b"1.png") + 200] ^= 255
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"cannot read the image 1\.png"):
        ImageDataset(path)[1]


def test_bombs_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_zip(tmp_path / "x.zip", {"0.png": png(noise(40, 40))})
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # 1600 pixels: where Pillow itself only warns
    words = r"0\.png .*: more than 0\.001 megapixels may be a decompression bomb; cut it .*1600 pixels"
    with pytest.raises(ValueError, match=words):
        ImageDataset(path)


def test_errors_name_the_path(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        ImageDataset(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"no image in .*empty"):
        ImageDataset(tmp_path / "empty")
    (tmp_path / "x.tar").write_bytes(b"not a zip")
    with pytest.raises(ValueError, match=r"expected a folder, zip or pk3 of images.*x\.tar"):
        ImageDataset(tmp_path / "x.tar")
    np.save(tmp_path / "float.npy", np.zeros((2, 4, 4)))
    with pytest.raises(ValueError, match=r"uint8.*float64"):
        ImageDataset(tmp_path / "float.npy")
    np.save(tmp_path / "flat.npy", np.zeros((2, 4), dtype=np.uint8))
    with pytest.raises(ValueError, match=r"\[N, H, W\].*\[2, 4\]"):
        ImageDataset(tmp_path / "flat.npy")
    (tmp_path / "bad.npz").write_bytes(b"not a zip")
    with pytest.raises(ValueError, match=r"cannot read the array .*bad\.npz"):
        ImageDataset(tmp_path / "bad.npz")
    np.savez(tmp_path / "l.npz", images=np.zeros((2, 4, 4), dtype=np.uint8), labels=np.zeros(3, dtype=int))
    with pytest.raises(ValueError, match="expected 2 whole-number labels"):
        ImageDataset(tmp_path / "l.npz")


def test_rectangles_are_read_but_have_no_resolution(tmp_path: Path) -> None:
    data = ImageDataset(write_zip(tmp_path / "x.zip", {"0.png": png(noise(4, 6))}))
    assert data.shape == (1, 4, 6)
    with pytest.raises(ValueError, match="4×6 pixels, not square"):
        _ = data.resolution


@pytest.mark.parametrize("form", ["zip", "npy"])
def test_copies_and_forked_workers_read_the_same(tmp_path: Path, form: str) -> None:
    pixels = noise(40, 16, 16, 3)
    path = tmp_path / f"x.{form}"
    if form == "zip":
        write_zip(path, {f"{i:02}.png": png(image) for i, image in enumerate(pixels)})
    else:
        np.save(path, pixels)
    data = ImageDataset(path)
    frozen = pickle.dumps(data)  # what a spawned worker receives
    assert len(frozen) < pixels.nbytes / 4
    copy = pickle.loads(frozen)
    wanted = torch.stack([torch.from_numpy(expected(image)).float() for image in pixels])
    assert torch.allclose(torch.stack(list(copy)), wanted, atol=1e-6)
    assert torch.allclose(torch.stack(list(data)), wanted, atol=1e-6)  # opens the archive before the fork
    loader = DataLoader(data, batch_size=4, num_workers=2, multiprocessing_context="fork")
    assert torch.allclose(torch.cat(list(loader)), wanted, atol=1e-6)


def test_importing_the_room_loads_no_pillow() -> None:
    code = "import sys, specreg.data; sys.exit('PIL' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
