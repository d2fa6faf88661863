"""Two at once: a second process that trains in a folder is refused, and what killed processes left is cleared."""

import io
import json
import os
import signal
import subprocess
import sys

import pytest
import torch
from rich.console import Console

from commands import SOURCE, lines, save_config, start, wait_for
from specreg.compare import run as cells
from specreg.config import ConfigError
from specreg.training import checkpoint
from specreg.training.run_folder import Claim
from specreg.training.trainer import Trainer

QUIET = Console(quiet=True)


def claimed_elsewhere(folder):
    """Return whether another process could claim a folder."""
    code = "import pathlib, sys; from specreg.training.run_folder import Claim\n"
    code += "print(Claim(pathlib.Path(sys.argv[1])).acquire())"
    command = [sys.executable, "-c", code, str(folder)]
    found = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": str(SOURCE)}
    )
    return found.stdout.strip() == "True"


def test_a_second_command_on_one_folder_is_refused_and_the_first_goes_on(tiny, tmp_path):
    """A sweep of seeds that forgot to name its runs: each of the others ends with a sentence and exit code 2."""
    save_config(tmp_path, tiny("training.steps=100000", "training.checkpoint_every=100000"))
    first = start(tmp_path, "train", "tiny.yaml", "seed=0")
    log = tmp_path / "runs" / "tiny" / "metrics.jsonl"
    wait_for(lambda: lines(log) > 3, first)
    others = [start(tmp_path, "train", "tiny.yaml", f"seed={seed}") for seed in (0, 9)]
    said = [other.communicate(timeout=60)[1].strip() for other in others]
    assert [other.returncode for other in others] == [2, 2]
    assert said[0] == (
        "error: runs/tiny: another process trains this run; wait for it or stop it, or choose another name, such as "
        "name=tiny-2"
    )
    assert said[1] == (
        "error: runs/tiny/config.yaml: this folder holds a run with seed = 0; got 9. "
        "Choose another name for the new run, such as name=tiny-2"
    )
    before = lines(log)
    wait_for(lambda: lines(log) > before, first)
    first.send_signal(signal.SIGTERM)
    first.communicate(timeout=90)
    steps = [json.loads(line)["step"] for line in log.read_text().splitlines()]
    assert steps == list(range(1, len(steps) + 1))


def test_of_commands_that_start_together_one_trains(tiny, tmp_path):
    save_config(tmp_path, tiny("training.steps=200"))
    runs = [start(tmp_path, "train", "tiny.yaml", f"seed={seed}") for seed in range(4)]
    said = [run.communicate(timeout=200)[1] for run in runs]
    codes = [run.returncode for run in runs]
    assert sorted(codes) == [0, 2, 2, 2], said
    assert all(
        text.count("\n") == 1 and "Traceback" not in text for text, code in zip(said, codes, strict=True) if code
    )
    winner = codes.index(0)
    folder = tmp_path / "runs" / "tiny"
    assert json.loads((folder / "results.json").read_text())["seed"] == winner
    assert f"seed: {winner}\n" in (folder / "config.yaml").read_text().splitlines(keepends=True)
    alone = Trainer(tiny("training.steps=200", f"seed={winner}"), tmp_path / "alone", console=QUIET)
    alone.run()
    ours, theirs = (checkpoint.load(checkpoint.latest(at / "checkpoints")).ema for at in (folder, tmp_path / "alone"))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_trainer_holds_its_folder_until_it_is_closed(tiny, tmp_path):
    with Trainer(tiny(), tmp_path / "run", console=QUIET) as trainer:
        trainer.run()
        assert not claimed_elsewhere(tmp_path / "run")
        Trainer(tiny(), tmp_path / "run", console=QUIET).close()  # within one process it is the same one
        assert not claimed_elsewhere(tmp_path / "run")
    assert claimed_elsewhere(tmp_path / "run")


def test_a_trainer_that_refuses_its_config_holds_nothing_and_writes_nothing(tiny, tmp_path):
    with pytest.raises(ValueError, match="one number for each of 2 levels"):
        Trainer(tiny("spectral.name=haar", "spectral.options={levels: 2, band_weights: [1, 2, 3]}"), tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_a_cell_that_is_trained_on_its_own_is_left_alone_by_comparisons(tiny, tmp_path):
    folder = tmp_path / "cell"
    with Trainer(tiny(), folder, console=QUIET):
        assert not claimed_elsewhere(folder)
    with cells._claim(folder) as mine, Trainer(tiny(), folder, console=QUIET):
        assert mine
    assert claimed_elsewhere(folder)


def test_a_killed_process_leaves_no_claim(tiny, tmp_path):
    save_config(tmp_path, tiny("training.steps=100000", "training.workers=1"))
    run = start(tmp_path, "train", "tiny.yaml")
    wait_for(lambda: lines(tmp_path / "runs" / "tiny" / "metrics.jsonl") > 0, run)
    run.kill()
    run.wait()
    assert Claim(tmp_path / "runs" / "tiny").acquire()


def test_what_killed_processes_left_half_written_is_removed(tiny, tmp_path):
    Trainer(tiny(), tmp_path, console=QUIET).run()
    (tmp_path / ".config.yaml.123.partial").write_text("half")
    (tmp_path / "checkpoints" / ".step-00000009.123.partial").mkdir()
    (tmp_path / "checkpoints" / ".step-00000006.123.replaced").mkdir()
    Trainer(tiny(), tmp_path, console=QUIET)
    left = [path.name for path in tmp_path.rglob(".*") if path.name not in (".locks",)]
    assert left == []


def test_a_run_resumes_from_the_checkpoint_before_a_damaged_one_with_the_same_bits(tiny, tmp_path):
    config = tiny("spectral.weight=auto")
    Trainer(config, tmp_path / "whole", console=QUIET).run()
    Trainer(config, tmp_path / "hurt", console=QUIET).run()
    newest = checkpoint.latest(tmp_path / "hurt" / "checkpoints")
    (newest / "optimizer.pt").write_bytes(b"")
    console = Console(record=True, width=400, file=io.StringIO())
    trainer = Trainer(config, tmp_path / "hurt", console=console)
    assert trainer.step == 4
    assert console.export_text().strip() == (
        f"warning: {newest / 'optimizer.pt'}: does not match its checksum; step-00000006 is set aside as "
        "damaged-step-00000006, resuming from step-00000004"
    )
    trainer.run()
    whole, hurt = (checkpoint.load(checkpoint.latest(tmp_path / at / "checkpoints")) for at in ("whole", "hurt"))
    assert all(torch.equal(whole.model[name], hurt.model[name]) for name in whole.model)
    logs = [
        [json.loads(line)["base"] for line in (tmp_path / at / "metrics.jsonl").read_text().splitlines()]
        for at in ("whole", "hurt")
    ]
    assert logs[0] == logs[1]
    names = ("model.safetensors", "ema.safetensors", "optimizer.pt")
    step = "checkpoints/step-00000006"
    assert all(
        (tmp_path / "whole" / step / n).read_bytes() == (tmp_path / "hurt" / step / n).read_bytes() for n in names
    )


def test_rates_that_destroy_the_weights_leave_the_finite_state(tiny, tmp_path):
    """keep=1 and a checkpoint a step: the state of step 2 is finite, that of step 3 is not and must not replace it."""
    config = tiny("training.keep=1", "training.checkpoint_every=1", "training.steps=20")
    trainer = Trainer(config, tmp_path / "run", console=QUIET)
    step = trainer.train_step

    def spoil(parts, **options):
        record = step(parts, **options)
        if trainer.step == 3:
            with torch.no_grad():
                next(trainer.model.parameters())[0] = float("nan")
        return record

    trainer.train_step = spoil
    with pytest.raises(RuntimeError, match=r"step 3: the weight '.*' is not finite .*; the last finite state is in"):
        trainer.run()
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-00000002"]
    assert checkpoint.non_finite(checkpoint.load(tmp_path / "run" / "checkpoints" / "step-00000002")) is None


def test_half_precision_without_a_gradient_scaler_is_refused(tiny, tmp_path):
    with pytest.raises(ConfigError, match=r"precision: fp16 needs a GPU; expected bf16 or no on a CPU; got fp16"):
        Trainer(tiny("training.precision=fp16"), tmp_path / "run", console=QUIET)
    assert list(tmp_path.iterdir()) == []
