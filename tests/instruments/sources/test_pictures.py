import io
import pickle
import subprocess
import tarfile
import zipfile
from shutil import which

import numpy as np
import pytest
import torch
from PIL import Image

from instruments.sources.files import encoded, everything, floats, folder_of, noise, tar_of, zip_of
from specreg.instruments.sources import open_source


@pytest.fixture
def colours():
    return noise(5, 6, 9, 3)


@pytest.fixture
def files(colours):
    return {f"set/{'ab'[i % 2]}/{i}.png": encoded(colours[i]) for i in range(5)}


ORDER = [0, 2, 4, 1, 3]  # a/0, a/2, a/4, b/1, b/3


@pytest.mark.parametrize("kind", ["folder", "x.zip", "x.pk3", "x.tar", "x.tar.gz", "x.tgz", "x.tar.bz2", "x.tar.xz"])
def test_folders_and_archives_give_the_same_samples(tmp_path, colours, files, kind):
    path = tmp_path / kind
    files |= {"set/readme.txt": b"no picture", "set/.hidden.png": b"no picture", "__MACOSX/0.png": b"no picture"}
    if kind == "folder":
        folder_of(path, files)
    elif kind.endswith((".zip", ".pk3")):
        zip_of(path, files)
    else:
        mode = {"tar": "w", "gz": "w:gz", "tgz": "w:gz", "bz2": "w:bz2", "xz": "w:xz"}[kind.rpartition(".")[2]]
        tar_of(path, files, mode)
    source = open_source(str(path))
    # A compressed tar keeps its own order, which is the one that streams.
    order = ORDER if kind in ("folder", "x.zip", "x.pk3", "x.tar") else [0, 1, 2, 3, 4]
    assert list(source.keys()) == [f"{'ab'[i % 2]}/{i}" for i in order]
    assert (source.name, source.shape, len(source)) == (kind, (3, 6, 9), 5)
    assert source.channels == ("red", "green", "blue")
    assert (source.spacing, source.unit) == (None, "pixel")
    assert source.rounding == pytest.approx((2 / 255) ** 2 / 12, rel=1e-12)
    assert list(source.groups()) == [0, 1, 2, 3, 4]
    expected = floats(colours)[order]
    torch.testing.assert_close(everything(source).double(), expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(source.read(3, 5).double(), expected[3:], atol=1e-6, rtol=0)
    torch.testing.assert_close(source.read(1, 2).double(), expected[1:2], atol=1e-6, rtol=0)  # back again


@pytest.mark.parametrize("kind", ["folder", "x.zip", "x.tar", "x.tar.gz"])
def test_a_pickled_source_reads_the_same(tmp_path, files, kind):
    path = tmp_path / kind
    if kind == "folder":
        folder_of(path, files)
    else:
        zip_of(path, files) if kind == "x.zip" else tar_of(path, files, "w:gz" if kind.endswith("gz") else "w")
    source = open_source(str(path), tile=3)
    source.read(0, 4)
    again = pickle.loads(pickle.dumps(source))
    assert torch.equal(everything(again), everything(source))
    assert again.keys() == source.keys()


def test_pictures_pair_by_name_whatever_holds_them(tmp_path, colours):
    png = folder_of(tmp_path / "a", {f"{i}.png": encoded(colours[i]) for i in range(5)})
    jpg = zip_of(tmp_path / "b.zip", {f"out/{i}.jpg": encoded(colours[i], "JPEG", quality=95) for i in range(5)})
    assert open_source(png).keys() == open_source(jpg).keys() == ["0", "1", "2", "3", "4"]
    both = folder_of(tmp_path / "c", {"0.png": encoded(colours[0]), "0.jpg": encoded(colours[0], "JPEG")})
    assert open_source(both).keys() == ["0.jpg", "0.png"]


@pytest.mark.parametrize("form", ["PNG", "BMP", "PPM", "TIFF", "TGA", "WEBP"])
def test_lossless_formats_are_exact(tmp_path, colours, form):
    ending = {"TIFF": "tif"}.get(form, form.lower())
    options = {"lossless": True} if form == "WEBP" else {}
    path = folder_of(tmp_path / "x", {f"0.{ending}": encoded(colours[0], form, **options)})
    torch.testing.assert_close(open_source(path).read(0, 1).double(), floats(colours[:1]), atol=1e-6, rtol=0)
    one = str(tmp_path / "x" / f"0.{ending}")
    assert torch.equal(open_source(one).read(0, 1), open_source(path).read(0, 1))
    assert open_source(one).keys() == ["0"]


def test_16_bits_and_floats_keep_their_precision(tmp_path):
    deep, fine = noise(4, 5, dtype=np.uint16), np.random.default_rng(1).normal(size=(4, 5)).astype(np.float32)
    source = open_source(folder_of(tmp_path / "png", {"0.png": encoded(deep)}))
    assert source.channels == ("luma",)
    assert source.rounding == pytest.approx((2 / 65535) ** 2 / 12, rel=1e-12)
    np.testing.assert_allclose(source.read(0, 1)[0, 0], deep / 32767.5 - 1, atol=1e-6)
    tiff = open_source(folder_of(tmp_path / "tif", {"0.tif": encoded(deep, "TIFF")}))
    assert torch.equal(tiff.read(0, 1), source.read(0, 1))
    source = open_source(folder_of(tmp_path / "float", {"0.tiff": encoded(fine, "TIFF")}))
    assert source.rounding == 0
    assert np.array_equal(source.read(0, 1)[0, 0], fine)


def test_colours_of_16_bits_are_read_with_8_and_said_so(tmp_path):
    import struct
    import zlib

    deep = noise(3, 4, 3, dtype=np.uint16)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in deep)

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 4, 3, 16, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    source = open_source(folder_of(tmp_path / "x", {"0.png": png}))
    assert source.notes == ("colours of 16 bits are read with 8, as Pillow does; save floats in .npy for all bits",)
    np.testing.assert_allclose(source.read(0, 1)[0], deep.transpose(2, 0, 1) / 32767.5 - 1, atol=2 / 255)
    assert source.rounding == pytest.approx((2 / 255) ** 2 / 12)


def test_palettes_become_colours_and_transparency_is_dropped(tmp_path, colours):
    few = Image.fromarray(colours[0]).quantize(8)
    alpha = np.concatenate([colours[1], noise(6, 9, 1, seed=3)], axis=2)
    grey = noise(6, 9, seed=4)
    path = folder_of(tmp_path / "x", {"0.png": encoded(few), "1.png": encoded(alpha)})
    expected = np.stack([np.asarray(few.convert("RGB")), colours[1]])
    torch.testing.assert_close(everything(open_source(path)).double(), floats(expected), atol=1e-6, rtol=0)
    source = open_source(folder_of(tmp_path / "y", {"0.png": encoded(Image.fromarray(grey).convert("LA"))}))
    np.testing.assert_allclose(source.read(0, 1)[0, 0], grey / 127.5 - 1, atol=1e-6)


def test_luma_and_chroma_are_those_of_jpeg(tmp_path, colours):
    path = folder_of(tmp_path / "x", {"0.png": encoded(colours[0])})
    ycc = np.asarray(Image.fromarray(colours[0]).convert("YCbCr")).astype(float)
    source = open_source(path, channels="luma-chroma")
    assert source.channels == ("luma", "chroma-blue", "chroma-red")
    found = source.read(0, 1)[0].numpy()
    np.testing.assert_allclose(found[0], ycc[..., 0] / 127.5 - 1, atol=1.01 / 127.5)
    np.testing.assert_allclose(found[1:], (ycc[..., 1:].transpose(2, 0, 1) - 128) / 127.5, atol=1.01 / 127.5)
    luma = open_source(path, channels="luma")
    assert (luma.channels, luma.shape) == (("luma",), (1, 6, 9))
    np.testing.assert_allclose(luma.read(0, 1)[0, 0], found[0], atol=1e-6)


def test_rounding_of_luma_is_measured(tmp_path):
    fine = np.random.default_rng(0).uniform(0, 255, (64, 64, 3))
    path = folder_of(tmp_path / "x", {"0.png": encoded(fine.round().astype(np.uint8))})
    source = open_source(path, channels="luma")
    luma = (fine @ [0.299, 0.587, 0.114]) / 127.5 - 1
    assert float(np.var(source.read(0, 1)[0, 0].numpy() - luma)) == pytest.approx(source.rounding, rel=0.05)


def test_grey_among_colours_is_refused_or_read_as_luma(tmp_path, colours):
    grey = noise(6, 9, seed=2)
    path = folder_of(tmp_path / "x", {"0.png": encoded(colours[0]), "1.png": encoded(grey)})
    with pytest.raises(ValueError, match=r"channels of 0\.png, red, green, blue; 1\.png has 1; channels 'luma' reads"):
        everything(open_source(path))
    found = everything(open_source(path, channels="luma"))
    np.testing.assert_allclose(found[1, 0], grey / 127.5 - 1, atol=1e-6)
    other = folder_of(tmp_path / "y", {"0.png": encoded(grey), "1.png": encoded(colours[0])})
    torch.testing.assert_close(everything(open_source(other, channels="luma")), found.flip(0))
    with pytest.raises(ValueError, match=r"expected the channels of 0\.png, luma; 1\.png has 3"):
        everything(open_source(other))
    with pytest.raises(ValueError, match=r"expected the channels of 0\.png, luma; 1\.png has 3"):
        everything(open_source(other, channels="luma-chroma"))


@pytest.mark.parametrize(("form", "ending"), [("GIF", "gif"), ("WEBP", "webp"), ("TIFF", "tif")])
def test_frames_of_animations_are_samples_of_one_group(tmp_path, form, ending):
    # Two colours that any palette holds; blocks so that nothing is dithered.
    frames = np.kron(noise(6, 2, 3, 1) // 128 * 255, np.ones((1, 4, 4, 1))).astype(np.uint8).repeat(3, axis=3)
    frames[..., 2] = 0
    images = [Image.fromarray(frame) for frame in frames]
    options = {"lossless": True} if form == "WEBP" else {}
    options |= {} if form == "TIFF" else {"duration": 50}
    first = encoded(images[0], form, save_all=True, append_images=images[1:4], **options)
    second = encoded(images[4], form, save_all=True, append_images=images[5:], **options)
    source = open_source(folder_of(tmp_path / "x", {f"a.{ending}": first, f"b.{ending}": second}))
    assert source.keys() == ["a#0", "a#1", "a#2", "a#3", "b#0", "b#1"]
    assert list(source.groups()) == [0, 0, 0, 0, 1, 1]
    torch.testing.assert_close(everything(source).double(), floats(frames), atol=1e-6, rtol=0)
    torch.testing.assert_close(source.read(2, 3).double(), floats(frames[2:3]), atol=1e-6, rtol=0)
    assert torch.equal(everything(pickle.loads(pickle.dumps(source))), everything(source))


def test_pages_of_a_16_bit_tiff_keep_their_bits(tmp_path):
    deep = noise(3, 4, 5, dtype=np.uint16)
    pages = [Image.fromarray(page) for page in deep]
    path = folder_of(tmp_path / "x", {"a.tif": encoded(pages[0], "TIFF", save_all=True, append_images=pages[1:])})
    np.testing.assert_allclose(everything(open_source(path))[:, 0], deep / 32767.5 - 1, atol=1e-6)


def test_an_animated_png_is_refused(tmp_path, colours):
    images = [Image.fromarray(frame) for frame in colours]
    path = folder_of(tmp_path / "x", {"a.png": encoded(images[0], save_all=True, append_images=images[1:])})
    with pytest.raises(ValueError, match=r"image a\.png in .*x: it is an animation of 5 frames; save it as GIF"):
        open_source(path)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF"])
@pytest.mark.parametrize("orientation", [3, 6])
def test_pictures_are_read_upright(tmp_path, form, orientation):
    wide = np.kron(noise(2, 3), np.ones((8, 8))).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    ending = {"JPEG": "jpg", "PNG": "png", "TIFF": "tif"}[form]
    path = folder_of(tmp_path / "x", {f"a.{ending}": encoded(wide, form, exif=exif)})
    upright = np.rot90(wide, 2) if orientation == 3 else np.rot90(wide, -1)
    source = open_source(path)
    assert source.shape == (1, *upright.shape)
    np.testing.assert_allclose(source.read(0, 1)[0, 0], upright / 127.5 - 1, atol=0.04)
    tiles = open_source(path, tile=(8, 16))
    rows, columns = upright.shape[0] // 8, upright.shape[1] // 16
    assert len(tiles) == rows * columns
    np.testing.assert_allclose(everything(tiles)[0, 0], upright[:8, :16] / 127.5 - 1, atol=0.04)


def bomb(side):
    """A PNG whose header promises that many pixels a side."""
    import struct
    import zlib

    header = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + chunk + b"\0\0\0\0IEND\xaeB`\x82"


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (b"\x80no picture", r"its content is none of PNG, .*, or damaged"),
        (b"", r"it is empty; copy or download it again"),
        (encoded(noise(64, 64))[:-2000], r"truncated|damaged|ended"),
        (bomb(10_000), r"more than 89.48 megapixels may be a decompression bomb"),
        (bomb(20_000), r"more than 89.48 megapixels may be a decompression bomb"),
    ],
    ids=["text", "empty", "cut", "bomb", "larger bomb"],
)
@pytest.mark.parametrize("pack", [folder_of, zip_of, tar_of])
def test_damaged_pictures_are_named(tmp_path, bad, says, pack):
    path = pack(tmp_path / f"x.{pack.__name__[:3]}", {"0.png": encoded(noise(64, 64)), "1.png": bad})
    source = open_source(path)
    assert len(source) == 2
    with pytest.raises(ValueError, match=rf"^cannot read the image 1\.png in .*: .*({says})"):
        everything(source)


@pytest.mark.parametrize("ending", ["zip", "tar", "tar.gz", "tar.xz"])
@pytest.mark.parametrize("content", ["cut", "text", "empty"])
def test_damaged_archives_are_named(tmp_path, files, ending, content):
    path = tmp_path / f"x.{ending}"
    if ending == "zip":
        zip_of(path, files)
    else:
        tar_of(path, files, {"tar": "w", "tar.gz": "w:gz", "tar.xz": "w:xz"}[ending])
    whole = path.read_bytes()
    path.write_bytes({"cut": whole[: len(whole) // 3], "text": b"<html><title>Sign in</title>", "empty": b""}[content])
    kind = "zip" if ending == "zip" else "tar"
    with pytest.raises(ValueError, match=rf"^{path}: cannot be read as a {kind}: "):
        open_source(str(path))


def test_a_tar_that_is_cut_while_it_is_read_is_named(tmp_path, files):
    path = tmp_path / "x.tar"
    source = open_source(tar_of(path, files))
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"^cannot read set/a/2\.png in .*x\.tar: the archive is cut short: expected"):
        everything(pickle.loads(pickle.dumps(source)))


def test_links_in_a_tar_are_files(tmp_path, colours):
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        for name, kind, target in [
            ("a/0.png", None, ""),
            ("a/1.png", tarfile.LNKTYPE, "a/0.png"),
            ("b/2.png", tarfile.SYMTYPE, "../a/1.png"),
            ("c", tarfile.SYMTYPE, "a"),
            ("d.png", tarfile.SYMTYPE, "nowhere.png"),
            ("e.png", tarfile.SYMTYPE, "e.png"),
        ]:
            info, data = tarfile.TarInfo(name), encoded(colours[0])
            info.type, info.linkname, info.size = kind or info.type, target, 0 if kind else len(data)
            archive.addfile(info, None if kind else io.BytesIO(data))
    source = open_source(str(tmp_path / "x.tar"))
    assert source.keys() == ["a/0", "a/1", "b/2", "d", "e"]
    torch.testing.assert_close(source.read(0, 3).double(), floats(colours[[0, 0, 0]]), atol=1e-6, rtol=0)
    for i in (3, 4):
        with pytest.raises(ValueError, match=r"^cannot read .\.png in .*x\.tar: it is a link to .*\.png, which is not"):
            source.read(i, i + 1)


def test_a_sparse_file_in_a_tar_is_named(tmp_path):
    if not (tar := which("tar")):
        pytest.skip("needs tar")
    with (tmp_path / "0.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": (100, 100, 100)})
        file.truncate(file.tell() + 10**6)
    made = subprocess.run([tar, "--sparse", "-cf", "x.tar", "0.npy"], cwd=tmp_path, check=False)
    with tarfile.open(tmp_path / "x.tar") as archive:
        if made.returncode or not archive.getmembers()[0].issparse():
            pytest.skip("needs a tar and a file system with sparse files")
    with pytest.raises(ValueError, match=r"0\.npy in .*x\.tar: .*it is stored as a sparse file; pack it again without"):
        open_source(str(tmp_path / "x.tar"))


def test_files_that_unpack_to_too_much_are_refused(tmp_path, colours, monkeypatch):
    from specreg.instruments.sources import containers

    files = {f"{i}.png": encoded(colours[i]) for i in range(2)}
    monkeypatch.setattr(containers, "MAX_BYTES", 100)
    for pack, name in ((folder_of, "x"), (zip_of, "x.zip"), (tar_of, "x.tar")):
        with pytest.raises(ValueError, match=r"0\.png in .*: it (unpacks to|has) .*more than 100"):
            open_source(pack(tmp_path / name, files))


def test_a_damaged_member_of_a_zip_is_named(tmp_path, colours):
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for i in range(2):
            archive.writestr(f"{i}.png", encoded(colours[i]))
    data = bytearray(path.read_bytes())
    data[data.rindex(b"IDAT") + 10] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"^cannot read 1\.png in .*x\.zip: Bad CRC-32 for file '1\.png'$"):
        everything(open_source(str(path)))


def test_a_link_to_nothing_is_named(tmp_path, colours):
    path = folder_of(tmp_path / "x", {"0.png": encoded(colours[0])})
    (tmp_path / "x/1.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.raises(ValueError, match=r"^cannot read 1\.png in .*x: No such file or directory$"):
        everything(open_source(path))


def test_bit_depths_do_not_mix(tmp_path):
    path = folder_of(tmp_path / "x", {"0.png": encoded(noise(4, 4)), "1.png": encoded(noise(4, 4, dtype=np.uint16))})
    with pytest.raises(ValueError, match=r"expected values of one kind; 1\.png holds uint16, 0\.png uint8"):
        everything(open_source(path))
    with pytest.raises(ValueError, match=r"expected values of one kind; 1\.png holds uint16, 0\.png uint8"):
        open_source(path).read(1, 2)


def test_16_bits_that_hold_8_are_refused(tmp_path):
    path = folder_of(tmp_path / "x", {"0.png": encoded(noise(4, 4).astype(np.uint16))})
    with pytest.raises(ValueError, match=r"0\.png in .*: its 16-bit values end at \d+ of 65535: 8-bit values without"):
        open_source(path)


def test_formats_that_are_not_read_are_counted(tmp_path, colours):
    path = folder_of(tmp_path / "x", {"0.png": encoded(colours[0]), "1.heic": b"", "2.heic": b"", "3.jxl": b""})
    assert open_source(path).notes == (
        "pictures in formats that are not read: 2 .heic, 1 .jxl; convert them to PNG or JPEG",
    )


def test_a_photo_with_its_preview_is_one_picture(tmp_path, colours):
    big, small = Image.fromarray(noise(16, 24, 3)), Image.fromarray(noise(8, 12, 3))
    both = encoded(big, "MPO", save_all=True, append_images=[small], quality=95)
    source = open_source(folder_of(tmp_path / "x", {"a.jpg": both}))
    assert (source.shape, len(source)) == ((3, 16, 24), 1)
    with Image.open(io.BytesIO(both)) as image:
        expected = np.asarray(image.convert("RGB"))[None]
    torch.testing.assert_close(everything(source).double(), floats(expected), atol=1e-6, rtol=0)
