"""Two processes do what one does with the doubled batch."""
import socket
import sys

import pytest
import torch
from support.demo_jobs import CONFIG, OPTIONS, run_tool, words_of, write_data

pytestmark = pytest.mark.slow
ITERATIONS = 6
CHILD = """
_base_ = '{base}'
custom_imports = dict(imports=['support.rank_recorder'])
custom_hooks = [
    dict(type='apa_mm.ClassFrequencyHook'), dict(type='RankRecorder')]
# Weights that move within six iterations.
param_scheduler = []
"""


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
    folder = write_data(tmp_path_factory.mktemp('ranks'))
    return {
        processes: train(folder, processes) for processes in (1, 2)
    }


def train(folder, processes):
    options = {
        **OPTIONS,
        'train_cfg.max_iters': ITERATIONS,
        'train_dataloader.batch_size': 4 // processes,
        # Statistics of a batch would depend on how it is split.
        'model.backbone.norm_eval': True,
        'custom_hooks.1.folder': f'recorded_{processes}',
    }
    config = folder / f'child_{processes}.py'
    config.write_text(CHILD.format(base=CONFIG))
    words = [config]
    env = dict(PYTHON=sys.executable)
    if processes == 1:
        script = 'train.py'
    else:
        script = 'dist_train.sh'
        words.append(processes)
        with socket.socket() as probe:
            probe.bind(('127.0.0.1', 0))
            env['PORT'] = str(probe.getsockname()[1])
    result = run_tool(
        script,
        *words,
        '--work-dir',
        f'run_{processes}',
        '--cfg-options',
        *words_of(options),
        cwd=folder,
        **env)
    text = result.stdout + result.stderr
    assert result.returncode == 0, text[-4000:]
    ranks = [
        torch.load(path, weights_only=True)
        for path in sorted((folder / f'recorded_{processes}').iterdir())
    ]
    assert len(ranks) == processes
    return ranks


def learned(state):
    return [n for n in state if n.split('.')[-1] in ('kappa', 'lambd')]


def test_both_ranks_hold_the_same_weights(runs):
    first, second = (rank['end'] for rank in runs[2])
    assert len(learned(first)) > 20
    for name, value in first.items():
        assert torch.equal(value, second[name]), name
    moved = [
        n for n in learned(first)
        if not torch.equal(first[n], runs[2][0]['begin'][n])
    ]
    assert len(moved) > 0.9 * len(learned(first))


def test_no_parameter_is_unused(runs):
    assert [rank['no_gradient'] for rank in runs[1] + runs[2]] == [[]] * 3


def test_the_loss_curve_is_that_of_one_process(runs):
    """Equal but for the random RoIs that each process samples."""
    for name, value in runs[1][0]['begin'].items():
        assert torch.equal(value, runs[2][0]['begin'][name]), name
    one = torch.tensor(runs[1][0]['losses'])
    ranks = torch.tensor([rank['losses'] for rank in runs[2]])
    assert one.shape == (ITERATIONS, )
    # One iteration draws few RoIs and GOL's negatives anew; their mean is
    # steadier. A loss or gradient counted once per rank would be far off both.
    torch.testing.assert_close(ranks.mean(0), one, rtol=0.25, atol=0)
    torch.testing.assert_close(ranks.mean(), one.mean(), rtol=0.05, atol=0)
    # The two see different images.
    assert not torch.equal(ranks[0], ranks[1])


def test_kappa_and_lambda_end_near_those_of_one_process(runs):
    one, two = runs[1][0], runs[2][0]
    names = learned(one['end'])
    step = torch.stack([one['end'][n] - one['begin'][n] for n in names])
    other = torch.stack([two['end'][n] - two['begin'][n] for n in names])
    assert torch.cosine_similarity(step, other, dim=0) > 0.8
