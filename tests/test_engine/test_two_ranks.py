"""Two processes do what one does that accumulates their gradients."""
import os

import pytest
import torch
from support import forked
from support.configs import narrow, parsed
from support.demo_jobs import CONFIG, OPTIONS, TOOLS, words_of, write_data
from support.rank_recorder import BATCH, WORLD_SIZE
from support.two_processes import free_port

pytestmark = pytest.mark.slow
ITERATIONS = 6
CHILD = """
_base_ = '{base}'
custom_imports = dict(imports=['support.rank_recorder'])
custom_hooks = [
    dict(type='apa_mm.ClassFrequencyHook'), dict(type='RankRecorder')]
# Weights that move within six iterations, by steps as large as the gradient:
# AdamW's first ones are as large where it is but rounding.
param_scheduler = []
optim_wrapper = dict(
    optimizer=dict(
        _delete_=True, type='SGD', lr=0.01, momentum=0.9, weight_decay=1e-4))
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
        **narrow(parsed(CONFIG)),
        'train_dataloader.batch_size': BATCH,
        'train_cfg.max_iters': ITERATIONS,
        'default_hooks.checkpoint.interval': 1000,
        # Each process would go on with the statistics of its own batches.
        'model.backbone.norm_eval': True,
        'custom_hooks.1.folder': f'recorded_{processes}',
    }
    config = folder / f'child_{processes}.py'
    config.write_text(CHILD.format(base=CONFIG))
    if processes == 1:
        options.update({
            'train_cfg.max_iters': WORLD_SIZE * ITERATIONS,
            'optim_wrapper.accumulative_counts': WORLD_SIZE,
            'train_dataloader.sampler.type': 'OneAfterAnother',
        })
    words = [
        TOOLS / 'train.py', config, '--work-dir', f'run_{processes}',
        '--launcher', 'none' if processes == 1 else 'pytorch',
        '--cfg-options', *words_of(options)
    ]
    # torchrun itself is started by tests/test_tools.py.
    group = dict(WORLD_SIZE=str(processes), MASTER_ADDR='127.0.0.1',
                 MASTER_PORT=free_port())
    started = [
        forked.Script(words, cwd=folder, env=dict(
            os.environ, RANK=str(rank), LOCAL_RANK=str(rank), **group))
        for rank in range(processes)
    ]
    for script in started:
        result = script.wait(timeout=500)
        assert result.returncode == 0, (result.stdout + result.stderr)[-4000:]
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
    """The same images, and the same draws of RoIs and of GOL's negatives."""
    for name, value in runs[1][0]['begin'].items():
        assert torch.equal(value, runs[2][0]['begin'][name]), name
    one = torch.tensor(runs[1][0]['losses'])
    ranks = torch.tensor([rank['losses'] for rank in runs[2]])
    assert one.shape == (WORLD_SIZE * ITERATIONS, )
    # Sums of float32 in another order, over six steps.
    torch.testing.assert_close(ranks.T.flatten(), one, rtol=1e-4, atol=0)
    # The two see different images.
    assert not torch.equal(ranks[0], ranks[1])


def test_all_parameters_end_where_those_of_one_process_do(runs):
    one, two = runs[1][0], runs[2][0]
    for names in (learned(one['end']), list(one['end'])):
        step, other = (
            torch.cat([(run['end'][n] - run['begin'][n]).flatten()
                       for n in names]) for run in (one, two))
        assert (step - other).norm() < 1e-3 * step.norm()
