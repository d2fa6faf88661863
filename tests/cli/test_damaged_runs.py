"""Commands that read a run whose newest checkpoint is damaged take the one before, and say so; they change nothing."""

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from specreg import _checks, modalities
from specreg.cli.checkpoints import convert
from specreg.cli.sample import sample
from specreg.diagnosis import subjects
from specreg.training import checkpoint
from specreg.training.trainer import Trainer


@pytest.fixture
def damaged(tiny, tmp_path):
    """A run with whole checkpoints of steps 2 and 4, of which the newer one's averaged weights are cut."""
    with Trainer(tiny("training.steps=4"), tmp_path / "run", console=Console(quiet=True)) as trainer:
        trainer.run()
    path = checkpoint.latest(tmp_path / "run" / "checkpoints") / "ema.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    return tmp_path / "run"


def said(run):
    path = run / "checkpoints" / "step-00000004" / "ema.safetensors"
    return f"{path}: does not match its checksum; step-00000002 is read instead"


def test_sample(damaged, tmp_path, capsys):
    sample(damaged, tmp_path / "samples", count=1)
    assert f"warning: {said(damaged)}" in capsys.readouterr().err
    assert len(list((tmp_path / "samples").glob("*.png"))) == 1
    assert sorted(path.name for path in (damaged / "checkpoints").iterdir()) == ["step-00000002", "step-00000004"]


def test_convert(damaged, tiny, tmp_path, capsys, monkeypatch):
    exported = []
    modality = type(modalities.of(tiny()))
    monkeypatch.setattr(modality, "export_network", lambda *arguments: exported.append(arguments[-3:]) or "network")
    convert(damaged, tmp_path / "net.safetensors")
    assert f"warning: {said(damaged)}" in capsys.readouterr().err
    network, _, step = exported[0]
    before = load_file(damaged / "checkpoints" / "step-00000002" / "ema.safetensors")
    assert step == 2
    torch.testing.assert_close(dict(network.state_dict()), before, rtol=0, atol=0)


def test_diagnose(damaged, monkeypatch):
    monkeypatch.setattr(_checks, "_WARNED", set())
    with pytest.warns(UserWarning, match="is read instead") as warned:
        subject = subjects.open_subject(damaged, None, count=4)
    assert str(warned[0].message) == said(damaged)
    assert subject.title == "run, step 2"
