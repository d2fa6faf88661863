import contextlib
import json
import os
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from specreg._files import sha256
from specreg.training import checkpoint
from specreg.training.checkpoint import Checkpoint, CheckpointError


def make(step):
    weights = {"a": torch.full((3,), float(step)), "b": torch.eye(2).T}
    return Checkpoint(
        step,
        weights,
        {"a": torch.zeros(3), "b": torch.ones(2, 2)},
        {"state": {0: torch.ones(1)}, "lr": 0.1},
        {"ema_updates": step, "shape": [1, 2, 2], "seconds": 1.5},
    )


def test_round_trip_with_config_in_the_metadata(tmp_path):
    path = checkpoint.save(tmp_path, make(5), config="seed: 1\n", keep=2)
    loaded = checkpoint.load(path)
    assert loaded.step == 5
    assert loaded.state == make(5).state
    assert loaded.optimizer["lr"] == 0.1
    torch.testing.assert_close(loaded.model, make(5).model, rtol=0, atol=0)
    torch.testing.assert_close(loaded.ema, make(5).ema, rtol=0, atol=0)
    with safe_open(path / "ema.safetensors", "pt") as file:
        assert file.metadata() == {"config": "seed: 1\n", "step": "5"}


def test_only_the_last_are_kept(tmp_path):
    for step in (1, 2, 10):
        checkpoint.save(tmp_path, make(step), config="", keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000002", "step-00000010"]
    assert checkpoint.latest(tmp_path).name == "step-00000010"
    assert checkpoint.latest(tmp_path / "none") is None


def test_a_torn_write_is_not_a_checkpoint(tmp_path):
    checkpoint.save(tmp_path, make(1), config="", keep=2)
    (tmp_path / ".step-00000002.partial").mkdir()
    assert checkpoint.latest(tmp_path).name == "step-00000001"
    assert checkpoint.save(tmp_path, make(2), config="", keep=2).name == "step-00000002"


def test_damage_is_named(tmp_path):
    path = checkpoint.save(tmp_path, make(1), config="", keep=2)
    data = bytearray((path / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (path / "model.safetensors").write_bytes(data)
    with pytest.raises(CheckpointError, match=r"model\.safetensors: does not match its checksum"):
        checkpoint.load(path)
    (path / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model\.safetensors: is missing"):
        checkpoint.load(path)


def test_optimizer_state_cannot_run_code(tmp_path):
    path = checkpoint.save(tmp_path, make(1), config="", keep=2)

    class Evil:
        def __reduce__(self):
            return (print, ("run",))

    torch.save({"state": Evil()}, path / "optimizer.pt")
    resign(path)
    with pytest.raises(CheckpointError) as refused:
        checkpoint.load(path)
    assert str(refused.value) == (
        f"{path / 'optimizer.pt'}: holds something else than tensors and numbers, and is not loaded"
    )


def resign(path):
    """Write the checksums that the files of a checkpoint have now."""
    sums = {name: sha256(path / name) for name in checkpoint.FILES}
    (path / "checksums.json").write_text(json.dumps(sums))


def flip(path, at=-1):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def drop_checksum(path):
    sums = json.loads((path / "checksums.json").read_text())
    del sums["model.safetensors"]
    (path / "checksums.json").write_text(json.dumps(sums))
    flip(path / "model.safetensors")


def without(name):
    def drop(path):
        state = json.loads((path / "state.json").read_text())
        del state[name]
        (path / "state.json").write_text(json.dumps(state))
        resign(path)

    return drop


def with_nan(name):
    def spoil(path):
        tensors = load_file(path / name)
        tensors["a"][1] = float("nan")
        save_file(tensors, path / name)
        resign(path)

    return spoil


def inf_in_optimizer(path):
    torch.save({"state": {0: {"exp_avg_sq": torch.tensor([1.0, float("inf")])}}}, path / "optimizer.pt")
    resign(path)


DAMAGE = {
    **{f"flipped {n}": (lambda p, n=n: flip(p / n), rf"{n}: does not match its checksum") for n in checkpoint.FILES},
    **{f"no {n}": (lambda p, n=n: (p / n).unlink(), rf"{n}: is missing") for n in checkpoint.FILES},
    **{f"empty {n}": (lambda p, n=n: (p / n).write_bytes(b""), rf"{n}: does not match") for n in checkpoint.FILES},
    "no checksums": (lambda p: (p / "checksums.json").unlink(), r"checksums\.json: is missing"),
    "empty checksums": (lambda p: (p / "checksums.json").write_text("{}"), r"expected the checksum of model\.safeten"),
    "checksums of zeros": (
        lambda p: (p / "checksums.json").write_bytes(b"\0" * 300),
        r"checksums\.json: cannot be read",
    ),
    "a list of checksums": (lambda p: (p / "checksums.json").write_text("[]"), r"expected the checksum of model"),
    "a checksum less": (drop_checksum, r"expected the checksum of model\.safetensors"),
    "no step": (without("step"), r"state\.json: expected 'step'"),
    "no updates": (without("ema_updates"), r"state\.json: expected 'ema_updates'"),
    "nan weight": (with_nan("model.safetensors"), r"the weight 'a' is not finite \(1 of 3 values\)"),
    "nan average": (with_nan("ema.safetensors"), r"the averaged weight 'a' is not finite \(1 of 3 values\)"),
    "infinite moment": (inf_in_optimizer, r"optimizer's state '0\.exp_avg_sq' is not finite \(1 of 2 values\)"),
    "no files": (lambda p: [f.unlink() for f in p.iterdir()], r"checksums\.json: is missing"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_checkpoint_is_set_aside_with_a_warning_and_the_one_before_is_taken(tmp_path, kind):
    damage, words = DAMAGE[kind]
    for step in (1, 2):
        checkpoint.save(tmp_path, make(step), config="", keep=2)
    damage(tmp_path / "step-00000002")
    said = []
    path, found = checkpoint.newest_whole(tmp_path, said.append)
    assert (path.name, found.step) == ("step-00000001", 1)
    assert re.search(words, said[0])
    assert said[0].endswith("step-00000002 is set aside as damaged-step-00000002, resuming from step-00000001")
    assert "weights_only" not in said[0]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["damaged-step-00000002", "step-00000001"]


def test_all_checkpoints_damaged_is_said(tmp_path):
    checkpoint.save(tmp_path, make(1), config="", keep=2)
    flip(tmp_path / "step-00000001" / "model.safetensors")
    said = []
    assert checkpoint.newest_whole(tmp_path, said.append) is None
    assert said[0].endswith("no checkpoint is left: training starts anew")


def test_a_state_that_is_not_finite_is_never_saved_and_pushes_nothing_out(tmp_path):
    checkpoint.save(tmp_path, make(1), config="", keep=1)
    bad = make(2)
    bad.ema["a"][0] = float("inf")
    with pytest.raises(ValueError, match=r"step 2: the averaged weight 'a' is not finite"):
        checkpoint.save(tmp_path, bad, config="", keep=1)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]


def test_one_state_has_the_same_bytes_each_time(tmp_path):
    """The library writes the two entries of the metadata in either order; twelve files would all agree 1 in 2,000."""
    seen = {name: set() for name in checkpoint.FILES}
    for n in range(12):
        path = checkpoint.save(tmp_path / str(n), make(3), config="title: 'é\x1f'\n", keep=1)
        for name in seen:
            seen[name].add((path / name).read_bytes())
    assert {name: len(found) for name, found in seen.items()} == dict.fromkeys(checkpoint.FILES, 1)


@pytest.mark.parametrize("moment", range(20))
def test_a_death_while_a_step_is_saved_again_leaves_that_step(tmp_path, monkeypatch, moment):
    """With keep=1 the step that is written again is the only one: it must be there after a death at any rename."""
    checkpoint.save(tmp_path, make(1), config="", keep=1)

    class Death(BaseException):
        pass

    calls = []

    def dying(real):
        def call(*args, **options):
            calls.append(real)
            if len(calls) > moment:
                raise Death
            return real(*args, **options)

        return call

    for owner, name in ((Path, "rename"), (Path, "replace"), (shutil, "rmtree"), (checkpoint, "sync"), (os, "fsync")):
        monkeypatch.setattr(owner, name, dying(getattr(owner, name)))
    with contextlib.suppress(Death):
        checkpoint.save(tmp_path, make(1), config="", keep=1)
    monkeypatch.undo()
    path, _ = checkpoint.newest_whole(tmp_path, pytest.fail)
    assert path.name == "step-00000001"
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000001"]


def test_the_folder_is_synced_after_the_rename(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(
        checkpoint, "sync", lambda path: synced.append((path.name, (tmp_path / "step-00000001").exists()))
    )
    checkpoint.save(tmp_path, make(1), config="", keep=1)
    assert {name for name, _ in synced} >= {*checkpoint.FILES, "checksums.json"}
    assert synced[-1] == (tmp_path.name, True)


def test_readers_take_the_averaged_weights_before_a_damaged_one_and_change_nothing(tmp_path):
    for step in (1, 2, 3):
        checkpoint.save(tmp_path, make(step), config="", keep=3)
    flip(tmp_path / "step-00000003" / "ema.safetensors")
    (tmp_path / "step-00000002" / "state.json").unlink()
    said = []
    weights, state = checkpoint.newest_averaged(tmp_path, said.append)
    assert (state["step"], weights["b"].tolist()) == (1, [[1.0, 1.0], [1.0, 1.0]])
    assert said == [
        f"{tmp_path / 'step-00000003' / 'ema.safetensors'}: does not match its checksum; step-00000001 is read instead",
        f"{tmp_path / 'step-00000002' / 'state.json'}: is missing from the checkpoint; step-00000001 is read instead",
    ]
    assert len(list(tmp_path.iterdir())) == 3
    flip(tmp_path / "step-00000001" / "ema.safetensors")
    with pytest.raises(CheckpointError, match=r"step-00000003.ema\.safetensors: does not match"):
        checkpoint.newest_averaged(tmp_path, said.append)


def test_readers_take_the_next_checkpoint_where_one_is_replaced_meanwhile(tmp_path, monkeypatch):
    checkpoint.save(tmp_path, make(1), config="", keep=1)
    load, said = checkpoint.load_ema, []

    def replaced_first(path):
        if path.name == "step-00000001":
            checkpoint.save(tmp_path, make(2), config="", keep=1)
        return load(path)

    monkeypatch.setattr(checkpoint, "load_ema", replaced_first)
    assert checkpoint.newest_averaged(tmp_path, said.append)[1]["step"] == 2
    assert said == []
    assert checkpoint.newest_averaged(tmp_path / "none", said.append) is None
