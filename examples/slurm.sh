#!/bin/bash
#SBATCH --job-name=specreg
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --time=12:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:TERM@120
# One launcher a node. Two minutes before the time is over, and when the job is preempted, Slurm sends SIGTERM to this
# shell; the run saves its step, and the job is queued again: the same command resumes. Usage:
#   sbatch examples/slurm.sh train checkerboard training.steps=100000
set -u

stop() {
    stopped=1
    scancel --signal=TERM "$SLURM_JOB_ID" # all steps of the job, without this shell
}
trap stop TERM

head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
srun torchrun --nnodes="$SLURM_NNODES" --nproc-per-node="$SLURM_GPUS_ON_NODE" \
    --rdzv-backend=c10d --rdzv-endpoint="$head:29500" --rdzv-id="$SLURM_JOB_ID" \
    -m specreg "$@" &
work=$!

wait "$work"
code=$?
if [[ -n ${stopped-} ]]; then
    wait "$work" # the first one ended with the signal
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
