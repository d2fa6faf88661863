"""Files that are written: their access rights, and what other systems ask of a file that is flushed."""

import errno
import hashlib
import os
import stat
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import reference_pickle
from specreg import _files
from specreg.models import pretrained
from specreg.training import checkpoint
from specreg.training.checkpoint import Checkpoint

WEIGHTS = {"a": torch.arange(3.0)}


@pytest.fixture(params=[0o022, 0o002, 0o027, 0o077])
def umask(request):
    """Set the umask of a test."""
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no umask")
def test_written_files_have_the_rights_that_the_umask_leaves(umask, tmp_path):
    network = pretrained.read(reference_pickle.write_tiny(tmp_path / "x.pkl"))
    for suffix in ("safetensors", "pt"):
        pretrained.save(tmp_path / f"net.{suffix}", network)
    checkpoint.save(
        tmp_path / "run",
        Checkpoint(1, WEIGHTS, WEIGHTS, {}, {"shape": [1], "ema_updates": 1, "seconds": 0.0}),
        config="",
        keep=1,
    )
    _files.write_json(tmp_path / "x.json", {})
    found = {p.name: stat.S_IMODE(p.stat().st_mode) for p in tmp_path.rglob("*") if p.is_file()}
    assert {"net.safetensors", "net.pt", "model.safetensors", "ema.safetensors", "x.json"} <= found.keys()
    assert found == dict.fromkeys(found, 0o666 & ~umask)


def test_safetensors_replace_a_file_and_keep_their_metadata(tmp_path):
    for value in (1.0, 2.0):
        _files.write_safetensors(tmp_path / "x.safetensors", {"a": torch.full((2,), value)}, {"said": "so"})
    assert load_file(tmp_path / "x.safetensors")["a"].tolist() == [2, 2]
    assert [path.name for path in tmp_path.iterdir()] == ["x.safetensors"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows refuses by itself")
def test_only_files_open_for_writing_are_flushed(tmp_path, monkeypatch):
    import fcntl

    flushed = []

    def as_on_windows(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            return  # Windows has no handles of folders: `sync` returns before
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        flushed.append(os.fstat(descriptor).st_ino)

    monkeypatch.setattr(os, "fsync", as_on_windows)
    saved = checkpoint.save(
        tmp_path,
        Checkpoint(1, WEIGHTS, WEIGHTS, {}, {"shape": [1], "ema_updates": 1, "seconds": 0.0}),
        config="",
        keep=1,
    )
    assert set(flushed) >= {path.stat().st_ino for path in saved.iterdir()}
    torch.testing.assert_close(checkpoint.load(saved).model, WEIGHTS)


def test_where_nothing_can_be_written_is_said(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    for place in ("file", "new", "new/folder/file", "gone"):
        _files.refuse_no_file(tmp_path / place, where="--json")
    _files.refuse_no_folder(tmp_path / "new" / "folder", where="--out")
    for refuse, place, words in (
        (_files.refuse_no_file, ".", f"--x: expected a file to write to; {tmp_path} is a folder"),
        (_files.refuse_no_file, "file/a/b", f"to write to; {tmp_path / 'file'} is a file"),
        (_files.refuse_no_folder, "file", f"--x: expected a folder to write to; {tmp_path / 'file'} is a file"),
        (_files.refuse_no_folder, "gone", f"to write to; {tmp_path / 'gone'} is a link to nothing"),
    ):
        with pytest.raises(ValueError, match=words):
            refuse(tmp_path / place, where="--x")
    with pytest.raises(ValueError, match="--x: expected a file to write to; /dev/stdout is a device or a pipe"):
        _files.refuse_no_file(Path("/dev/stdout"), where="--x")  # whatever it leads to: it would be replaced


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_folder_that_may_not_be_written_to_is_said(tmp_path):
    tmp_path.chmod(0o555)
    with pytest.raises(ValueError, match=f"--x: expected a folder that may be written to; {tmp_path} may not"):
        _files.refuse_no_file(tmp_path / "new", where="--x")
    tmp_path.chmod(0o755)


def test_the_digest_of_a_file_is_that_of_its_bytes(tmp_path):
    """Of several blocks, too; Python 3.10 has no hashlib.file_digest."""
    content = bytes(range(256)) * 8193  # beyond two blocks of 1 MiB
    (tmp_path / "x").write_bytes(content)
    assert _files.sha256(tmp_path / "x") == hashlib.sha256(content).hexdigest()
