#!/usr/bin/env bash
# Test on several processes:
# dist_test.sh CONFIG CHECKPOINT PROCESSES [test.py options]
#
#   PORT=29500 NNODES=1 NODE_RANK=0 MASTER_ADDR=127.0.0.1   the rendezvous
#   PYTHON=python                                           the interpreter
set -euo pipefail

if [ $# -lt 3 ]; then
  echo 'usage: dist_test.sh CONFIG CHECKPOINT PROCESSES_PER_NODE' \
    '[test.py options]' >&2
  exit 2
fi
config=$1
checkpoint=$2
processes=$3
shift 3

exec "${PYTHON:-python}" -m torch.distributed.run \
  --nnodes="${NNODES:-1}" --node_rank="${NODE_RANK:-0}" \
  --master_addr="${MASTER_ADDR:-127.0.0.1}" --master_port="${PORT:-29500}" \
  --nproc_per_node="$processes" \
  "$(dirname "${BASH_SOURCE[0]}")/test.py" "$config" "$checkpoint" \
  --launcher pytorch "$@"
