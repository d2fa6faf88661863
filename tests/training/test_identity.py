"""A run knows its files by content: under another name, from another directory, after they moved."""

import shutil
import zipfile

import numpy as np
import pytest
from rich.console import Console

from specreg.config import ConfigError
from specreg.training import identity
from specreg.training.checkpoint import latest, load_state
from specreg.training.trainer import Trainer


def pictures(seed):
    return np.random.default_rng(seed).integers(0, 256, (8, 16, 16), dtype=np.uint8)


@pytest.fixture
def begun(tiny, tmp_path, monkeypatch):
    """Return a function that trains, or resumes, on the data at a path, and a run of 2 steps on x.npy."""
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", pictures(0))

    def run(path, *overrides, steps=2):
        config = tiny("data.kind=images", f"data.path={path}", "training.decay=constant", f"training.steps={steps}",
                      *overrides)  # fmt: skip
        trainer = Trainer(config, tmp_path / "run", console=Console(quiet=True))
        trainer.run()
        return trainer.step

    assert run("x.npy") == 2
    return run


def test_the_same_data_by_another_name_are_the_same_run(begun, tmp_path, monkeypatch):
    assert begun(tmp_path / "x.npy", steps=3) == 3
    assert begun("./x.npy", steps=3) == 3
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert begun("../x.npy", steps=3) == 3
    shutil.move(tmp_path / "x.npy", "moved.npy")
    assert begun("moved.npy", steps=4) == 4
    assert load_state(latest(tmp_path / "run" / "checkpoints"))["sources"]["data.path"][0].endswith("moved.npy")


def test_other_data_are_another_run_even_under_the_same_name(begun):
    np.save("y.npy", pictures(1))
    for path in ("y.npy", "x.npy"):
        if path == "x.npy":
            shutil.copy("y.npy", "x.npy")
        with pytest.raises(ConfigError, match=r"data.path = '.*x.npy', whose content was another; got '") as error:
            begun(path, steps=3)
        assert "Choose another name" in str(error.value)
        assert "delete" not in str(error.value)


def test_held_out_data_may_change(begun):
    np.save("z.npy", pictures(2))
    assert begun("x.npy", "data.test_path=z.npy", steps=3) == 3


def test_runs_of_earlier_versions_are_known_by_place(begun, tmp_path, monkeypatch):
    monkeypatch.setattr("specreg.training.checkpoint.sources", lambda state: {})
    assert begun(tmp_path / "x.npy", steps=3) == 3
    shutil.copy("x.npy", "copy.npy")
    with pytest.raises(ConfigError, match=r"holds a run with data\.path"):
        begun("copy.npy", steps=4)


def test_what_is_not_there_any_more_keeps_its_content(tiny, tmp_path):
    gone = identity.Source("/a", None)
    assert gone.same(identity.Source("/a", "1"))
    assert not gone.same(identity.Source("/b", "1"))
    assert identity.Source("/a", "1").same(identity.Source("/b", "1"))
    assert not identity.Source("/a", "1").same(identity.Source("/a", "2"))
    config = tiny("model.kind=pretrained", f"model.checkpoint={tmp_path / 'none.pkl'}")
    assert identity.sources_of(config) == {"model.checkpoint": identity.Source(str(tmp_path / "none.pkl"), None)}


def test_content_of_folders_zips_and_large_files(tmp_path, monkeypatch):
    for name in ("a", "b"):
        (tmp_path / name / "sub").mkdir(parents=True)
        (tmp_path / name / "sub" / "1.png").write_bytes(b"1")
        with zipfile.ZipFile(tmp_path / f"{name}.zip", "w") as archive:
            archive.writestr(zipfile.ZipInfo("1.png", (2000 + len(name), 1, 1, 0, 0, 0)), b"1" if name == "a" else b"2")
    (tmp_path / "a" / ".DS_Store").write_bytes(b"x")
    content = identity.content_of
    assert content(tmp_path / "a") == content(tmp_path / "b")
    (tmp_path / "b" / "sub" / "2.png").write_bytes(b"")
    assert content(tmp_path / "a") != content(tmp_path / "b")
    assert content(tmp_path / "a.zip") != content(tmp_path / "b.zip")  # of one size
    monkeypatch.setattr(identity, "BLOCK", 4)
    monkeypatch.setattr(identity, "BLOCKS", 3)
    large, found = bytes(range(40)), set()
    for changed in (None, 0, 20, 39):
        data = bytearray(large)
        if changed is not None:
            data[changed] ^= 255
        (tmp_path / "large").write_bytes(data)
        found.add(content(tmp_path / "large"))
    assert len(found) == 4
    (tmp_path / "empty").write_bytes(b"")
    assert content(tmp_path / "empty") not in {None, *found}
