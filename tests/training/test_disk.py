"""Disks that are full or gone: one sentence with the file, the reason and what is safe, and the run goes on after."""

import os
import resource
from pathlib import Path

import pytest
import torch
from rich.console import Console

from commands import lines, save_config, start, wait_for
from specreg._files import WriteError, whole, whole_file, write_text
from specreg.models.diffwave import DiffWave, DiffWaveConfig
from specreg.models.diffwave_checkpoint import save_diffwave
from specreg.training import checkpoint
from specreg.training.runlog import RunLog
from specreg.training.trainer import Trainer

QUIET = Console(quiet=True)


def limit(size):
    """Return a function that forbids files above `size` bytes to this process, as a full disk does."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


@pytest.mark.parametrize("largest", ["model.safetensors", "optimizer.pt"])
def test_a_full_disk_at_a_checkpoint_is_a_sentence_and_nothing_is_lost(tiny, tmp_path, largest):
    config = tiny("training.steps=8", "training.decay=constant")
    Trainer(config, tmp_path / "whole", console=QUIET).run()
    Trainer(tiny("training.steps=4", "training.decay=constant"), tmp_path / "runs" / "tiny", console=QUIET).run()
    save_config(tmp_path, config)
    sizes = {path.name: path.stat().st_size for path in (tmp_path / "whole/checkpoints/step-00000008").iterdir()}
    room = sizes[largest] - 5000
    run = start(tmp_path, "train", "tiny.yaml", before=limit(room))
    _, said = run.communicate(timeout=60)
    assert run.returncode == 2
    assert said.count("\n") == 1
    assert said.startswith(
        "error: runs/tiny/checkpoints/step-00000006: cannot be written (File too large); it needs 0."
    )
    assert said.endswith("; step-00000004 is safe: remedy this and run the same command again to resume\n")
    left = sorted(path.name for path in (tmp_path / "runs/tiny/checkpoints").iterdir())
    assert left == ["step-00000002", "step-00000004"]
    Trainer(config, tmp_path / "runs" / "tiny", console=QUIET).run()
    ours, theirs = (
        checkpoint.load(at / "checkpoints/step-00000008") for at in (tmp_path / "runs/tiny", tmp_path / "whole")
    )
    assert all(torch.equal(ours.model[name], theirs.model[name]) for name in ours.model)


def test_a_full_disk_under_the_log_is_a_sentence(tmp_path):
    log = RunLog(tmp_path / "metrics.jsonl")
    log.write({"step": 1})
    log.close()
    full = pytest.raises(WriteError, match=r"metrics\.jsonl: cannot be written \(No space left on device\)")
    with Path("/dev/full").open("ab", buffering=0) as log._file, full:
        log.write({"step": 2})
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 1}\n'


def test_a_run_folder_deleted_while_training_is_a_sentence(tiny, tmp_path):
    save_config(tmp_path, tiny("training.steps=1000000", "training.checkpoint_every=100"))
    run = start(tmp_path, "train", "tiny.yaml")
    folder = tmp_path / "runs" / "tiny"
    wait_for(lambda: lines(folder / "metrics.jsonl") > 3, run)
    folder.rename(tmp_path / "gone")
    _, said = run.communicate(timeout=30)
    assert run.returncode == 2
    assert said == "error: runs/tiny/metrics.jsonl: is gone: the run's folder was deleted or moved while training\n"
    assert not folder.exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write to folders that are read-only")
def test_a_run_folder_made_read_only_is_a_sentence(tiny, tmp_path):
    trainer = Trainer(tiny(), tmp_path / "run", console=QUIET)
    (tmp_path / "run" / "checkpoints").mkdir(mode=0o500)
    with pytest.raises(WriteError, match=r"step-00000002: cannot be written \(Permission denied\)"):
        trainer.run()


def test_something_in_the_way_of_checkpoints_is_a_sentence(tiny, tmp_path):
    trainer = Trainer(tiny(), tmp_path / "run", console=QUIET)
    (tmp_path / "run" / "checkpoints").write_text("not a folder")
    with pytest.raises(WriteError, match=r"step-00000002: cannot be written .*; no earlier checkpoint is there"):
        trainer.run()


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    write_text(tmp_path / "file", "old")

    def fail(error):
        with whole(tmp_path / "file") as partial:
            partial.write_text("half")
            raise error

    with pytest.raises(WriteError, match=r"file: cannot be written \(No space left on device\)"):
        fail(OSError(28, os.strerror(28)))
    with pytest.raises(KeyboardInterrupt):
        fail(KeyboardInterrupt())
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


def test_torch_s_riddle_of_a_full_disk_is_replaced_by_what_the_system_said(tmp_path):
    """torch.save says "unexpected pos 1024 vs 918" of a full disk."""
    network = DiffWaveConfig(residual_layers=1, residual_channels=4, n_mels=8, n_fft=128, hop_samples=32)
    (tmp_path / f".net.pt.{os.getpid()}.partial").symlink_to("/dev/full")
    with pytest.raises(WriteError, match=r"net\.pt: cannot be written \(No space left on device\)"):
        save_diffwave(tmp_path / "net.pt", DiffWave(network))
    (tmp_path / f".array.{os.getpid()}.partial").symlink_to("/dev/full")
    with pytest.raises(WriteError, match=r"array: cannot be written"), whole_file(tmp_path / "array") as file:
        file.write(b"0" * 10**6)
    assert list(tmp_path.iterdir()) == []


def test_what_the_system_said_is_raised_when_a_library_hides_it(tmp_path):
    (tmp_path / f".file.{os.getpid()}.partial").symlink_to("/dev/full")

    def write():
        with whole_file(tmp_path / "file") as file:
            try:
                file.raw.write(b"0")
            except OSError:
                raise RuntimeError("unexpected pos 896 vs 854") from None

    with pytest.raises(WriteError, match=r"file: cannot be written \(No space left on device\)"):
        write()


def test_results_of_a_full_disk_name_their_folder(tiny, tmp_path, monkeypatch):
    from specreg import evaluation, modalities

    config = tiny()
    Trainer(config, tmp_path, console=QUIET).run()
    truth = evaluation.load_truth(config)
    kind = type(modalities.of(config))

    def full(self, samples, folder):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(kind, "save", full)
    with pytest.raises(WriteError, match=r"samples: cannot be written \(No space left on device\)"):
        evaluation.evaluate(tmp_path, truth)
    assert not (tmp_path / "results.json").exists()
