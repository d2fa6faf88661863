"""Ctrl-C while a command still imports: one word and no traceback, whatever the import makes of exceptions."""

import os
import signal
import subprocess
import sys
import time

import pytest

from commands import SOURCE

SLOW = """
import time
print("importing", flush=True)
try:
    time.sleep(60)
except BaseException as stop:
    raise ImportError("hidden") from stop
"""


def interrupted(folder, package, *program, number=signal.SIGINT, environment=None):
    """Start a program with a package that takes long to import, send a signal meanwhile; return exit code and words."""
    (folder / package).mkdir()
    (folder / package / "__init__.py").write_text(SLOW)
    path = os.pathsep.join([str(folder), str(SOURCE)])
    process = subprocess.Popen(
        [sys.executable, *program], env={**os.environ, "PYTHONPATH": path, **(environment or {})}, cwd=folder,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),
    )  # fmt: skip
    assert process.stdout.readline() == "importing\n"
    time.sleep(0.1)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    return process.returncode, said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_while_torch_is_imported(tmp_path, number):
    assert interrupted(tmp_path, "torch", "-m", "specreg", "recipes", number=number) == (128 + number, "Stopped.\n")


def test_a_signal_while_the_script_imports_torch(tmp_path):
    script = tmp_path / "specreg"
    script.write_text("from specreg.__main__ import main\nmain()\n")
    bin_folder = tmp_path / "slow"
    bin_folder.mkdir()
    assert interrupted(bin_folder, "torch", str(script), "recipes") == (130, "Stopped.\n")


def test_a_signal_while_a_command_imports_more(tmp_path):
    assert interrupted(tmp_path, "accelerate", "-m", "specreg", "demo") == (130, "Stopped.\n")


def test_one_process_of_a_launcher_speaks(tmp_path):
    assert interrupted(tmp_path, "torch", "-m", "specreg", "demo", environment={"RANK": "1"}) == (130, "")


def test_other_programs_have_the_exception(tmp_path):
    code, said = interrupted(tmp_path, "torch", "-c", "import specreg")
    assert code == 1
    assert said.strip().endswith("ImportError: hidden")
