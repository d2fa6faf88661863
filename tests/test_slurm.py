"""The Slurm script of the page on clusters, with stand-ins for Slurm: a run is stopped, queued again and resumed."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from commands import ON_CPU, SOURCE, lines, save_config, wait_for
from specreg.training import checkpoint

SCRIPT = Path(__file__).parents[1] / "examples" / "slurm.sh"
STAND_INS = {
    "srun": 'echo $$ > srun.pid; exec "$@"',
    "scancel": 'echo "scancel $*" >> asked; kill -TERM "$(cat srun.pid)"',
    "scontrol": 'if [[ $1 == show ]]; then echo localhost; else echo "scontrol $*" >> asked; fi',
    "torchrun": f'exec {sys.executable} -m torch.distributed.run "${{@/:29500/:$PORT}}"',
}


def submit(folder, *arguments):
    bin_folder = folder / "bin"
    bin_folder.mkdir(exist_ok=True)
    for name, body in STAND_INS.items():
        (bin_folder / name).write_text(f"#!/bin/bash\n{body}\n")
        (bin_folder / name).chmod(0o755)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    job = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n1", "SLURM_NNODES": "1", "SLURM_GPUS_ON_NODE": "2"}
    path = os.pathsep.join([str(bin_folder), os.environ["PATH"]])
    here = {"PATH": path, "PORT": port, "PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        ["bash", str(SCRIPT), *arguments], cwd=folder, env={**os.environ, **ON_CPU, **job, **here},
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        preexec_fn=lambda: [signal.signal(n, signal.SIG_DFL) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)],
    )  # fmt: skip


@pytest.mark.skipif(os.name == "nt", reason="needs bash")
def test_a_job_whose_time_is_over_saves_its_step_and_is_queued_again(tiny, tmp_path):
    save_config(tmp_path, tiny("training.steps=100000", "training.checkpoint_every=100000", "training.decay=constant"))
    job = submit(tmp_path, "train", "tiny.yaml")
    folder = tmp_path / "runs" / "tiny"
    wait_for(lambda: lines(folder / "metrics.jsonl") > 3, job, seconds=120)
    job.send_signal(signal.SIGTERM)  # to the shell alone, as --signal=B:TERM does
    _, said = job.communicate(timeout=60)
    assert (tmp_path / "asked").read_text() == "scancel --signal=TERM 7\nscontrol requeue 7\n"
    stopped = checkpoint.load(checkpoint.latest(folder / "checkpoints")).step
    assert f"step {stopped} is saved in runs/tiny" in said
    again = submit(tmp_path, "train", "tiny.yaml", f"training.steps={stopped + 2}")
    _, said = again.communicate(timeout=120)
    assert again.returncode == 0, said
    assert lines(folder / "metrics.jsonl") == stopped + 2
    assert (tmp_path / "asked").read_text().count("requeue") == 1


@pytest.mark.skipif(os.name == "nt", reason="needs bash")
def test_a_job_with_bad_input_is_not_queued_again(tiny, tmp_path):
    save_config(tmp_path, tiny("training.batch_size=7"))
    job = submit(tmp_path, "train", "tiny.yaml")
    _, said = job.communicate(timeout=120)
    assert job.returncode == 1
    assert "error: training.batch_size: expected a multiple of 2" in said
    assert not (tmp_path / "asked").exists()
