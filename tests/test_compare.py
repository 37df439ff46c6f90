"""Comparisons: planning, resuming, failing, averaging, and the tool."""
import contextlib
import csv
import importlib.util
import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support import forked

from apa_mm.engine import compare
from apa_mm.engine.compare import plan_runs, run_all
from apa_mm.engine.compare_report import (choose_columns, format_csv,
                                          format_table, plot_bars, summarize)

ROOT = Path(__file__).parents[1]
CONFIGS = ROOT / 'configs/cls/digits_lt'
RELU = str(CONFIGS / 'resnet20_relu_digits-lt-ir50.py')
OFFSET = str(CONFIGS / 'resnet20_relu_pc-softmax_digits-lt-ir50.py')
# Two iterations on 18 images; the classes' frequencies stay complete.
QUICK = {
    'train_cfg.max_epochs': 1,
    'train_dataloader.batch_size': 64,
    'train_dataloader.dataset.imbalance_factor': 10,
    'train_dataloader.dataset.test_per_class': 160,
    'test_dataloader.dataset.imbalance_factor': 10,
    'test_dataloader.dataset.test_per_class': 160,
    'val_dataloader.dataset.imbalance_factor': 10,
    'val_dataloader.dataset.test_per_class': 160,
}


@pytest.fixture
def configs(tmp_path):
    """Two small configs of one's own."""
    paths = []
    for name in ('a', 'b'):
        path = tmp_path / f'{name}.py'
        path.write_text(f"_base_ = '{RELU}'\n")
        paths.append(str(path))
    return paths


@pytest.fixture
def fake(monkeypatch, tmp_path):
    """Replace training by writing the seed as result; return the calls."""
    calls = []

    def train_and_test(run, cfg_options=None):
        calls.append((run.variant, run.seed))
        if run.seed == 7:
            raise RuntimeError(f'{run.variant} with seed 7 failed')
        result = dict(
            digest=run.digest, seconds=1., metrics={'m': float(run.seed)})
        Path(run.folder).mkdir(parents=True, exist_ok=True)
        Path(run.result_file).write_text(json.dumps(result))
        return result

    monkeypatch.setattr(compare, 'train_and_test', train_and_test)
    return calls


def plan(configs, folder, num_seeds=2, options=None):
    return plan_runs(configs, num_seeds, str(folder / 'work'), options)


# Planning


def test_a_plan_has_every_variant_with_every_seed(configs, tmp_path):
    runs = plan(configs, tmp_path)
    assert [(run.variant, run.seed) for run in runs] == [('a', 0), ('b', 0),
                                                         ('a', 1), ('b', 1)]
    assert len({run.folder for run in runs}) == 4
    # a and b have one content, and so one digest per seed.
    assert runs[0].digest == runs[1].digest != runs[2].digest


def test_the_digest_is_that_of_the_content(configs, tmp_path):
    first, = plan(configs[:1], tmp_path, 1)
    Path(configs[0]).write_text(f"# a comment\n_base_ = ['{RELU}']\n")
    again, = plan(configs[:1], tmp_path / 'elsewhere', 1)
    assert again.digest == first.digest
    changed, = plan(configs[:1], tmp_path, 1,
                    {'optim_wrapper.optimizer.lr': .2})
    assert changed.digest != first.digest
    Path(configs[0]).write_text(f"_base_ = '{RELU}'\nmax_epochs = 3\n")
    assert plan(configs[:1], tmp_path, 1)[0].digest != first.digest


def test_plans_that_cannot_work(configs, tmp_path):
    with pytest.raises(ValueError, match='seeds must be 1 or more.*got 0'):
        plan(configs, tmp_path, 0)
    with pytest.raises(ValueError, match='at least one config'):
        plan([], tmp_path)
    with pytest.raises(ValueError, match='none.py does not exist'):
        plan([str(tmp_path / 'none.py')], tmp_path)
    twin = tmp_path / 'more/a.py'
    twin.parent.mkdir()
    twin.write_text(f"_base_ = '{RELU}'\n")
    with pytest.raises(ValueError, match='have the same file name'):
        plan([configs[0], str(twin)], tmp_path)
    twin.write_text(f"_base_ = '{RELU}'\ntest_evaluator = None\n")
    with pytest.raises(ValueError, match='more/a.py has no test_evaluator'):
        plan([str(twin)], tmp_path)
    with pytest.raises(ValueError, match='workers must be 1 or more'):
        run_all(plan(configs, tmp_path), workers=0)


# Resuming


def test_finished_runs_are_kept_until_the_config_changes(
        configs, tmp_path, fake):
    lines = []
    results = run_all(plan(configs, tmp_path), report=lines.append)
    assert [r['metrics']['m'] for r in results] == [0, 0, 1, 1]
    assert len(fake) == len(lines) == 4
    assert lines[-1].startswith('[4/4] b, seed 1: m 1.00 in 1 s, about 0.0')
    fake.clear(), lines.clear()
    assert run_all(plan(configs, tmp_path), report=lines.append) == results
    assert not fake and lines == [
        '4 of 4 runs have finished before with the same config and are kept'
    ]
    Path(configs[1]).write_text(f"_base_ = '{RELU}'\nmax_epochs = 3\n")
    run_all(plan(configs, tmp_path, 3))
    assert fake == [('b', 0), ('b', 1), ('a', 2), ('b', 2)]


def test_after_a_failure_only_the_rest_is_done(configs, tmp_path, fake):
    with pytest.raises(RuntimeError, match='a with seed 7 failed'):
        run_all(plan(configs, tmp_path, 9))
    assert len(fake) == 15
    runs = [run for run in plan(configs, tmp_path, 9) if run.seed != 7]
    fake.clear()
    run_all(runs)
    assert fake == [('a', 8), ('b', 8)]


@pytest.mark.parametrize('text', ['', '{"digest": "other"}', '{"metri'])
def test_half_written_results_do_not_count(configs, tmp_path, fake, text):
    runs = plan(configs[:1], tmp_path, 1)
    run_all(runs)
    Path(runs[0].result_file).write_text(text)
    run_all(runs)
    assert len(fake) == 2


# Training


def test_a_run_that_fails_says_where_its_output_is(tmp_path):
    options = {**QUICK, 'train_dataloader.dataset.seed': 'seven'}
    run, = plan_runs([RELU], 1, str(tmp_path), options)
    Path(run.folder).mkdir(parents=True)
    Path(run.result_file).write_text('{}')
    with pytest.raises(RuntimeError, match='with seed 0 failed: .*output.txt'):
        run_all([run], cfg_options=options)
    assert 'Traceback' in Path(run.log_file).read_text()
    assert not Path(run.result_file).exists()


def load_tool(monkeypatch, *argv):
    path = ROOT / 'tools/compare.py'
    spec = importlib.util.spec_from_file_location('compare_tool', path)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    monkeypatch.setattr(sys, 'argv', ['compare.py', *argv])
    return tool


def arguments(work_dir, seeds=2):
    options = [f'{key}={value}' for key, value in QUICK.items()]
    return [
        RELU, OFFSET, '--seeds', str(seeds), '--work-dir', str(work_dir),
        '--cfg-options', *options
    ]


@pytest.fixture(scope='module')
def compared(tmp_path_factory):
    """The tool's folder and output, of two configs with one worker."""
    folder = tmp_path_factory.mktemp('compared')
    with pytest.MonkeyPatch.context() as patch:
        tool = load_tool(patch, '--workers', '1', *arguments(folder))
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            tool.main()
    return folder, out.getvalue()


def test_the_tool_compares_real_runs(compared, monkeypatch, capsys):
    folder, out = compared
    assert '[4/4]' in out and 'Epoch(train)' not in out
    assert '| variant' in out and 'few %' in out
    values = json.loads((folder / 'compare.json').read_text())
    plain, offset = (values[Path(p).stem] for p in (RELU, OFFSET))
    assert 0 <= plain['accuracy/top1']['mean'] <= 100
    first, second = plain['calibration/ece']['values']
    assert first != second
    # One seed trains one network; only the offsets differ.
    losses = [(folder / Path(p).stem / 'seed_0/output.txt').read_text()
              .split('loss: ')[1].split()[0] for p in (RELU, OFFSET)]
    assert losses[0] == losses[1]
    assert plain['calibration/ece'] != offset['calibration/ece']
    # 14 images of digit 0 down to 1 of digit 9: few-shot classes only.
    assert 'shot/few' in plain and 'shot/many' not in plain
    assert (folder / 'compare.csv').exists()
    assert Image.open(folder / 'compare.png').width > 400
    load_tool(monkeypatch, '--workers', '1', *arguments(folder)).main()
    assert '4 of 4 runs have finished before' in capsys.readouterr().out


@pytest.mark.slow
def test_the_tool_with_two_workers(compared, tmp_path):
    done = forked.run([ROOT / 'tools/compare.py', '--workers', '2',
                       *arguments(tmp_path, seeds=1)])
    assert done.returncode == 0, done.stderr
    assert '[2/2]' in done.stdout
    expected, values = (
        json.loads((folder / 'compare.json').read_text())
        for folder in (compared[0], tmp_path))
    for name in map(Path, (RELU, OFFSET)):
        first, _ = expected[name.stem]['calibration/ece']['values']
        assert values[name.stem]['calibration/ece']['values'] == [
            pytest.approx(first, abs=1e-6)]


def test_the_tool_ends_with_one_sentence(tmp_path):
    done = forked.run([ROOT / 'tools/compare.py', 'none.py'])
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith(
        'error: config none.py does not exist')


# Reporting

RESULTS = [
    dict(metrics={'accuracy/top1': 80., 'calibration/ece': .1, 'x': 1.}),
    dict(metrics={'accuracy/top1': 50., 'calibration/ece': .2}),
    dict(metrics={'accuracy/top1': 84., 'calibration/ece': .3}),
    dict(metrics={'accuracy/top1': 50.}),
]
SUMMARY = summarize(['a', 'b', 'a', 'b'], RESULTS)


def test_mean_and_sample_standard_deviation():
    cell = SUMMARY['a']['accuracy/top1']
    # Differences of 2 from the mean: sqrt((4 + 4) / (2 - 1)).
    assert cell.mean == 82 and cell.values == [80, 84]
    assert cell.std == pytest.approx(8**.5)
    assert 'x' not in SUMMARY['a'] and 'calibration/ece' not in SUMMARY['b']
    assert summarize(['a'], RESULTS[:1])['a']['x'].std is None


def test_the_table_is_in_per_cent_and_has_gaps():
    columns = choose_columns(SUMMARY)
    assert columns == ['accuracy/top1', 'calibration/ece']
    assert format_table(SUMMARY, columns).splitlines() == [
        '| variant |    top-1 % |       ECE % |',
        '|:--------|-----------:|------------:|',
        '| a       | 82.0 ± 2.8 | 20.0 ± 14.1 |',
        '| b       | 50.0 ± 0.0 |           - |',
    ]


def test_detectors_show_the_groups_of_lvis_in_per_cent():
    metrics = {'lvis/segm_AP': .1, 'exhaustive/bbox_APr': .25,
               'lvis/bbox_AP': .5}
    found = summarize(['a'], [dict(metrics=metrics)])
    columns = choose_columns(found)
    assert columns == ['lvis/bbox_AP', 'exhaustive/bbox_APr']
    assert format_table(found, columns).splitlines()[::2] == [
        '| variant | AP % | exhaustive APr % |',
        '| a       | 50.0 |             25.0 |',
    ]


def test_columns_can_be_chosen():
    single = summarize(['a'], RESULTS[:1])
    assert choose_columns(single, ['x']) == ['x']
    assert format_table(single, ['x']).splitlines()[-1] == '| a       | 1.0 |'
    with pytest.raises(ValueError, match="no variant has the metric 'y'"):
        choose_columns(single, ['y'])
    assert choose_columns(summarize(['a'], [dict(metrics=dict(y=2.))])) == [
        'y']


def test_the_csv_has_unscaled_values():
    rows = list(csv.DictReader(io.StringIO(format_csv(SUMMARY))))
    assert [(r['variant'], r['metric']) for r in rows] == [
        ('a', 'accuracy/top1'), ('a', 'calibration/ece'),
        ('b', 'accuracy/top1')]
    assert float(rows[1]['mean']) == pytest.approx(.2)
    assert float(rows[1]['std']) == pytest.approx(.02**.5)
    assert rows[0]['seeds'] == '2'
    assert ',,1' in format_csv(summarize(['a'], RESULTS[:1]))


def test_the_picture_shows_a_bar_per_variant(tmp_path):
    path = str(tmp_path / 'compare.png')
    plot_bars(SUMMARY, choose_columns(SUMMARY), path)
    pixels = np.asarray(Image.open(path).convert('RGB')).astype(int)
    bars = (abs(pixels - [157, 184, 210]).sum(2) < 12)
    height, width = bars.shape
    upper, lower = bars[:height // 2], bars[height // 2:]
    # Two bars on the left, and on the right only that of the upper variant.
    assert upper[:, :width // 2].any() and lower[:, :width // 2].any()
    assert upper[:, width // 2:].any() and not lower[:, width // 2:].any()
