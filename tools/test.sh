#!/usr/bin/env bash
# Set up the environment if need be, then lint and run the whole test suite.
# Arguments go to pytest: bash tools/test.sh -m 'not slow' tests/test_layers
# On the OneDL forks, where the core of the suite runs unless -m says more:
#   bash tools/test.sh --stack onedl
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"

stack=official
if [ "${1:-}" = --stack ]; then
  stack=${2:-}
  shift $(($# < 2 ? $# : 2))
fi
python=$(bash tools/setup_env.sh --stack "$stack")
[ "$stack" = official ] || set -- -m core "$@"
export PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH}
# One thread per worker: the workers share the cores.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}

# Networks of other libraries, for tests that skip and say so without them.
optional=$root/.venv/optional
lock=requirements/lock-optional.txt
if [ "$python" = "$root/.venv/bin/python" ] && ! cmp -s "$lock" "$optional/lock.txt"; then
  echo "[test] installing $lock into .venv/optional" >&2
  rm -rf "$optional"
  "$python" -m pip install --disable-pip-version-check --no-input --quiet \
    --no-deps --target "$optional" -r "$lock" >&2 &&
    cp "$lock" "$optional/lock.txt" ||
    { rm -rf "$optional"; echo '[test] that failed; their tests will be skipped' >&2; }
fi

if "$python" -c 'import ruff' 2>/dev/null; then
  "$python" -m ruff check .
fi
workers=()
if "$python" -c 'import xdist' 2>/dev/null; then
  # nproc would answer with OMP_NUM_THREADS.
  workers=(-n "$(getconf _NPROCESSORS_ONLN)" --dist worksteal)
fi
exec "$python" -m pytest "${workers[@]}" "$@"
