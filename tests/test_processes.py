"""Processes of a launcher leave together."""

import os
import subprocess
import sys

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
