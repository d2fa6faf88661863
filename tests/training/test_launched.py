"""Two processes under torchrun: stopped, refused and resumed as one process is; its last lines say why."""

import json
import signal
import time

from commands import lines, save_config, start, wait_for
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


def test_the_launchers_last_lines_say_what_was_wrong_and_one_process_speaks(tiny, tmp_path):
    save_config(tmp_path, tiny("training.batch_size=7"))
    run = start(tmp_path, "train", "tiny.yaml", processes=2)
    _, said = run.communicate(timeout=120)
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
