#!/usr/bin/env bash
# Train and evaluate a small APA* Mask R-CNN with GOL on Digits-LVIS, on a CPU.
#
#   bash tools/demo.sh            the APA* detector
#   bash tools/demo.sh --compare  also the SE, ReLU and softmax baseline, and
#                                 APA* with softmax and with Seesaw, on the
#                                 federated and the exhaustive val set
#   bash tools/demo.sh --report   the baseline, and an HTML page of what both
#                                 learned; two that are trained already are not
#                                 trained again, unless --compare is given too
#
# Sets up .venv first if need be (see tools/setup_env.sh for its variables),
# makes the data in data/digits_lvis, and starts over whatever an earlier demo
# left in work_dirs/demo. There it leaves predictions.png, kappa_lambda.png,
# metrics.json and a folder with log and checkpoint for each detector. The
# page and the analyses in it go to a new folder work_dirs/demo/report[-N].
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
data=data/digits_lvis
out=work_dirs/demo

say() { printf '[demo] %s\n' "$*"; }
die() { printf '[demo] ERROR: %s\n' "$*" >&2; exit 1; }

runs=(apa-gol)
compare=no report=no
for option in "$@"; do
  case $option in
  --compare) compare=yes ;;
  --report) report=yes ;;
  -h | --help)
    sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"
    exit 0
    ;;
  *) die "unknown option '$option'; use --compare, --report, --help or none." ;;
  esac
done

if [ "$report" = yes ]; then runs+=(baseline); fi
if [ "$compare" = yes ]; then runs=(baseline apa-softmax apa-gol apa-seesaw); fi

config_of() {
  case $1 in
  apa-gol) echo configs/demo/mask-rcnn_apa-seresnet18_fpn_gol_digits-lvis.py ;;
  baseline) echo configs/demo/mask-rcnn_seresnet18_fpn_digits-lvis.py ;;
  apa-softmax) echo configs/demo/mask-rcnn_apa-seresnet18_fpn_digits-lvis.py ;;
  apa-seesaw)
    echo configs/demo/mask-rcnn_apa-seresnet18_fpn_seesaw_digits-lvis.py
    ;;
  esac
}

# logged LOG COMMAND...: keep all output, show the progress lines of it
logged() {
  local log=$1
  shift
  "$@" 2>&1 | tee "$log" | { grep --line-buffered -o 'Iter(.*' || true; } || {
    tail -n 15 "$log" >&2
    die "'$*' failed; its last words are above, all of them are in $root/$log."
  }
}

# finished RUN: whether an earlier demo trained and reported it
finished() {
  [ -f "$out/$1/metrics.json" ] && [ -f "$(checkpoint_of "$1")" ]
}

checkpoint_of() {
  cat "$out/$1/train/last_checkpoint" 2>/dev/null || true
}

# analyze TOOL: one analysis of both detectors
analyze() {
  say "analysing: $1"
  "$python" tools/analyze.py "$1" \
    "$(config_of apa-gol)" "$(checkpoint_of apa-gol)" \
    --also "$(config_of baseline)" "$(checkpoint_of baseline)" \
    --names 'APA* + GOL' 'SE baseline' --out "$page/$1"
}

# write_report: all analyses and the page
write_report() {
  local number=2
  page=$out/report
  while [ -e "$page" ]; do page=$out/report-$((number++)); done
  SECONDS=0
  for tool in functions parameters attention logits collapse calibration \
    gradcam; do
    analyze "$tool"
  done
  "$python" tools/analyze.py report "$page" --out "$page/html" \
    --title 'APA* and GOL beside the SE baseline on Digits-LVIS'
  say "the report took $SECONDS s: open $root/$page/html/index.html"
}

cd "$root"
# Held by this process and its children: a second demo would delete the folders
# that the first writes to.
mkdir -p "$out"
exec 9>"$out/.lock"
if command -v flock >/dev/null && ! flock -n 9; then
  die "another demo is running in $root/$out; wait for it to end."
fi
python=$(bash tools/setup_env.sh)
# An environment that the user names need not have this package installed.
export PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH}
# Waiting threads that spin take the cores from those that work.
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-PASSIVE}
export PYTHONWARNINGS=${PYTHONWARNINGS:-ignore}
say "set-up took $SECONDS s"

if [ "$report$compare" = yesno ] && finished apa-gol && finished baseline; then
  say "both detectors are trained; add --compare to train them anew"
  "$python" tools/make_digits_lvis.py --out "$data"
  write_report
  exit
fi

rm -rf "$out"/{apa-gol,baseline,apa-softmax,apa-seesaw} "$out"/{metrics.json,predictions.png,kappa_lambda.png}{,.partial}

SECONDS=0
say "data: $data"
"$python" tools/make_digits_lvis.py --out "$data"
data_seconds=$SECONDS

for run in "${runs[@]}"; do
  config=$(config_of "$run")
  folder=$out/$run
  mkdir -p "$folder/train" "$folder/eval"

  SECONDS=0
  say "training $run: $config"
  # Evaluation is a step of its own below, so training does not end with one.
  logged "$folder/train.log" "$python" tools/train.py "$config" \
    --work-dir "$folder/train" --cfg-options train_cfg.val_begin=1000000
  train_seconds=$SECONDS
  checkpoint=$(cat "$folder/train/last_checkpoint")

  SECONDS=0
  say "evaluating $run"
  logged "$folder/eval.log" "$python" tools/test.py "$config" "$checkpoint" \
    --work-dir "$folder/eval"
  eval_seconds=$SECONDS

  say "drawing $run"
  "$python" tools/demo_report.py run "$config" "$checkpoint" \
    --eval-dir "$folder/eval" --out "$folder" --seconds \
    "data=$data_seconds" "train=$train_seconds" "evaluate=$eval_seconds"
done

cp "$out"/apa-gol/{predictions,kappa_lambda}.png "$out"
say "results in $root/$out (seed, versions and more in metrics.json):"
"$python" tools/demo_report.py join "${runs[@]/#/$out/}" \
  --out "$out/metrics.json"
if [ "$report" = yes ]; then write_report; fi
