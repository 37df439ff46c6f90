#!/usr/bin/env bash
# Test on several processes, with the variables of dist_train.sh:
# dist_test.sh CONFIG CHECKPOINT PROCESSES [test.py options]
set -euo pipefail

if [ $# -lt 3 ]; then
  echo 'usage: dist_test.sh CONFIG CHECKPOINT PROCESSES_PER_NODE' \
    '[test.py options]' >&2
  exit 2
fi
APA_TOOL=test.py exec bash "$(dirname "${BASH_SOURCE[0]}")/dist_train.sh" \
  "$1" "$3" "$2" "${@:4}"
