"""Sound through the command as a user types it."""

import json
import sys

import numpy as np
import pytest
import soundfile

from specreg import cli
from specreg.models.diffwave_checkpoint import load_diffwave

QUICK = ["training.steps=2", "training.batch_size=2", "sampling.count=2", "data.held_out=['0', '1']"]


@pytest.fixture
def specreg(folder, monkeypatch, capsys):
    """Run the command in this process, in the folder; returns its exit code and what it said on stderr."""
    monkeypatch.chdir(folder)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["specreg", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            cli.run()
        return stop.value.code or 0, capsys.readouterr().err.replace("\n", " ")

    return run


@pytest.fixture(scope="module")
def folder(tmp_path_factory, save_tiny_sound):
    path = tmp_path_factory.mktemp("work")
    save_tiny_sound(path)
    return path


def test_train_goes_on_and_exports_and_samples(folder, specreg):
    command = ["train", "diffwave", "--checkpoint", "net.pt", "--data", "clips", "--loss", "amplitude", *QUICK]
    code, said = specreg(*command)
    assert code == 0, said
    assert "not measured: FAD. FAD needs" in said
    run = folder / "runs" / "diffwave-amplitude"
    results = json.loads((run / "results.json").read_text())
    assert (results["step"], results["arm"], results["samples"]) == (2, "amplitude", 2)
    assert results["sampler"] == "DiffWave's fast sampler, 6 steps"
    assert "data:audio/wav" in (run / "report.html").read_text()
    log = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert log[-1]["lambda"] == pytest.approx(1e-5)

    code, said = specreg(*command, "training.steps=3")
    assert code == 0, said
    assert json.loads((run / "results.json").read_text())["step"] == 3

    code, said = specreg("convert", run, "tuned.pt")
    assert code == 0, said
    tuned, start = load_diffwave(folder / "tuned.pt"), load_diffwave(folder / "net.pt")
    assert tuned.step == 3
    assert tuned.other_params == {"batch_size": 2, "learning_rate": 2e-4, "max_grad_norm": None}
    assert tuned.model.config == start.model.config
    moved = [
        (a - b).abs().max().item() for a, b in zip(tuned.model.parameters(), start.model.parameters(), strict=True)
    ]
    assert 1e-4 < max(moved) <= 3 * 2e-4 * 1.01  # three steps of Adam

    code, said = specreg("sample", run, "--count", 1, "--seed", 0, "--out", "wavs")
    assert code == 0, said
    ours, _ = soundfile.read(folder / "wavs" / "0.wav")
    scored, _ = soundfile.read(run / "samples" / "0.wav")
    assert np.abs(ours - scored).max() < 1e-3


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["train", "diffwave", "--data", "clips", *QUICK], "model.checkpoint: expected a DiffWave .pt"),
        (["train", "diffwave", "--checkpoint", "net.pt", *QUICK], "data.path: expected a folder of sound files"),
        (
            ["train", "diffwave", "--checkpoint", "net.pt", "--data", "clips"],
            "data.held_out: expected file-name patterns",
        ),
        (["train", "diffwave", "--checkpoint", "no.pt", "--data", "clips", *QUICK], "no such checkpoint: no.pt"),
        (["reproduce", "table2", "--data", "clips"], "--checkpoint: table2 expects the DiffWave .pt"),
        (["reproduce", "table3"], "table1, table2"),
    ],
)
def test_bad_input_is_one_sentence(specreg, arguments, sentence):
    code, said = specreg(*arguments, "--out", "elsewhere")
    assert code == 2
    assert sentence in said
