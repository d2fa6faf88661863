import multiprocessing
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from PIL import Image

from instruments.sources.files import encoded, everything, folder_of, noise, tar_of, zip_of
from specreg.instruments.sources import Source, open_source


def run_folder(path, **samples):
    path.mkdir(parents=True)
    (path / "config.yaml").write_text("title: x\n")
    (path / "metrics.jsonl").write_text("")
    (path / "samples").mkdir()
    for name, array in samples.items():
        np.save(path / "samples" / f"{name}.npy", array)
    return str(path)


def test_the_samples_of_a_run_of_pictures(tmp_path):
    images = noise(5, 8, 9, 3)
    path = run_folder(tmp_path / "runs/none-seed0", samples=images)
    (tmp_path / "runs/none-seed0/samples/samples.png").write_bytes(encoded(noise(16, 18, 3)))
    source = open_source(path)
    assert source.name == "none-seed0"
    np.testing.assert_allclose(everything(source), images.transpose(0, 3, 1, 2) / 127.5 - 1, atol=1e-6)


def test_the_samples_of_a_run_of_lines_and_of_sound(tmp_path):
    lines = np.random.default_rng(0).normal(size=(5, 1, 16)).astype(np.float32)
    assert np.array_equal(everything(open_source(run_folder(tmp_path / "lines", samples=lines))), lines)
    soundfile = pytest.importorskip("soundfile")
    path = run_folder(tmp_path / "sound")
    clip = noise(100, dtype=np.uint16).astype(np.float64) / 65536 - 0.5
    soundfile.write(tmp_path / "sound/samples/a.wav", clip, 8000, subtype="PCM_16")
    source = open_source(path, segment=50)
    assert source.spacing == (1 / 8000,)
    np.testing.assert_allclose(everything(source).flatten(), clip, atol=2**-15)


def test_runs_without_samples_and_comparisons_are_refused(tmp_path):
    path = run_folder(tmp_path / "demo/none-seed0")
    with pytest.raises(ValueError, match=r"none-seed0 is a run without samples: expected samples/samples\.npy or"):
        open_source(path)
    (tmp_path / "demo/comparison.json").write_text("{}")
    with pytest.raises(ValueError, match=r"demo is a comparison: name one of its runs, such as .*demo/none-seed0$"):
        open_source(str(tmp_path / "demo"))


@pytest.mark.parametrize("pack", [folder_of, zip_of, tar_of])
def test_mixed_unread_and_empty_sets_are_refused(tmp_path, pack):
    ending = {folder_of: "", zip_of: ".zip", tar_of: ".tar"}[pack]
    mixed = pack(tmp_path / f"mixed{ending}", {"a.png": encoded(noise(4, 4)), "b/c.wav": b"", "d.wav": b""})
    with pytest.raises(ValueError, match=r"expected files of one kind; it holds 1 pictures \(a\.png\) and 2 sounds"):
        open_source(mixed)
    unread = pack(tmp_path / f"unread{ending}", {"a.heic": b"", "b.txt": b""})
    with pytest.raises(ValueError, match=r"none of its 2 files is read; 1 are in formats that are not read"):
        open_source(unread)
    (tmp_path / "empty").mkdir()
    empty = str(tmp_path / "empty") if pack is folder_of else pack(tmp_path / f"empty{ending}", {})
    with pytest.raises(ValueError, match=r"expected a folder, zip or tar of .*; none of its 0 files is read"):
        open_source(empty)


def test_paths_that_are_nothing_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no such file or folder: .*/gone\.nc:t2m"):
        open_source(str(tmp_path / "gone.nc:t2m"))
    (tmp_path / "x.txt").write_text("")
    with pytest.raises(ValueError, match=r"x\.txt: expected a folder, .*; its ending, \.txt, is of none of them"):
        open_source(str(tmp_path / "x.txt"))
    with pytest.raises(FileNotFoundError):
        open_source("")
    np.savez(tmp_path / "x.npz", a=np.ones((2, 8)))
    with pytest.raises(ValueError, match=r"names 'a', and the variable is 'b': name it once"):
        open_source(f"{tmp_path}/x.npz:a", variable="b")


def test_a_colon_in_a_name_is_no_selector(tmp_path):
    path = folder_of(tmp_path / "12:30", {"a.png": encoded(noise(4, 4))})
    assert open_source(path).name == "12:30"
    np.savez(tmp_path / "12:30/../x:y.npz", a=np.ones((2, 8)), b=np.zeros((2, 8)))
    assert open_source(str(tmp_path / "x:y.npz:b")).read(0, 1).sum() == 0


def test_the_folder_one_stands_in_has_a_name(tmp_path, monkeypatch):
    folder_of(tmp_path / "x", {"a.png": encoded(noise(4, 4))})
    monkeypatch.chdir(tmp_path / "x")
    assert open_source(".").name == "x"


def sets_of(path):
    """Sets of each kind that keeps a file open."""
    pictures = {f"{i}.png": encoded(noise(16, 16, seed=i)) for i in range(40)}
    yield zip_of(path / "x.zip", pictures)
    yield tar_of(path / "x.tar", pictures)
    yield tar_of(path / "x.tgz", pictures, "w:gz")
    frames = [Image.fromarray(frame) for frame in noise(40, 16, 16)]
    yield folder_of(path / "tif", {"a.tif": encoded(frames[0], "TIFF", save_all=True, append_images=frames[1:])})
    np.save(path / "x.npy", noise(40, 3, 16, 16))
    np.savez_compressed(path / "x.npz", noise(40, 3, 16, 16))
    yield from (str(path / "x.npy"), str(path / "x.npz"))
    if find_spec("xarray") and find_spec("h5netcdf"):
        import xarray

        xarray.Dataset({"u": (("t", "y", "x"), np.random.default_rng(0).normal(size=(40, 16, 16)))}).to_netcdf(
            path / "x.nc", engine="h5netcdf"
        )
        yield str(path / "x.nc")


SHARED: list[Source] = []


def _read(i, start, stop):
    return SHARED[i].read(start, stop)


def positions(folder):
    """Return the positions of this process in the files of a folder that it has open."""
    found = {}
    for fd in os.listdir("/proc/self/fd"):
        link = f"/proc/self/fd/{fd}"
        if os.path.realpath(link).startswith(str(folder)):
            found[fd] = os.lseek(int(fd), 0, os.SEEK_CUR)
    return found


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="lists open files as Linux does")
def test_a_forked_process_leaves_the_files_of_its_parent_where_they_are(tmp_path, monkeypatch):
    sources = [open_source(path) for path in sets_of(tmp_path)]
    for source in sources:
        source.read(0, 2)
    before = positions(tmp_path)
    assert len(before) >= len(sources)
    monkeypatch.setattr(sys.modules[__name__], "SHARED", sources)
    with multiprocessing.get_context("fork").Pool(1) as pool:
        pool.starmap(_read, [(i, 30, 40) for i in range(len(sources))])
    assert positions(tmp_path) == before


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="lists open files as Linux does")
def test_a_thread_leaves_the_files_of_another_where_they_are(tmp_path):
    """Two that seek in one file read each other's bytes, which no check would notice in an array of floats."""
    sources = [open_source(path) for path in sets_of(tmp_path)]
    expected = [source.read(30, 40) for source in sources]
    before = positions(tmp_path)
    with ThreadPoolExecutor(1) as pool:
        for source, part in zip(sources, expected, strict=True):
            assert torch.equal(pool.submit(source.read, 30, 40).result(), part), source.name
        during = positions(tmp_path)
    assert len(during) > len(before)
    assert {fd: during[fd] for fd in before} == before


def test_threads_read_the_same(tmp_path):
    sources = [open_source(path) for path in sets_of(tmp_path)]
    shares = [(start, start + 2) for start in range(0, 40, 2)] * 5
    for source in sources:
        expected = source.read(0, 40)
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(source.read, *zip(*shares, strict=True)))
        for (start, stop), part in zip(shares, found, strict=True):
            assert torch.equal(part, expected[start:stop]), source.name


def test_forked_processes_read_the_same(tmp_path, monkeypatch):
    """They share the files that their parent has open, and must not seek in them."""
    sources = [open_source(path) for path in sets_of(tmp_path)]
    expected = [source.read(0, 40) for source in sources]
    for source in sources:
        source.read(0, 2)
    monkeypatch.setattr(sys.modules[__name__], "SHARED", sources)
    with multiprocessing.get_context("fork").Pool(3) as pool:
        for i, whole in enumerate(expected):
            shares = [(i, start, start + 2) for start in range(0, 40, 2)]
            assert torch.equal(torch.cat(pool.starmap(_read, shares, 1)), whole), sources[i].name


def test_spawned_processes_read_the_same(tmp_path):
    sources = [open_source(path) for path in sets_of(tmp_path)]
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        for source in sources:
            assert torch.equal(pool.apply(source.read, (2, 6)), source.read(2, 6)), source.name


def test_the_readers_load_their_libraries_only_when_used():
    code = """
import sys
import specreg.instruments.sources
print(*({"PIL", "xarray", "av", "soundfile", "safetensors", "scipy", "librosa"} & set(sys.modules)))
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    assert found.stdout.split() == []


@pytest.mark.parametrize(("module", "name", "extra"), [("xarray", "x.nc", "fields"), ("av", "x.mp4", "video")])
def test_a_missing_extra_is_named(tmp_path, monkeypatch, module, name, extra):
    (tmp_path / name).write_bytes(b"\x89HDF")
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf'pip install "specreg\[{extra}\]"'):
        open_source(str(tmp_path / name))
