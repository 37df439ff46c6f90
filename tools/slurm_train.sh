#!/usr/bin/env bash
# Train as a Slurm job:
# slurm_train.sh PARTITION JOB_NAME CONFIG [train.py options]
#
#   GPUS=8 GPUS_PER_NODE=8 CPUS_PER_TASK=5 SRUN_ARGS='...'   the request
#   PYTHON=python                                            the interpreter
#   APA_TOOL=train.py                                        what is started
set -euo pipefail

if [ $# -lt 3 ]; then
  echo 'usage: slurm_train.sh PARTITION JOB_NAME CONFIG [train.py options]' >&2
  exit 2
fi
partition=$1
job_name=$2
config=$3
shift 3
gpus=${GPUS:-8}
gpus_per_node=${GPUS_PER_NODE:-8}

# Waiting threads that spin take the cores from those that work.
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-PASSIVE}
# SRUN_ARGS is a list of words on purpose.
# shellcheck disable=SC2086
exec srun -p "$partition" --job-name="$job_name" \
  --gres="gpu:$gpus_per_node" --ntasks="$gpus" \
  --ntasks-per-node="$gpus_per_node" \
  --cpus-per-task="${CPUS_PER_TASK:-5}" --kill-on-bad-exit=1 \
  ${SRUN_ARGS:-} \
  "${PYTHON:-python}" -u "$(dirname "${BASH_SOURCE[0]}")/${APA_TOOL:-train.py}" \
  "$config" --launcher slurm "$@"
