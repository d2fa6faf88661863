import json

import pytest
import torch
from safetensors import safe_open

from specreg.training import checkpoint
from specreg.training.checkpoint import Checkpoint, CheckpointError


def make(step):
    weights = {"a": torch.full((3,), float(step)), "b": torch.eye(2).T}
    return Checkpoint(
        step,
        weights,
        {"a": torch.zeros(3), "b": torch.ones(2, 2)},
        {"state": {0: torch.ones(1)}, "lr": 0.1},
        {"ema_updates": step},
    )


def test_round_trip_with_config_in_the_metadata(tmp_path):
    path = checkpoint.save(tmp_path, make(5), config="seed: 1\n", keep=2)
    loaded = checkpoint.load(path)
    assert loaded.step == 5
    assert loaded.state == {"ema_updates": 5}
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
    sums = json.loads((path / "checksums.json").read_text())
    sums["optimizer.pt"] = checkpoint._sha256(path / "optimizer.pt")
    (path / "checksums.json").write_text(json.dumps(sums))
    with pytest.raises(Exception, match=r"weights_only|Weights only"):
        checkpoint.load(path)
