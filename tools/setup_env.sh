#!/usr/bin/env bash
# Make an environment that can run apa_mm, and print its Python on stdout.
#
#   bash tools/setup_env.sh                 the official OpenMMLab libraries
#   bash tools/setup_env.sh --stack onedl   their maintained OneDL forks
#
# Safe to call again at any time: a finished set-up answers at once, a
# half-finished or outdated one is repaired. Messages go to stderr.
#
#   APA_PYTHON=/path/python  use this environment as it is, install nothing
#   PYTHON=/path/python3     make it from this Python (3.10 or newer)
#   MMCV_WHEEL=/path/x.whl   install this mmcv wheel instead of building one
#   APA_VENV=/path           put the environment there (default: .venv,
#                            or .venv-onedl for that stack)
#   APA_CACHE=/path          keep built wheels there
#                            (default: ${XDG_CACHE_HOME:-~/.cache}/apa_mm)
set -euo pipefail
{ # Read to its end before it runs: a git pull meanwhile must not mix two texts.

say() { printf '[setup] %s\n' "$*" >&2; }
die() { printf '[setup] ERROR: %s\n' "$*" >&2; exit 1; }

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
stack=official
if [ "${1:-}" = --stack ]; then
  stack=${2:-}
  shift $(($# < 2 ? $# : 2))
fi
[ $# = 0 ] ||
  die "'$1' is no argument of this script; write --stack official or --stack onedl, or nothing."
case $stack in
official) venv=$root/.venv mmcv=mmcv==2.1.0 ;;
onedl) venv=$root/.venv-onedl mmcv=onedl-mmcv==2.3.6 ;;
*) die "--stack must be official or onedl, but got '$stack'." ;;
esac
venv=${APA_VENV:-$venv}
cache=${APA_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/apa_mm}
lock_file=$root/requirements/lock.txt
no_deps_files=("$root/requirements/lock-no-deps.txt" "$root/requirements/lock-$stack.txt")
mmcv_version=${mmcv#*==}
mmcv_name=${mmcv%%==*}
builder=$root/tools/build_mmcv.py
stamp=$venv/.apa_mm_ready
owned=$venv/.made_by_apa_mm

works() {  # works PYTHON: the whole stack imports, compiled ops included
  "$1" -c 'import torch, mmengine, mmcv.ops, mmdet, mmpretrain' \
    >"$log" 2>&1
}

log=$(mktemp)
building= build_pid=
trap '[ -z "$build_pid" ] || kill "$build_pid" 2>/dev/null || :; rm -rf "$log" "$log".* ${building:+"$building"}' EXIT

if [ -n "${APA_PYTHON:-}" ]; then
  command -v "$APA_PYTHON" >/dev/null ||
    die "APA_PYTHON=$APA_PYTHON is not an executable; name the python of your OpenMMLab environment."
  PYTHONPATH=$root works "$APA_PYTHON" ||
    die "APA_PYTHON=$APA_PYTHON lacks a part of the stack ($(tail -n 1 "$log")); install torch, mmengine, mmcv with ops, mmdet and mmpretrain there, or unset APA_PYTHON to let this script make .venv."
  command -v "$APA_PYTHON"
  exit 0
fi

fingerprint() {
  {
    cat "$lock_file" "${no_deps_files[@]}" "$builder" "${BASH_SOURCE[0]}" "$root/setup.py"
    printf '%s' "${MMCV_WHEEL:-}" "$root"
  } | sha256sum | cut -d' ' -f1
}
wanted=$(fingerprint)

ready() {
  [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ] &&
    "$venv/bin/python" -c 'import sys' 2>/dev/null
}
if ready; then
  printf '%s\n' "$venv/bin/python"
  exit 0
fi

# One set-up at a time; who waited finds the work done.
mkdir -p "$(dirname "$venv")" "$cache"
exec 9>"$venv.lock"
if command -v flock >/dev/null; then
  flock -n 9 || { say 'another set-up is running, waiting for it'; flock 9; }
  if ready; then
    printf '%s\n' "$venv/bin/python"
    exit 0
  fi
fi

# --- what must be there before anything is written -----------------------
supported() {
  "$1" -c 'import sys; raise SystemExit(sys.version_info < (3, 10))' 2>/dev/null
}
base=
candidates=(python3 python3.11 python3.12 python3.10)
[ -z "${PYTHON:-}" ] || candidates=("$PYTHON")
for candidate in "${candidates[@]}"; do
  if command -v "$candidate" >/dev/null && supported "$candidate"; then
    base=$(command -v "$candidate")
    break
  fi
done
if [ -z "$base" ]; then
  found=$("${PYTHON:-python3}" --version 2>&1 | tail -n 1) || true
  die "apa_mm needs Python 3.10 or newer, but '${PYTHON:-python3}' is '${found:-missing}'; install one (Debian: apt-get install python3 python3-venv) or name it: PYTHON=/path/python3 bash tools/setup_env.sh"
fi
"$base" -c 'import ensurepip, venv' 2>/dev/null ||
  die "'$base' cannot make virtual environments (no ensurepip); install them (Debian: apt-get install python3-venv)."
if [ -n "${MMCV_WHEEL:-}" ] && [ ! -f "$MMCV_WHEEL" ]; then
  die "MMCV_WHEEL=$MMCV_WHEEL does not exist; name an $mmcv_name $mmcv_version wheel or unset it to build one."
fi
need_compiler() {
  local tool
  for tool in "${CC:-gcc}" "${CXX:-g++}"; do
    command -v "$tool" >/dev/null ||
      die "building mmcv's ops needs a C++ compiler and '$tool' was not found; install one (Debian: apt-get install g++) or name a built wheel with MMCV_WHEEL=/path/mmcv.whl."
  done
}
have_wheel() { [ -n "${MMCV_WHEEL:-}" ] || compgen -G "$cache/wheels/${mmcv_name}-${mmcv_version}_*/*mmcv-*.whl" >/dev/null; }
have_wheel || need_compiler

# --- the environment --------------------------------------------------------
# Only a folder with our mark is ever deleted: APA_VENV may name another's.
if [ -d "$venv" ] && [ -n "$(ls -A "$venv")" ] && [ ! -f "$owned" ]; then
  die "$venv exists and was not made by this script; move it away, set APA_VENV to another folder, or use it as it is with APA_PYTHON=$venv/bin/python."
fi
if [ -d "$venv" ] && { [ ! -f "$stamp" ] || ! "$venv/bin/python" -c '' 2>/dev/null; }; then
  say "$venv is half-finished or broken: starting it again"
  rm -rf "$venv"
fi
rm -f "$stamp"
if [ ! -d "$venv" ]; then
  say "making $venv with $("$base" --version)"
  mkdir "$venv"
  : >"$owned"
  "$base" -m venv "$venv" >&2
fi
py=$venv/bin/python

heartbeat() {  # heartbeat WHAT PID LOG: wait for it, show that it lives
  local begin=$SECONDS
  say "$1"
  while kill -0 "$2" 2>/dev/null; do
    sleep 1
    if (((SECONDS - begin) % 30 == 29)); then
      say "  ... $((SECONDS - begin + 1)) s"
      sleep 1
    fi
  done
  wait "$2" || {
    tail -n 15 "$3" >&2
    return 1
  }
}
quietly() {  # quietly WHAT COMMAND...
  local what=$1
  shift
  "$@" >"$log" 2>&1 9>&- &
  heartbeat "$what" $! "$log"
}
pip_install() {
  "$py" -m pip install --disable-pip-version-check --no-input "$@"
}

# What mmcv is built with comes first: the compiler works while pip downloads.
grep -E '^(torch|numpy|ninja|packaging|psutil|setuptools|wheel)==' \
  "$lock_file" >"$log.first"
quietly 'installing PyTorch (large)' pip_install -r "$log.first" ||
  die "pip could not install PyTorch (its last words are above); check the network and the disk, then run this again."

# --- mmcv with its ops -------------------------------------------------------
# pip's own wheel cache does not know for which torch a wheel was built, so
# ours is keyed by everything that the binary depends on.
key=$("$py" - "$mmcv_name-$mmcv_version" <<'PY'
import sys
import sysconfig
import torch
device = f'cuda-{torch.version.cuda}' if torch.cuda.is_available() else 'cpu'
print(sys.argv[1], 'torch-' + torch.__version__,
      sysconfig.get_config_var('SOABI'), device, sep='_')
PY
) || die "torch does not import in $venv ($("$py" -c 'import torch' 2>&1 | tail -n 1)); delete $venv and run this again."
wheels=$cache/wheels/$key

start_building() {
  need_compiler
  case $key in
  *cuda-*)
    "$py" -c 'from torch.utils.cpp_extension import CUDA_HOME as h; raise SystemExit(h is None)' ||
      die "this machine has a CUDA card but no CUDA toolkit (nvcc) to build mmcv's ops with; install the toolkit that matches $key and set CUDA_HOME, or name a built wheel with MMCV_WHEEL=/path/mmcv.whl."
    ;;
  esac
  mkdir -p "$cache/wheels"
  rm -rf "$cache/wheels/.building-$key".*
  building=$(mktemp -d "$cache/wheels/.building-$key.XXXXXX")
  say "building $mmcv with its ops meanwhile"
  MAX_JOBS=${MAX_JOBS:-$(nproc)} "$py" "$builder" "$mmcv" "$building" \
    >"$log.build" 2>&1 9>&- &
  build_pid=$!
}
finish_building() {
  heartbeat "waiting for the compiler" "$build_pid" "$log.build" ||
    die "mmcv could not be built (the compiler's last words are above); install gcc and g++, or name a built wheel with MMCV_WHEEL=/path/mmcv.whl."
  build_pid=
  rm -rf "$wheels"
  mv "$building" "$wheels"
  building=
}
install_mmcv() {
  quietly "installing $1" \
    pip_install --no-deps --no-cache-dir --force-reinstall "$1" ||
    return 1
  "$py" -c 'import mmcv.ops' >"$log" 2>&1
}
mmcv_wheel() { ls "$wheels"/*mmcv-*.whl 2>/dev/null | head -n 1; }

[ -n "${MMCV_WHEEL:-}" ] || [ -n "$(mmcv_wheel)" ] || start_building
quietly 'installing the other locked requirements' \
  pip_install -r "$lock_file" ||
  die "pip could not install requirements/lock.txt (its last words are above); check the network and the disk, then run this again."
for file in "${no_deps_files[@]}"; do
  quietly "installing ${file##*/}" \
    pip_install --no-deps --no-build-isolation -r "$file" ||
    die "pip could not install $file (its last words are above)."
done

if [ -n "${MMCV_WHEEL:-}" ]; then
  install_mmcv "$MMCV_WHEEL" ||
    die "MMCV_WHEEL=$MMCV_WHEEL does not work here ($(tail -n 1 "$log")); name a wheel built for $key or unset MMCV_WHEEL."
else
  [ -z "$build_pid" ] || finish_building
  if ! install_mmcv "$(mmcv_wheel)"; then
    say "the kept mmcv wheel does not import ($(tail -n 1 "$log")): building it again"
    start_building
    finish_building
    install_mmcv "$(mmcv_wheel)" ||
      die "mmcv was built but its ops do not import: $(tail -n 1 "$log")"
  fi
fi

quietly 'installing apa_mm itself' \
  pip_install --no-deps --no-build-isolation -e "$root" ||
  die 'apa_mm could not be installed (the last words of pip are above).'
works "$py" || die "the stack was installed but does not import: $(tail -n 1 "$log")"

printf '%s' "$wanted" >"$stamp.tmp" && mv "$stamp.tmp" "$stamp"
say "ready: $py"
printf '%s\n' "$py"
exit
}
