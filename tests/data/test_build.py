from __future__ import annotations

import io
import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from disks import room_for
from specreg._files import WriteError
from specreg.data import DEFAULT_EXCLUDE, ImageDataset, build_dataset


def scene(height: int, width: int, seed: int) -> NDArray[np.uint8]:
    """Blocks of 8 pixels in random colours under noise: contrast at every scale, unlike other seeds."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 200, (-(-height // 8), -(-width // 8), 3))
    coarse = blocks.repeat(8, axis=0).repeat(8, axis=1)[:height, :width]
    return (coarse + rng.integers(0, 56, (height, width, 3))).astype(np.uint8)


@pytest.fixture
def pile(tmp_path: Path) -> Path:
    """Twelve good images."""
    folder = tmp_path / "pile"
    folder.mkdir()
    for i in range(12):
        Image.fromarray(scene(32, 32, i)).save(folder / f"scene{i:02}.png")
    return folder


def pictures(path: Path) -> tuple[NDArray[np.uint8], dict[str, str]]:
    with zipfile.ZipFile(path) as archive:
        sources = json.loads(archive.read("dataset.json"))["sources"]
        return np.stack([np.array(Image.open(io.BytesIO(archive.read(name)))) for name in sources]), sources


def test_tiles_are_the_pixels_of_a_centred_grid(tmp_path: Path) -> None:
    image = scene(35, 51, 0)
    (tmp_path / "in").mkdir()
    Image.fromarray(image).save(tmp_path / "in/x.png")
    report = build_dataset(tmp_path / "in", tmp_path / "o.zip", resolution=16, test_fraction=0)
    tiles, sources = pictures(tmp_path / "o.zip")
    expected = [image[1 + 16 * r : 17 + 16 * r, 1 + 16 * c : 17 + 16 * c] for r in range(2) for c in range(3)]
    np.testing.assert_array_equal(tiles, expected)
    assert list(sources) == [f"00000/img0000000{i}.png" for i in range(6)]
    assert set(sources.values()) == {"x.png"}
    assert (report.sources, report.used, report.images_train, report.images_test) == (1, 1, 6, 0)
    assert report.test is None
    with zipfile.ZipFile(tmp_path / "o.zip") as archive:
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}


def test_archives_are_read_back(tmp_path: Path, pile: Path) -> None:
    report = build_dataset(pile, tmp_path / "out/o.zip", resolution=16, test_fraction=0.3)
    assert report.test == tmp_path / "out/o-test.zip"
    train, test = ImageDataset(report.train), ImageDataset(report.test)
    assert train.shape == test.shape == (3, 16, 16)
    assert train.labels is None
    assert (len(train), len(test)) == (report.images_train, report.images_test)
    assert len(train) + len(test) == 12 * 4
    first = next(iter(pictures(report.train)[1].values()))
    top_left = np.array(Image.open(pile / first))[:16, :16]
    np.testing.assert_allclose(train[0], top_left.transpose(2, 0, 1) / 127.5 - 1, atol=1e-6)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["o-test.zip", "o.zip"]  # no partial left


def test_split_is_by_source_and_stable(tmp_path: Path, pile: Path) -> None:
    report = build_dataset(pile, tmp_path / "a.zip", resolution=16, test_fraction=0.3)
    train, test = (set(pictures(path)[1].values()) for path in (report.train, tmp_path / "a-test.zip"))
    assert train
    assert test
    assert not train & test
    assert train | test == {p.name for p in pile.iterdir()}
    # A new image must not move any other one between the parts.
    Image.fromarray(scene(32, 32, 99)).save(pile / "another.png")
    again = build_dataset(pile, tmp_path / "b.zip", resolution=16, test_fraction=0.3)
    assert {"another.png"} >= set(pictures(again.train)[1].values()) - train
    assert {"another.png"} >= set(pictures(tmp_path / "b-test.zip")[1].values()) - test
    other = build_dataset(pile, tmp_path / "c.zip", resolution=16, test_fraction=0.3, seed=1)
    assert set(pictures(other.train)[1].values()) - {"another.png"} != train


def test_same_input_same_bytes_from_folder_and_pk3(tmp_path: Path, pile: Path) -> None:
    with zipfile.ZipFile(tmp_path / "pile.pk3", "w") as archive:
        for path in sorted(pile.iterdir(), reverse=True):
            archive.write(path, path.name)
    options = {"resolution": 8, "max_tiles": 5, "test_fraction": 0.3}
    build_dataset(pile, tmp_path / "a.zip", **options)  # type: ignore[arg-type]
    build_dataset(tmp_path / "pile.pk3", tmp_path / "b.zip", **options)  # type: ignore[arg-type]
    for part in ("", "-test"):
        assert (tmp_path / f"a{part}.zip").read_bytes() == (tmp_path / f"b{part}.zip").read_bytes()


def test_crop_is_the_centred_square_by_lanczos(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    image = Image.fromarray(scene(40, 60, 0))
    image.save(tmp_path / "in/wide.png")
    Image.fromarray(scene(15, 60, 1)).save(tmp_path / "in/small.png")
    report = build_dataset(tmp_path / "in", tmp_path / "o.zip", resolution=16, mode="crop", test_fraction=0)
    expected = image.crop((10, 0, 50, 40)).resize((16, 16), Image.Resampling.LANCZOS)
    np.testing.assert_array_equal(pictures(tmp_path / "o.zip")[0], [np.array(expected)])
    assert report.skipped["too small"] == ["small.png"]


def test_halving_starts_where_both_sides_reach_the_limit(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    big, small = Image.fromarray(scene(64, 80, 0)), Image.fromarray(scene(63, 80, 1))
    big.save(tmp_path / "in/0.png")
    small.save(tmp_path / "in/1.png")
    build_dataset(tmp_path / "in", tmp_path / "o.zip", resolution=16, halve=64, max_tiles=99, test_fraction=0)
    tiles, sources = pictures(tmp_path / "o.zip")
    assert list(sources.values()) == ["0.png"] * 4 + ["1.png"] * 15
    half = np.array(big.resize((40, 32), Image.Resampling.LANCZOS))
    np.testing.assert_array_equal(tiles[0], half[:16, 4:20])
    np.testing.assert_array_equal(tiles[4], np.array(small)[7:23, :16])


def test_contrast_and_the_most_tiles(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    image = scene(64, 64, 0)
    image[:16] = (200, 40, 0)  # flat in every channel, though its values differ between channels
    Image.fromarray(image).save(tmp_path / "in/part.png")
    Image.new("RGB", (32, 32), (9, 200, 9)).save(tmp_path / "in/plain.png")
    build = dict[str, object](resolution=16, min_std=20, test_fraction=0)
    report = build_dataset(tmp_path / "in", tmp_path / "o.zip", **build)  # type: ignore[arg-type]
    assert (report.images_train, report.low_contrast, report.surplus) == (12, 4 + 4, 0)
    assert report.skipped["low contrast"] == ["plain.png"]
    assert min(tile.reshape(-1, 3).std(axis=0).mean() for tile in pictures(tmp_path / "o.zip")[0]) > 20
    drawn = set()
    for seed in range(4):
        few = build_dataset(tmp_path / "in", tmp_path / "f.zip", max_tiles=5, seed=seed, **build)  # type: ignore[arg-type]
        assert (few.images_train, few.surplus) == (5, 7)
        tiles = pictures(tmp_path / "f.zip")[0]
        assert len({tile.tobytes() for tile in tiles}) == 5
        drawn.add(tiles.tobytes())
    assert len(drawn) > 1  # the seed draws them


def test_every_skipped_source_is_named_under_its_reason(tmp_path: Path, pile: Path) -> None:
    scene0 = Image.fromarray(scene(32, 32, 0))
    for name in ("wall_norm.png", "Wall_NM.tga", "wall_gloss.jpg", "sky1.png"):
        Image.fromarray(scene(32, 32, 50)).save(pile / name)
    (pile / "broken.png").write_bytes((pile / "scene00.png").read_bytes()[:200])
    (pile / "nothing.jpg").write_bytes(b"")
    (pile / "phone.heic").write_bytes(b"")
    (pile / "phone_norm.avif").write_bytes(b"")
    seen_through = Image.fromarray(scene(32, 32, 51)).convert("RGBA")
    seen_through.save(pile / "opaque.png")
    seen_through.putpixel((3, 3), (0, 0, 0, 254))
    seen_through.save(pile / "alpha.png")
    Image.fromarray(scene(15, 40, 52)).save(pile / "tiny.bmp")
    scene0.save(pile / "zz_copy.bmp")
    scene0.save(pile / "zz_jpeg.jpg", quality=60)
    scene0.resize((48, 48), Image.Resampling.BICUBIC).save(pile / "zz_larger.webp")
    Image.fromarray((np.array(scene0) * 0.6 + 40).astype(np.uint8)).save(pile / "zz_pale.gif")
    calls = []
    report = build_dataset(
        pile,
        tmp_path / "o.zip",
        resolution=16,
        exclude=["SKY*"],
        progress=lambda done, sources: calls.append((done, sources)),
    )
    assert report.skipped == {
        "excluded": ["Wall_NM.tga", "phone_norm.avif", "sky1.png", "wall_gloss.jpg", "wall_norm.png"],
        "unreadable": ["broken.png", "nothing.jpg", "phone.heic"],
        "alpha": ["alpha.png"],
        "too small": ["tiny.bmp"],
        "duplicate": ["zz_copy.bmp"],
        "near duplicate": ["zz_jpeg.jpg", "zz_larger.webp", "zz_pale.gif"],
        "low contrast": [],
    }
    assert list(report.unreadable) == report.skipped["unreadable"]
    assert report.unreadable["broken.png"].startswith("image file is truncated")
    assert report.unreadable["phone.heic"] == ".heic is not read; convert it to PNG or JPEG"
    assert (report.sources, report.used) == (27, 13)
    assert calls == [(i, 27) for i in range(1, 28)]
    kept = build_dataset(pile, tmp_path / "m.zip", resolution=16, keep_maps=True)
    assert "excluded" in kept.skipped
    assert not kept.skipped["excluded"]
    assert "*_norm" in DEFAULT_EXCLUDE


def test_a_scan_beyond_the_limit_is_left_out_with_the_reason(
    tmp_path: Path, pile: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.fromarray(scene(50, 40, 60)).save(pile / "scan.tif")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1999)
    report = build_dataset(pile, tmp_path / "o.zip", resolution=16)
    assert report.skipped["unreadable"] == ["scan.tif"]
    assert report.unreadable["scan.tif"].startswith("more than 0.001999 megapixels may be a decompression bomb; cut it")


def test_grey_output_and_odd_modes(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    grey = scene(16, 16, 0)[..., 0]
    Image.fromarray(grey.astype(np.uint16) * 257).save(folder / "deep.png")
    Image.fromarray(scene(16, 16, 1)).quantize(16).save(folder / "palette.png")
    Image.fromarray(scene(16, 16, 2)).convert("CMYK").save(folder / "print.jpg")
    report = build_dataset(folder, tmp_path / "g.zip", resolution=16, channels=1, test_fraction=0)
    tiles, sources = pictures(tmp_path / "g.zip")
    assert list(sources.values()) == ["deep.png", "palette.png", "print.jpg"]
    assert tiles.shape == (3, 16, 16)
    np.testing.assert_array_equal(tiles[0], grey)
    assert ImageDataset(report.train).channels == 1
    build_dataset(folder, tmp_path / "c.zip", resolution=16, test_fraction=0)
    np.testing.assert_array_equal(pictures(tmp_path / "c.zip")[0][0], np.stack([grey] * 3, axis=2))


def test_nothing_to_write_leaves_everything_as_it_was(tmp_path: Path, pile: Path) -> None:
    out = tmp_path / "out"
    build_dataset(pile, out / "o.zip", resolution=16, test_fraction=0.3)
    before = {p.name: p.read_bytes() for p in out.iterdir()}
    with pytest.raises(ValueError, match=r"no picture for training in .*12 images.*skipped: 12 too small"):
        build_dataset(pile, out / "o.zip", resolution=33)
    assert {p.name: p.read_bytes() for p in out.iterdir()} == before
    # Without a test part the one of the build before must go: its images may now be in training.
    report = build_dataset(pile, out / "o.zip", resolution=16, test_fraction=0)
    assert [p.name for p in out.iterdir()] == ["o.zip"]
    assert report.removed == out / "o-test.zip"
    assert build_dataset(pile, out / "o.zip", resolution=16, test_fraction=0).removed is None


@pytest.mark.parametrize("fraction", [0.0, 0.3])
@pytest.mark.parametrize("content", ["photos", "EDM's own", "no zip"])
def test_a_test_archive_that_no_build_made_is_neither_removed_nor_replaced(
    tmp_path: Path, pile: Path, content: str, fraction: float
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    if content == "no zip":
        (out / "o-test.zip").write_bytes(b"notes")
    else:
        with zipfile.ZipFile(out / "o-test.zip", "w") as archive:
            archive.write(pile / "scene00.png", "photo.png")
            if content == "EDM's own":
                archive.writestr("dataset.json", '{"labels": null}')
    before = (out / "o-test.zip").read_bytes()
    with pytest.raises(ValueError, match=r"o-test\.zip: .* was not made by `specreg dataset`.*; move it away"):
        build_dataset(pile, out / "o.zip", resolution=16, test_fraction=fraction)
    assert {p.name: p.read_bytes() for p in out.iterdir()} == {"o-test.zip": before}


@pytest.mark.parametrize("taken", ["o.zip", "o-test.zip"])
def test_a_folder_in_the_place_of_an_archive_is_refused_before_the_work(tmp_path: Path, pile: Path, taken: str) -> None:
    out = tmp_path / "out"
    (out / taken).mkdir(parents=True)
    calls: list[int] = []
    with pytest.raises(ValueError, match=rf"archive: expected a file .*{taken} is a folder"):
        build_dataset(pile, out / "o.zip", resolution=16, progress=lambda done, sources: calls.append(done))
    assert not calls
    assert [p.name for p in out.iterdir()] == [taken]


def test_a_full_disk_is_a_sentence_with_the_path_and_leaves_nothing(tmp_path: Path, pile: Path) -> None:
    out = tmp_path / "out"
    for room in (300, 20_000):  # for the first picture, and for some
        with (
            room_for(room),
            pytest.raises(WriteError, match=r"out/o(-test)?\.zip: cannot be written \(File too large\)"),
        ):
            build_dataset(pile, out / "o.zip", resolution=16, test_fraction=0.3)
        assert not list(out.iterdir())


@pytest.mark.parametrize("fails", ["o.zip", "o-test.zip"])
def test_no_archive_is_ever_beside_one_of_another_build(
    tmp_path: Path, pile: Path, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    """A test archive beside another training archive may have the same pictures."""
    out = tmp_path / "out"
    build_dataset(pile, out / "o.zip", resolution=16, test_fraction=0.3)
    before = {p.name: p.read_bytes() for p in out.iterdir()}
    replace = Path.replace

    def taken(self: Path, target: Path) -> Path:
        if target.name == fails:
            raise PermissionError(13, os.strerror(13))
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", taken)
    with pytest.raises(WriteError, match=rf"{fails}: cannot be written \(Permission denied\)"):
        build_dataset(pile, out / "o.zip", resolution=8, test_fraction=0.3)
    if fails == "o.zip":
        assert {p.name: p.read_bytes() for p in out.iterdir()} == before
    else:
        assert [p.name for p in out.iterdir()] == ["o.zip"]


def test_bad_options(tmp_path: Path, pile: Path) -> None:
    wrong: list[tuple[dict[str, object], str]] = [
        ({"mode": "tile"}, "mode must be one of crop, tiles; got 'tile'"),
        ({"resolution": 0}, "resolution"),
        ({"channels": 4}, "channels must be 1"),
        ({"halve": 100}, "at least twice the resolution, 128; got 100"),
        ({"max_tiles": 0}, "max_tiles"),
        ({"test_fraction": 1.0}, "test_fraction"),
        ({"out": tmp_path / "x.tar"}, r"must end in \.zip"),
    ]
    for options, message in wrong:
        with pytest.raises(ValueError, match=message):
            build_dataset(pile, **{"out": tmp_path / "x.zip", **options})  # type: ignore[arg-type]
    build_dataset(pile, tmp_path / "x.zip", resolution=16)
    with pytest.raises(ValueError, match="would replace the source"):
        build_dataset(tmp_path / "x.zip", tmp_path / "x.zip", resolution=16)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        build_dataset(tmp_path / "nowhere", tmp_path / "y.zip")


def test_names_of_any_bytes_are_used(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for name in (b"a.png", b"\xff.png"):
        Image.fromarray(np.random.default_rng(name[0]).integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(
            tmp_path / "photos" / "x.png"
        )
        os.rename(tmp_path / "photos" / "x.png", os.fsencode(tmp_path / "photos") + b"/" + name)
    report = build_dataset(tmp_path / "photos", tmp_path / "out.zip", resolution=16, test_fraction=0)
    assert report.images_train == 2
    assert len(ImageDataset(tmp_path / "out.zip")) == 2
