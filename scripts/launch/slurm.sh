#!/usr/bin/env bash
#SBATCH --job-name=omgsr
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@180
#SBATCH --requeue
#SBATCH --open-mode=append
#
# Trains on Slurm, one process on each node with all of its GPUs:
#
#   sbatch --nodes=4 scripts/launch/slurm.sh --config configs/omgsr_s_512.py --workdir DIR ...
#
# The arguments are those of scripts/train.py; DIR is on a disk that all nodes see. Three minutes
# before the time is over the run saves and ends with 3, and the job is queued again, until the run
# is finished. Options of sbatch on the command line come before those above. Run it in the
# environment in which omgsr-jax is installed: sbatch passes that on.
set -uo pipefail
cd "${SLURM_SUBMIT_DIR:?start this with sbatch}"

srun --ntasks-per-node=1 python scripts/train.py "$@"
code=$?
if [ "$code" = 3 ]; then
    echo "stopped before the end: queued again" >&2
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
