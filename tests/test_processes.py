"""Processes of a launcher leave together."""

import os
import signal
import socket
import subprocess
import sys
import time

import pytest

SCRIPT = """
import sys
import time
from pathlib import Path

from specreg import processes

with processes.together():
    if processes.state().is_main_process:
        time.sleep(2)
        Path(sys.argv[1], "worked").touch()
assert Path(sys.argv[1], "worked").exists(), "left before the main process was done"
"""


def test_no_process_leaves_before_the_others_are_done(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    shown = subprocess.run(
        [*launch, str(tmp_path / "script.py"), str(tmp_path)], capture_output=True, text=True, timeout=120,
        env={**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert shown.returncode == 0, shown.stderr


ALONE = """
from specreg import _signals, processes

with _signals.at_once():
    print("joining", flush=True)
    processes.state()
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM that could be caught")
def test_a_process_whose_peer_died_before_it_joined_ends_when_told_to(tmp_path):
    """The main process is not there, so that this one tries to reach it for minutes, in a call of C."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        group = {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
        at = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(taken.getsockname()[1])}
        process = subprocess.Popen(
            [sys.executable, "-c", ALONE], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            env={**os.environ, "ACCELERATE_USE_CPU": "true", **group, **at},
        )  # fmt: skip
        try:
            assert process.stdout.readline() == "joining\n"
            time.sleep(2)
            process.terminate()
            assert process.wait(timeout=20) == -signal.SIGTERM  # 10 s are promised; CI may be busy
        finally:
            process.kill()
