"""Runs that are told to stop: saved and gone within seconds, in a sentence, and the same bits after they went on."""

import os
import re
import signal
import time
from pathlib import Path

import pytest
import torch
from rich.console import Console

from commands import lines, save_config, start, wait_for
from specreg._signals import Stopped, StopRequest, noted
from specreg.training import checkpoint
from specreg.training.trainer import Trainer

QUIET = Console(quiet=True)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_saves_the_step_and_says_how_to_resume(tiny, tmp_path, name):
    save_config(tmp_path, tiny("training.steps=1000000", "training.checkpoint_every=1000000", "training.workers=1"))
    run = start(tmp_path, "train", "tiny.yaml")
    folder = tmp_path / "runs" / "tiny"
    wait_for(lambda: lines(folder / "metrics.jsonl") > 3, run)
    began = time.monotonic()
    os.killpg(run.pid, getattr(signal, name))  # as a terminal and Slurm do: workers of the data loader have it too
    _, said = run.communicate(timeout=90)
    assert time.monotonic() - began < 20  # 10 s are promised; CI may be busy
    assert run.returncode == 128 + getattr(signal, name)
    saved = checkpoint.load(checkpoint.latest(folder / "checkpoints")).step
    assert said.strip() == (
        f"Stopped by {name}: step {saved} is saved in runs/tiny. Run the same command again to resume."
    )
    assert saved == lines(folder / "metrics.jsonl")


def test_a_run_that_was_stopped_ends_as_one_that_was_not(tiny, tmp_path):
    config = tiny("training.steps=12", "training.checkpoint_every=100", "spectral.weight=auto")
    Trainer(config, tmp_path / "whole", console=QUIET).run()
    trainer = Trainer(config, tmp_path / "parts", console=QUIET)
    step = trainer.train_step

    def stop_in_step_5(parts, **options):
        if trainer.step == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(parts, **options)

    trainer.train_step = stop_in_step_5
    with pytest.raises(Stopped, match=r"^Stopped by SIGTERM: step 5 is saved in") as stop:
        trainer.run()
    assert stop.value.exit_code == 143
    trainer.close()
    again = Trainer(config, tmp_path / "parts", console=QUIET)
    assert again.step == 5
    again.run()
    whole, parts = (checkpoint.load(tmp_path / name / "checkpoints" / "step-00000012") for name in ("whole", "parts"))
    assert all(torch.equal(whole.model[name], parts.model[name]) for name in whole.model)
    assert all(torch.equal(whole.ema[name], parts.ema[name]) for name in whole.ema)
    assert whole.state["regularizer"] == parts.state["regularizer"]


def test_signals_do_as_before_outside_of_a_run(tiny, tmp_path):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    Trainer(tiny(), tmp_path, console=QUIET).run()
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before


def test_a_signal_that_is_ignored_on_purpose_stays_ignored():
    """nohup ignores SIGHUP, a shell without job control SIGINT of what it starts in the background."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with noted() as request:
            os.kill(os.getpid(), signal.SIGHUP)
        assert request.number is None
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_repeated_signal_stops_at_once_and_an_echo_does_not(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    request = StopRequest()
    request.hear(signal.SIGINT)
    clock[0] += 0.5  # a launcher passes on what the terminal has sent to all
    request.hear(signal.SIGTERM)
    assert request.number == signal.SIGINT
    clock[0] += 1.0
    with pytest.raises(Stopped) as stop:
        request.hear(signal.SIGINT)
    assert stop.value.exit_code == 130


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("seconds", [0.05, 1.5])
@pytest.mark.parametrize("command", ["train", "compare"])
def test_an_interrupt_before_training_has_no_traceback(tiny, tmp_path, command, name, seconds):
    """While importing, while reading data, while workers of a comparison start: whatever it hits, no traceback."""
    save_config(tmp_path, tiny("training.steps=1000000"))
    run = start(tmp_path, command, "tiny.yaml", *(["--jobs", "2"] if command == "compare" else []))
    run.stdout.readline()
    time.sleep(seconds)
    os.killpg(run.pid, getattr(signal, name))
    out, said = run.communicate(timeout=90)
    assert "Traceback" not in out + said
    assert run.returncode in (128 + getattr(signal, name), -getattr(signal, name))
    assert len(re.findall("Stopped", said)) <= 1


def cells(folder):
    return sorted(path.parent.name for path in folder.glob("*/metrics.jsonl"))


def alive(group):
    """Return the processes of a process group that have not ended."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, its_group = path.read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue  # it ended meanwhile
        if int(its_group) == group and state != "Z":
            found.append(int(path.parent.name))
    return found


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGKILL"])
def test_workers_of_a_comparison_end_with_their_parent_and_save_their_step(tiny, tmp_path, name):
    """The signal is sent to the parent alone; cells that had not begun stay so, and those that had are saved."""
    save_config(tmp_path, tiny("training.steps=100000", "training.checkpoint_every=100000"))
    run = start(tmp_path, "compare", "tiny.yaml", "--jobs", "2", "--seeds", "3", "--no-calibrated")
    folder = tmp_path / "runs" / "tiny"
    wait_for(lambda: sum(lines(path) > 3 for path in folder.glob("*/metrics.jsonl")) == 2, run, seconds=120)
    os.kill(run.pid, getattr(signal, name))
    began = time.monotonic()
    while alive(run.pid):
        assert time.monotonic() - began < 20  # 10 s are promised; CI may be busy
        time.sleep(0.05)
    _, said = run.communicate(timeout=10)
    assert "Traceback" not in said
    if name != "SIGKILL":
        assert run.returncode == 128 + getattr(signal, name)
        assert said.splitlines()[-1] == "Stopped. Run the same command again to resume from the last checkpoint."
    assert len(cells(folder)) == 2
    for cell in cells(folder):
        saved = checkpoint.load(checkpoint.latest(folder / cell / "checkpoints")).step
        assert saved == lines(folder / cell / "metrics.jsonl")
