"""The demo's numbers: where they come from and how they are printed."""
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from mmengine.config import Config
from support import forked

from apa_mm import __version__
from demo.report import (format_table, read_metrics, run_record,
                                write_json)

ROOT = Path(__file__).parents[2]
TWO_RUNS = {
    'apa-gol':
    dict(
        metrics={
            'lvis/bbox_AP': 0.5,
            'lvis/bbox_APr': 0.25,
            'lvis/segm_AP': 0.375,
            'exhaustive/bbox_APf': 0.75
        },
        seconds=dict(data=4.6, train=300.0)),
    'baseline':
    dict(metrics={'lvis/bbox_AP': 0.125}, seconds=dict(train=200.0)),
}


def log_test_run(folder, stamp='20260101_000000', **metrics):
    (folder / stamp / 'vis_data').mkdir(parents=True)
    (folder / stamp / 'vis_data' / f'{stamp}.json').write_text('{}')
    (folder / stamp / f'{stamp}.json').write_text(json.dumps(metrics))


def test_reads_the_metrics_of_the_one_test_run(tmp_path):
    metrics = {'lvis/bbox_AP': 0.4, 'exhaustive/bbox_AP': 0.3}
    log_test_run(tmp_path, **metrics, data_time=0.1)
    assert read_metrics(str(tmp_path)) == metrics


@pytest.mark.parametrize('stamps', [(), ('20260101_000000',
                                         '20260102_000000')])
def test_none_or_two_test_runs(tmp_path, stamps):
    for stamp in stamps:
        log_test_run(tmp_path, stamp)
    with pytest.raises(ValueError, match=f'but has {len(stamps)}; run'):
        read_metrics(str(tmp_path))


def test_record_holds_what_a_reader_asks_for(tmp_path):
    path = tmp_path / 'my_config.py'
    path.write_text('randomness = dict(seed=7)\n'
                    'train_cfg = dict(max_iters=12)\n')
    record = run_record(
        Config.fromfile(str(path)), {'lvis/bbox_AP': 0.4}, 25,
        dict(train=1.26))
    assert json.loads(json.dumps(record)) == record
    assert record['config'] == 'my_config.py'
    assert record['seed'] == 7 and record['iterations'] == 12
    assert record['num_kappa_lambda_pairs'] == 25
    assert record['seconds'] == dict(train=1.3)
    assert record['versions']['apa_mm'] == __version__
    assert record['versions']['torch'].startswith('2.')
    assert record['cpu_cores'] >= 1


def test_table():
    rows = [[cell.strip() for cell in line.strip('|').split('|')]
            for line in format_table(TWO_RUNS).splitlines()]
    assert rows[0] == ['run'] + [f'{kind} {name}'
                                 for kind in ('box', 'mask', 'all')
                                 for name in ('AP', 'APr', 'APc', 'APf')]
    assert rows[2] == (
        'apa-gol 0.500 0.250 - - 0.375 - - - - - - 0.750'.split())
    assert rows[3] == ['baseline', '0.125'] + ['-'] * 11
    assert rows[5] == 'seconds data train all'.split()
    assert rows[7] == 'apa-gol 5 300 305'.split()
    assert rows[8] == 'baseline - 200 200'.split()
    widths = {len(line) for line in format_table(TWO_RUNS).splitlines()[:3]}
    assert len(widths) == 1


def test_json_is_whole_or_not_there(tmp_path):
    path = tmp_path / 'metrics.json'
    write_json(dict(a=1), str(path))
    with pytest.raises(TypeError):
        write_json(dict(a=object()), str(path))
    assert json.loads(path.read_text()) == dict(a=1)


def test_join_prints_and_writes_all_runs(tmp_path):
    for name, record in TWO_RUNS.items():
        (tmp_path / name).mkdir()
        write_json(record, str(tmp_path / name / 'metrics.json'))
    done = forked.run([
        ROOT / 'tools/demo_report.py', 'join',
        *(tmp_path / name for name in TWO_RUNS), '--out',
        tmp_path / 'metrics.json'
    ])
    assert done.stdout.strip() == format_table(TWO_RUNS).strip()
    assert json.loads((tmp_path / 'metrics.json').read_text()) == TWO_RUNS


def test_unknown_option_of_the_demo_is_one_clear_sentence():
    done = subprocess.run(['bash', 'tools/demo.sh', '--comprae'], cwd=ROOT,
                          capture_output=True, text=True)
    assert done.returncode == 1 and done.stdout == ''
    assert done.stderr == ("[demo] ERROR: unknown option '--comprae'; use "
                           '--compare, --report, --help or none.\n')


def test_help_of_the_demo_names_its_option():
    done = subprocess.run(['bash', 'tools/demo.sh', '--help'], cwd=ROOT,
                          capture_output=True, text=True, check=True)
    assert '--compare  also' in done.stdout
    assert '--report   the baseline' in done.stdout
    assert 'set -euo' not in done.stdout


#: Stands for Python in demo.sh: notes the command and leaves what it would.
STUB = '''#!/bin/bash
[ "$1" = -c ] && exit 0
echo "$*" >>commands.txt
case $1 in
tools/train.py) echo "$4/iter.pth" >"$4/last_checkpoint" ;;
tools/demo_report.py)
  [ "$2" = join ] && exec {python} {root}/"$@"
  cp record.json "$8/metrics.json"
  touch "$8/predictions.png" "$8/kappa_lambda.png" ;;
esac
'''


def test_compare_trains_four_and_shows_both_val_sets(tmp_path):
    (tmp_path / 'tools').mkdir()
    for name in ('demo.sh', 'setup_env.sh'):
        shutil.copy(ROOT / 'tools' / name, tmp_path / 'tools')
    metrics = {f'{kind}_{name}': 0.25 for name in ('AP', 'APr', 'APc', 'APf')
               for kind in ('lvis/bbox', 'lvis/segm', 'exhaustive/bbox')}
    (tmp_path / 'record.json').write_text(json.dumps(
        dict(metrics=metrics, seconds=dict(train=9.0))))
    stub = tmp_path / 'python'
    stub.write_text(STUB.format(python=sys.executable, root=ROOT))
    stub.chmod(0o755)
    done = subprocess.run(
        ['bash', 'tools/demo.sh', '--compare'], cwd=tmp_path, text=True,
        capture_output=True, env=dict(os.environ, APA_PYTHON=str(stub)))
    assert done.returncode == 0, done.stderr
    commands = (tmp_path / 'commands.txt').read_text().split('\n')
    trained = [c.split()[1] for c in commands if c.startswith('tools/train')]
    tested = [c.split()[1] for c in commands if c.startswith('tools/test.py')]
    stem = 'configs/demo/mask-rcnn_{}_digits-lvis.py'
    assert trained == tested == [stem.format(name) for name in (
        'seresnet18_fpn', 'apa-seresnet18_fpn', 'apa-seresnet18_fpn_gol',
        'apa-seresnet18_fpn_seesaw')]
    assert all((ROOT / name).is_file() for name in trained)
    rows = [line for line in done.stdout.splitlines() if '0.250' in line]
    assert [row.split()[1] for row in rows] == [
        'baseline', 'apa-softmax', 'apa-gol', 'apa-seesaw']
    assert [row.count('0.250') for row in rows] == [12] * 4
