"""Output in encodings that lack λ, and files whose names are no text: neither ends a command that did its work."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import yaml

from specreg.config import dump

TINY = [
    "data.resolution=16", "model.width=8", "model.attention=[1]", "diffusion.timesteps=50", "training.steps=2",
    "training.batch_size=4", "sampling.count=4", "sampling.steps=2",
]  # fmt: skip


def specreg(*arguments, encoding, cwd=None):
    """Run a command whose output is redirected, as in a Windows console of that code page."""
    return subprocess.run(
        [sys.executable, "-m", "specreg", *arguments], capture_output=True, cwd=cwd, stdin=subprocess.DEVNULL,
        env={**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"},
    )  # fmt: skip


@pytest.mark.parametrize("command", ["train", "compare", "reproduce"])
def test_help_in_a_code_page(command):
    shown = specreg(command, "--help", encoding="cp1252")
    assert shown.returncode == 0, shown.stderr
    assert f"specreg {command}" in shown.stdout.decode("cp1252")


@pytest.mark.parametrize("encoding", ["cp1252", "ascii:surrogateescape"])
def test_a_comparison_in_a_code_page_is_shown_and_has_its_report(encoding, tmp_path):
    shown = specreg("compare", "checkerboard", *TINY, "data.squares=[2]", "title=λ and −", "--arms", "haar",
                    encoding=encoding, cwd=tmp_path)  # fmt: skip
    assert shown.returncode == 0, shown.stderr
    assert "report: " in shown.stdout.decode(encoding.partition(":")[0])
    assert (tmp_path / "runs" / "checkerboard" / "report.html").exists()


def test_characters_that_an_encoding_lacks_are_escaped_as_on_stderr():
    shown = specreg("recipes", encoding="cp1252").stdout.decode("cp1252")
    assert "\\u03bb" in shown
    assert "×" in shown
    assert "?" not in shown


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-8"])
def test_a_printed_config_is_the_same_in_every_encoding(encoding, tmp_path, tiny):
    (tmp_path / "mine.yaml").write_text(dump(tiny("title=λ é")), "utf-8")
    shown = specreg("train", "mine.yaml", "--dry-run", encoding=encoding, cwd=tmp_path)
    assert yaml.safe_load(shown.stdout.decode("utf-8")) == yaml.safe_load((tmp_path / "mine.yaml").read_text("utf-8"))


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such a name")
def test_a_name_that_is_no_text_is_trained_on_and_reported(tmp_path):
    name = os.fsdecode(b"caf\xe9.npy")
    np.save(tmp_path / "x.npy", np.random.default_rng(0).integers(0, 256, (8, 16, 16, 1), dtype=np.uint8))
    (tmp_path / "x.npy").rename(tmp_path / name)
    for _ in range(2):  # the second time, from its checkpoint
        shown = specreg("train", "textures", f"data.path={name}", *TINY, encoding="utf-8", cwd=tmp_path)
        assert shown.returncode == 0, shown.stderr
    run = tmp_path / "runs" / "textures"
    assert json.loads((run / "results.json").read_text("utf-8"))["command"].endswith("sampling.steps=2")
    assert (run / "report.html").read_text("utf-8")
