"""Checkpoints survive a kill, and a resumed run is the uninterrupted one."""
import os
import random
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, HOOKS, MODELS
from mmengine.runner import Runner
from torch import nn
from support import forked

from apa_mm.engine.hooks import safe_checkpoint_hook
from apa_mm.engine.resume import find_checkpoint, plan_resume
from apa_mm.preflight.job import InputError
from apa_mm.weights import read_checkpoint


@MODELS.register_module(force=True)
class NoisyNet(BaseModel):
    """Draws from every generator while it trains, and from one in tests."""

    def __init__(self, data_preprocessor=None):
        super().__init__(data_preprocessor=data_preprocessor)
        self.fc = nn.Sequential(nn.Linear(4, 4), nn.Dropout(), nn.Linear(4, 1))
        self.calls = []

    def forward(self, inputs, data_samples=None, mode='tensor'):
        x = torch.stack(list(inputs))
        if mode != 'loss':
            torch.rand(3), np.random.rand(2), random.random()
            return [dict(score=0.)] * len(x)
        self.calls.append(x.sum().item())
        scale = np.random.rand() + random.random()
        return dict(loss=(self.fc(x) * scale).square().mean())


@DATASETS.register_module(force=True)
class NoisyPoints(torch.utils.data.Dataset):
    """Six points, each with noise of three generators."""

    def __len__(self):
        return 6

    def __getitem__(self, index):
        noise = random.random() + np.random.rand()
        return dict(inputs=torch.rand(4) + noise + index)


@HOOKS.register_module(force=True)
class StopAt(Hook):
    """Ends a training as a kill does: nothing is written any more."""

    priority = 'LOWEST'

    def __init__(self, iteration):
        self.iteration = iteration

    def after_train_iter(self, runner, batch_idx, data_batch=None,
                         outputs=None):
        if runner.iter + 1 == self.iteration:
            raise KeyboardInterrupt


@pytest.fixture(autouse=True)
def evaluator():
    from mmengine.evaluator import BaseMetric
    from mmengine.registry import METRICS

    @METRICS.register_module(force=True)
    class Nothing(BaseMetric):

        def process(self, data_batch, data_samples):
            self.results.append(0)

        def compute_metrics(self, results):
            return dict(score=1.0)


def settings(work_dir, by_epoch=True, hooks=(), workers=0, every_epoch=True,
             lasting=False, **extra):
    loader = dict(
        dataset=dict(type='NoisyPoints'),
        batch_size=2,
        num_workers=workers,
        persistent_workers=lasting,
        sampler=dict(
            type='DefaultSampler' if by_epoch else 'InfiniteSampler',
            shuffle=True))
    checkpoint = dict(
        type='apa_mm.SafeCheckpointHook', by_epoch=every_epoch, interval=1)
    return dict(
        dict(
            model=dict(type='NoisyNet'),
            work_dir=str(work_dir),
            train_dataloader=loader,
            val_dataloader=dict(
                loader,
                num_workers=0,
                persistent_workers=False,
                sampler=dict(type='DefaultSampler', shuffle=False)),
            val_evaluator=dict(type='Nothing'),
            val_cfg=dict(),
            train_cfg=dict(by_epoch=True, max_epochs=4, val_interval=1)
            if by_epoch else dict(
                by_epoch=False, max_iters=9, val_interval=2),
            optim_wrapper=dict(
                optimizer=dict(type='SGD', lr=0.01, momentum=0.9)),
            param_scheduler=[
                dict(type='CosineAnnealingLR', T_max=12, by_epoch=False)
            ],
            default_hooks=dict(checkpoint=checkpoint),
            custom_hooks=list(hooks),
            randomness=dict(seed=1),
            default_scope='mmengine',
            log_level='WARNING',
            experiment_name=f'{work_dir}-{torch.rand(1).item()}'),
        **extra)


def train(*args, **kwargs):
    runner = Runner(**settings(*args, **kwargs))
    runner.train()
    return runner


def same(first, second):
    """Assert that two runners ended in the same state, bit for bit."""
    for name, value in first.model.state_dict().items():
        assert torch.equal(value, second.model.state_dict()[name]), name
    ends = [
        r.optim_wrapper.state_dict()['state'][0]['momentum_buffer']
        for r in (first, second)
    ]
    assert torch.equal(*ends)
    assert first.iter == second.iter
    seen = second.model.calls
    assert first.model.calls[-len(seen):] == seen


@pytest.mark.parametrize('stop, change', [
    (5, dict()),
    (6, dict()),
    (5, dict(by_epoch=False, every_epoch=False)),
    # In the middle and at the end of an epoch.
    (5, dict(every_epoch=False)),
    (6, dict(every_epoch=False)),
    (5, dict(by_epoch=False, every_epoch=False, workers=1)),
    (5, dict(every_epoch=False, workers=2)),
    (5, dict(workers=2, lasting=True)),
    (5, dict(every_epoch=False, workers=2, lasting=True)),
    (5, dict(by_epoch=False, every_epoch=False, workers=1, lasting=True)),
], ids=str)
def test_a_resumed_run_is_the_uninterrupted_one(tmp_path, stop, change):
    whole = train(tmp_path / 'whole', **change)
    with pytest.raises(KeyboardInterrupt):
        train(
            tmp_path / 'killed',
            hooks=[dict(type='StopAt', iteration=stop)],
            **change)
    resumed = train(tmp_path / 'killed', resume=True, **change)
    assert 0 < len(resumed.model.calls) < len(whole.model.calls)
    same(whole, resumed)
    # The same seed twice, and it is no constant.
    assert len(set(whole.model.calls)) > 8


@pytest.mark.parametrize('by_epoch', [True, False])
def test_a_finished_run_reads_no_data(tmp_path, monkeypatch, capfd, by_epoch):
    change = dict(by_epoch=by_epoch, every_epoch=by_epoch)
    first = train(tmp_path, **change)
    written = {p: p.stat().st_mtime_ns for p in tmp_path.rglob('*.pth')}
    assert written
    monkeypatch.setattr(NoisyPoints, '__getitem__', None)
    cfg = Config(settings(tmp_path, resume=True, **change))
    capfd.readouterr()
    path, seed = plan_resume(cfg)
    assert seed == 1
    limit = 'max_epochs=4' if by_epoch else 'max_iters=9'
    assert (f'checkpoint {path} has done {limit[-1]} of train_cfg.{limit}; '
            'raise that to go on: nothing is left to train') in ''.join(
                capfd.readouterr())
    again = Runner.from_cfg(cfg)
    again.train()
    key, _, number = limit.partition('=')
    cfg.train_cfg[key] = int(number) - 1
    with pytest.raises(InputError, match=f'{path} has done {number} of train_c'
                       f'fg.{key}={int(number) - 1}; raise that, or resume'):
        plan_resume(cfg)
    assert again.iter == first.iter
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob('*.pth')
            } == written


def test_validation_does_not_move_the_training(tmp_path):
    with_val = train(tmp_path / 'a')
    without = train(
        tmp_path / 'b',
        val_dataloader=None,
        val_evaluator=None,
        val_cfg=None)
    same(with_val, without)


def test_why_a_run_is_not_exact_is_said(tmp_path, caplog):
    change = dict(randomness=dict(seed=None))
    with pytest.raises(KeyboardInterrupt):
        train(
            tmp_path, hooks=[dict(type='StopAt', iteration=5)], **change)
    runner = Runner(**settings(tmp_path, resume=True, **change))
    runner.logger.addHandler(caplog.handler)
    runner.train()
    assert ('not bit for bit as if it had not stopped: the order of the data '
            'has another seed; set randomness=dict(seed=') in caplog.text


# --- writing ----------------------------------------------------------------
def names(folder):
    return sorted(p.name for p in Path(folder).rglob('*.pth'))


@pytest.mark.parametrize('save_best', [None, 'score'])
def test_the_old_checkpoint_goes_after_the_new_one_is_whole(
        tmp_path, monkeypatch, save_best):
    hook = dict(
        type='apa_mm.SafeCheckpointHook',
        interval=1,
        max_keep_ckpts=1,
        save_best=save_best,
        rule='greater' if save_best else None)
    there = []
    put = safe_checkpoint_hook._WholeFiles.put

    def watch(self, obj, filepath):
        there.append(find_checkpoint(str(tmp_path)))
        put(self, obj, filepath)
        there.append(find_checkpoint(str(tmp_path)))

    monkeypatch.setattr(safe_checkpoint_hook._WholeFiles, 'put', watch)
    train(tmp_path, default_hooks=dict(checkpoint=hook))
    assert there[0] is None and all(there[1:])
    expected = ['best_score_epoch_1.pth'] if save_best else []
    assert names(tmp_path) == expected + ['epoch_4.pth']


def test_a_disk_that_is_full_leaves_what_was_there(tmp_path, monkeypatch):
    train(tmp_path, train_cfg=dict(by_epoch=True, max_epochs=2))
    before = names(tmp_path)

    def full(self, content):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(Path, 'write_bytes', full)
    with pytest.raises(
            InputError,
            match=r'epoch_3.pth cannot be written \(No space left on device\)'
            '; make room'):
        train(tmp_path, resume=True)
    assert names(tmp_path) == before
    monkeypatch.undo()
    assert train(tmp_path, resume=True).epoch == 4


def test_weights_that_are_not_finite_are_not_saved(tmp_path):

    class Spoil(Hook):

        def after_train_iter(self, runner, *args, **kwargs):
            if runner.iter == 6:
                runner.model.fc[0].weight.data[0, 0] = float('nan')

    runner = Runner(**settings(tmp_path))
    runner.register_hook(Spoil())
    runner.train()
    assert names(tmp_path) == ['epoch_1.pth', 'epoch_2.pth']
    assert Path(find_checkpoint(str(tmp_path))).name == 'epoch_2.pth'


# --- finding ----------------------------------------------------------------
def flip_weights(path):
    """Change one bit of a weight; torch alone would not notice."""
    weight = read_checkpoint(str(path)).content['state_dict']['fc.0.weight']
    content = path.read_bytes()
    place = content.index(weight.numpy().tobytes())
    path.write_bytes(content[:place] + bytes([content[place] ^ 1]) +
                     content[place + 1:])


@pytest.mark.parametrize('damage, iterations', [
    (lambda f: (f / 'last_checkpoint').unlink(), 3),
    (lambda f: (f / 'last_checkpoint').write_text(''), 3),
    (lambda f: (f / 'last_checkpoint').write_text('/gone/epoch_9.pth'), 3),
    (lambda f: os.truncate(f / 'epoch_4.pth', 900), 6),
    (lambda f: (f / 'epoch_4.pth').write_bytes(b''), 6),
    (lambda f: flip_weights(f / 'epoch_4.pth'), 6),
], ids=['missing', 'empty', 'elsewhere', 'cut', 'void', 'flipped'])
def test_resuming_takes_the_newest_whole_checkpoint(tmp_path, damage,
                                                    iterations, caplog):
    train(tmp_path)
    damage(tmp_path)
    runner = Runner(
        **settings(
            tmp_path,
            resume=True,
            train_cfg=dict(by_epoch=True, max_epochs=5, val_interval=9)))
    runner.logger.addHandler(caplog.handler)
    runner.train()
    assert 'going on from the newest that is whole' in caplog.text
    # Three iterations an epoch: the fourth has to be done again or not.
    assert len(runner.model.calls) == iterations
    assert runner.epoch == 5


def test_a_folder_that_was_moved(tmp_path):
    train(tmp_path / 'a')
    (tmp_path / 'a').rename(tmp_path / 'b')
    assert find_checkpoint(str(tmp_path / 'b')) == str(
        tmp_path / 'b' / 'epoch_4.pth')


def test_only_damaged_checkpoints_are_refused(tmp_path):
    (tmp_path / 'epoch_1.pth').write_bytes(b'PK\3\4 cut')
    torch.save(dict(state_dict={}), tmp_path / 'epoch_2.pth')
    with pytest.raises(
            InputError, match='none of the checkpoints.*epoch_2.pth does not '
            'say where its training stood.*epoch_1.pth cannot be used'):
        train(tmp_path, resume=True)
    assert find_checkpoint(str(tmp_path / 'none')) is None


# --- killed -----------------------------------------------------------------
KILL = """
import os, signal, sys
sys.path[:0] = [{root!r}, {tests!r}, {here!r}]
import apa_mm.utils.files as files
from test_safe_checkpoint_hook import *
moment, nth = sys.argv[1], int(sys.argv[2])
owner = dict(fsync=os, replace=os, remove=os, unlink=os)[moment]
function = getattr(owner, moment)
def killed(*args, **kwargs):
    global nth
    nth -= 1
    if nth == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return function(*args, **kwargs)
setattr(owner, moment, killed)

train({work_dir!r}, val_dataloader=None, val_evaluator=None, val_cfg=None,
      default_hooks=dict(checkpoint=dict(
          type='apa_mm.SafeCheckpointHook', interval=1, max_keep_ckpts=1)))
"""


@pytest.mark.parametrize('moment, nth', [
    ('fsync', 3), ('fsync', 4), ('replace', 3), ('replace', 4), ('remove', 1)
])
def test_a_kill_while_writing_loses_at_most_one_checkpoint(
        tmp_path, moment, nth):
    """Each save syncs and moves twice: the checkpoint, then the mark."""
    here = Path(__file__).parent
    code = KILL.format(
        root=str(here.parents[1]),
        tests=str(here.parent),
        here=str(here),
        work_dir=str(tmp_path))
    result = forked.run(['-c', code, moment, nth])
    assert result.returncode == -signal.SIGKILL, result.stderr[-2000:]
    found = find_checkpoint(str(tmp_path))
    assert Path(found).name in ('epoch_1.pth', 'epoch_2.pth')
    resumed = train(
        tmp_path,
        resume=True,
        val_dataloader=None,
        val_evaluator=None,
        val_cfg=None)
    assert resumed.epoch == 4


# --- without a training -----------------------------------------------------
WHOLE = dict(meta=dict(epoch=1, iter=1), state_dict={}, message_hub={})


@pytest.mark.parametrize('lost', [
    *WHOLE, ('meta', 'epoch'), ('meta', 'iter')], ids=str)
def test_a_file_that_does_not_say_where_it_stood(tmp_path, lost):
    content = {k: dict(v) for k, v in WHOLE.items()}
    if isinstance(lost, tuple):
        del content[lost[0]][lost[1]]
    else:
        del content[lost]
    torch.save(dict(content, other=1), tmp_path / 'epoch_1.pth')
    with pytest.raises(InputError, match='not say where its training stood'):
        find_checkpoint(str(tmp_path))


def test_a_moved_folder_has_its_own_last_checkpoint(tmp_path):
    for name in ('best.pth', 'epoch_1.pth'):
        torch.save(WHOLE, tmp_path / name)
    for place in ('/gone/best.pth', str(tmp_path / 'best.pth'), 'best.pth'):
        (tmp_path / 'last_checkpoint').write_text(place)
        assert Path(find_checkpoint(str(tmp_path))).name == 'best.pth'


def test_what_last_checkpoint_names_elsewhere_comes_first(tmp_path):
    for folder in ('run', 'elsewhere'):
        (tmp_path / folder).mkdir()
        torch.save(WHOLE, tmp_path / folder / 'epoch_1.pth')
    named = tmp_path / 'elsewhere' / 'epoch_1.pth'
    (tmp_path / 'run' / 'last_checkpoint').write_text(str(named))
    assert find_checkpoint(str(tmp_path / 'run')) == str(named)
