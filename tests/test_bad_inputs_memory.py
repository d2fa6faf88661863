"""Bombs and a large photo stay under 2 GB and 10 s, measured in a process of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import specreg
from bad_inputs.datasets import npy, promise, zeros

resource = pytest.importorskip("resource")

RUN = r"""
import json, pathlib, re, resource, sys
from bad_inputs.case import run
shown = run(sys.argv[1:], seconds=100)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
status = pathlib.Path("/proc/self/status")
if status.exists():  # Linux counts the peak of the process that started this one too
    peak = int(re.search(r"VmHWM:\s+(\d+) kB", status.read_text())[1]) * 1024
print(json.dumps([shown.code, shown.err, shown.seconds, peak]))
"""


def measured(folder, *arguments):
    """Return exit code, message, seconds and peak memory in bytes of the command in a process of its own."""
    paths = os.pathsep.join([str(Path(specreg.__file__).parents[1]), str(Path(__file__).parent)])
    found = subprocess.run(
        [sys.executable, "-c", RUN, *arguments], cwd=folder, capture_output=True, text=True, timeout=120, check=True,
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    return json.loads(found.stdout)


@pytest.mark.parametrize(("name", "content", "words"), [
    ("x.zip", lambda: zeros("x.png", 900 << 20, b"\x89PNG\r\n\x1a\n"), "no picture for training"),
    ("x.npz", lambda: zeros("images.npy", 2 << 30, npy(promise(f"({2**23}, 16, 16)"))), "as a decompression bomb does"),
])  # fmt: skip
def test_bombs_are_not_unpacked(name, content, words, tmp_path):
    (tmp_path / name).write_bytes(content())
    run = ["train", "checkerboard", "spectral=null", "data={kind: images, path: x.npz}", "training.steps=1"]
    arguments = run if name == "x.npz" else ["dataset", name, "out.zip"]
    code, said, seconds, peak = measured(tmp_path, *arguments)
    assert (code, words in said) == (2, True), said
    assert seconds < 10
    assert peak < 2e9


def test_a_photo_of_81_megapixels_is_cut_without_a_copy_in_float64(tmp_path):
    (tmp_path / "photos").mkdir()
    row = (np.arange(9000) % 251).astype(np.uint8)
    Image.fromarray(row[None, :, None] ^ row[:, None, None] ^ np.arange(3, dtype=np.uint8)).save(
        tmp_path / "photos" / "x.jpg", quality=50
    )
    code, said, _, peak = measured(tmp_path, "dataset", "photos", "out.zip", "--min-std", "1")
    assert code == 0, said
    assert peak < 2e9
