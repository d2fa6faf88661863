"""Killing runs, a few times: what is left is as if they had not been killed."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks.reliability import kill

from commands import SOURCE

HERE = Path(kill.__file__).parents[2]


def run(*arguments):
    """Run the script in a process of its own: it forks, and torch has threads here."""
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.reliability.kill", *arguments],
        capture_output=True, text=True, timeout=280, cwd=HERE,
        env={**os.environ, "PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_runs_that_are_killed_end_as_those_that_are_not():
    shown = run("--kinds", "two", "--kills", "5", "--seed", "1")
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert "5 kills, 0 differences" in shown.stdout.splitlines()[-1]
    assert re.search(r"[1-9]\d* ended", shown.stdout), shown.stdout  # how many depends on the machine's speed


def test_contents_leave_times_out_and_nothing_else(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "seconds_per_step": 0.1}\n')
    (tmp_path / "state.json").write_text('{"step": 1, "seconds": 2.0, "regularizer": {"log_weight": 3.0}}')
    (tmp_path / "checksums.json").write_text('{"state.json": "a", "model.safetensors": "b"}')
    (tmp_path / "model.safetensors").write_bytes(b"\x01")
    assert kill.contents(tmp_path) == {
        "metrics.jsonl": [{"step": 1}],
        "state.json": {"step": 1, "regularizer": {"log_weight": 3.0}},
        "checksums.json": {"model.safetensors": "b"},
        "model.safetensors": b"\x01",
    }


def test_a_difference_is_one_line_a_file():
    whole = {"a": b"1", "b": [1], "c": {}}
    assert kill.differences(whole, {"a": b"1", "b": [2], ".x.partial": b""}) == [
        ".x.partial: is left over",
        "b: differs",
        "c: is missing",
    ]
