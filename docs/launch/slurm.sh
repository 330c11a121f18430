#!/usr/bin/env bash
# One process for each GPU: under Slurm, JAX gives a process the GPU of its SLURM_LOCALID.
#   WORKDIR=/shared/runs/b32 sbatch --nodes 4 docs/launch/slurm.sh --config.steps=100000
# Has been run with a stand-in for srun, on CPU; not on a Slurm cluster.
#SBATCH --job-name=mmjax
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=12
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@180
#SBATCH --requeue
#SBATCH --open-mode=append
# --signal: three minutes before the time limit the run saves and exits with 143.
set -euo pipefail

: "${WORKDIR:?a folder that all nodes share}"
CONFIG=${CONFIG:-configs/clip.py:vit_b32}
MMJAX=${MMJAX:-.venv/bin/mmjax}

status=0
srun --kill-on-bad-exit=1 "$MMJAX" train --distributed auto \
  --config "$CONFIG" --workdir "$WORKDIR" "$@" || status=$?

# Stopped and saved, or a node lost: back into the queue, to go on where it was saved.
case $status in
  75 | 137 | 143) scontrol requeue "$SLURM_JOB_ID" ;;
esac
exit "$status"
