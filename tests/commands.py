"""Runs of the command in processes of their own, for tests that stop, kill or race them."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import specreg
from specreg.config import dump

SOURCE = Path(specreg.__file__).parents[1]


ON_CPU = {"ACCELERATE_USE_CPU": "1"}
LAUNCHERS = {
    "torchrun": ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node={}"],
    "accelerate": ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes={}", "--main_process_port=0"],
}
"""Commands that start several processes; on CPUs too where `ACCELERATE_USE_CPU` says so."""
READY = "from specreg.__main__ import main; print('ready', flush=True); main()"


def start(folder, *arguments, before=None, processes=1, launcher="torchrun"):
    """Start `specreg ARGUMENTS` in `folder`, in a process group of its own, with its words in pipes.

    It prints "ready" once torch is loaded and the command itself begins. Several processes start under the launcher.
    Signals have their usual effect, also where the tests run under nohup, which commands respect. `before` is called in
    the new process.
    """

    def prepare():
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        if before is not None:
            before()

    program = ["-c", READY]
    if processes > 1:
        program = [*(word.format(processes) for word in LAUNCHERS[launcher]), "-m", "specreg"]
    return subprocess.Popen(
        [sys.executable, *program, *map(str, arguments)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1", "COLUMNS": "400", **ON_CPU},
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        preexec_fn=prepare,
    )  # fmt: skip


def save_config(folder, config):
    """Write a config as `tiny.yaml` in `folder`."""
    (folder / "tiny.yaml").write_text(dump(config))


def wait_for(condition, process, *, seconds=60):
    """Wait until `condition()` is true while a process runs."""
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)


def lines(path):
    """Return the number of lines of a file, 0 where there is none."""
    return path.read_text().count("\n") if path.exists() else 0
