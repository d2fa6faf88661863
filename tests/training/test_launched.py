"""Two processes under torchrun: stopped, refused and resumed as one process is; its last lines say why."""

import json
import os
import re
import signal
import time
from pathlib import Path

import pytest

from commands import LAUNCHERS, lines, save_config, start, wait_for
from specreg.training import checkpoint


def test_both_processes_stop_after_the_same_step_which_is_saved_and_resumed(tiny, tmp_path):
    options = ("spectral.weight=auto", "training.checkpoint_every=100000", "training.accumulate=2")
    save_config(tmp_path, tiny("training.steps=100000", "training.decay=constant", *options))
    run = start(tmp_path, "train", "tiny.yaml", processes=2)
    folder = tmp_path / "runs" / "tiny"
    wait_for(lambda: lines(folder / "metrics.jsonl") > 3, run, seconds=120)
    began = time.monotonic()
    run.send_signal(signal.SIGTERM)
    _, said = run.communicate(timeout=30)
    assert time.monotonic() - began < 20  # 10 s are promised; CI may be busy
    stopped = checkpoint.load(checkpoint.latest(folder / "checkpoints")).step
    assert stopped == lines(folder / "metrics.jsonl")
    assert f"Stopped by SIGTERM: step {stopped} is saved in runs/tiny. Run the same command again to resume." in said
    assert said.count("Stopped by") == 1
    again = start(tmp_path, "train", "tiny.yaml", f"training.steps={stopped + 3}", processes=2)
    again.communicate(timeout=120)
    assert again.returncode == 0
    steps = [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(1, stopped + 4))


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_the_launchers_last_lines_say_what_was_wrong_and_one_process_speaks(tiny, tmp_path, launcher):
    save_config(tmp_path, tiny("training.batch_size=7"))
    run = start(tmp_path, "train", "tiny.yaml", processes=2, launcher=launcher)
    _, said = run.communicate(timeout=120)
    assert run.returncode == 1  # the launcher's own code for any fault
    assert re.search(r"exitcode +: 2 ", said)  # the process's
    sentence = "error: training.batch_size: expected a multiple of 2 (accumulate × processes); got 7"
    assert sentence in said.splitlines()[-2]  # before a ruler
    assert said.splitlines().count(sentence) == 1  # by rank 0, on a line of its own


def test_a_second_launch_on_one_folder_is_refused(tiny, tmp_path):
    save_config(tmp_path, tiny("training.steps=100000"))
    first = start(tmp_path, "train", "tiny.yaml")
    wait_for(lambda: lines(tmp_path / "runs" / "tiny" / "metrics.jsonl") > 0, first)
    second = start(tmp_path, "train", "tiny.yaml", processes=2)
    _, said = second.communicate(timeout=120)
    assert "error: runs/tiny: another process trains this run; wait for it or stop it" in said.splitlines()[-2]
    first.kill()
    first.communicate()


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
@pytest.mark.parametrize("dead", [0, 1])
def test_a_dead_process_ends_the_run(tiny, tmp_path, dead):
    save_config(tmp_path, tiny("training.steps=100000", "training.checkpoint_every=2"))
    run = start(tmp_path, "train", "tiny.yaml", processes=2)
    folder = tmp_path / "runs" / "tiny"
    wait_for(lambda: lines(folder / "metrics.jsonl") > 3, run, seconds=120)
    os.kill(rank_of(run.pid, dead), signal.SIGKILL)
    began = time.monotonic()
    _, said = run.communicate(timeout=60)
    assert time.monotonic() - began < 20  # 10 s are promised; CI may be busy
    assert run.returncode == 1
    assert "Signal 9 (SIGKILL)" in said
    assert "Traceback" not in said.split("torch/distributed/elastic")[0]  # the launcher's own follows
    assert checkpoint.load(checkpoint.latest(folder / "checkpoints")).step >= 2


def rank_of(launcher, rank):
    """Return the process that a launcher started as `rank`."""
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parent = int(path.joinpath("stat").read_text().rpartition(")")[2].split()[1])
            if parent == launcher and f"\0RANK={rank}\0" in path.joinpath("environ").read_text():
                return int(path.name)
        except OSError:
            continue  # it ended meanwhile
    raise LookupError(f"no process has rank {rank}")
