#!/usr/bin/env bash
# Train on several processes: dist_train.sh CONFIG PROCESSES [train.py options]
#
#   PORT=29500 NNODES=1 NODE_RANK=0 MASTER_ADDR=127.0.0.1   the rendezvous
#   PYTHON=python                                           the interpreter
#   APA_TOOL=train.py                                       what is started
set -euo pipefail

if [ $# -lt 2 ]; then
  echo 'usage: dist_train.sh CONFIG PROCESSES_PER_NODE [train.py options]' >&2
  exit 2
fi
config=$1
processes=$2
shift 2

# Waiting threads that spin take the cores from those that work.
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-PASSIVE}
exec "${PYTHON:-python}" -m torch.distributed.run \
  --nnodes="${NNODES:-1}" --node_rank="${NODE_RANK:-0}" \
  --master_addr="${MASTER_ADDR:-127.0.0.1}" --master_port="${PORT:-29500}" \
  --nproc_per_node="$processes" \
  "$(dirname "${BASH_SOURCE[0]}")/${APA_TOOL:-train.py}" "$config" \
  --launcher pytorch "$@"
