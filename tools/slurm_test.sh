#!/usr/bin/env bash
# Test as a Slurm job, with the variables of slurm_train.sh:
# slurm_test.sh PARTITION JOB_NAME CONFIG CHECKPOINT [test.py options]
set -euo pipefail

if [ $# -lt 4 ]; then
  echo 'usage: slurm_test.sh PARTITION JOB_NAME CONFIG CHECKPOINT' \
    '[test.py options]' >&2
  exit 2
fi
APA_TOOL=test.py exec bash "$(dirname "${BASH_SOURCE[0]}")/slurm_train.sh" "$@"
