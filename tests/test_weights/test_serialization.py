import os
import pickle
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer

from apa_mm.weights import serialization

JOB = """
import sys
import torch
{preamble}
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, METRICS, MODELS
from mmengine.evaluator import BaseMetric
from mmengine.runner import Runner
import numpy as np

@MODELS.register_module()
class Line(BaseModel):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)
    def forward(self, x, mode='tensor'):
        y = self.layer(torch.stack(x))
        return dict(loss=y.pow(2).mean()) if mode == 'loss' else [y]

@DATASETS.register_module()
class Points(torch.utils.data.Dataset):
    metainfo = dict(classes=('a', 'b'), palette=np.zeros((2, 3), np.uint8))
    def __len__(self):
        return 8
    def __getitem__(self, index):
        return dict(x=torch.ones(2) * index)

@METRICS.register_module()
class Score(BaseMetric):
    def process(self, data_batch, data_samples):
        self.results.append(1)
    def compute_metrics(self, results):
        return dict(acc=np.float64(len(results)))

loader = dict(
    dataset=dict(type='Points'), batch_size=2, num_workers=0,
    sampler=dict(type='InfiniteSampler', shuffle=True))
iterations = int(sys.argv[1])
runner = Runner.from_cfg(Config(dict(
    model=dict(type='Line'), work_dir=sys.argv[2], train_dataloader=loader,
    train_cfg=dict(by_epoch=False, max_iters=iterations, val_interval=2),
    val_dataloader=dict(loader, sampler=dict(
        type='DefaultSampler', shuffle=False)),
    val_cfg=dict(), val_evaluator=dict(type='Score'),
    optim_wrapper=dict(optimizer=dict(type='AdamW', lr=0.01)),
    param_scheduler=[
        dict(type='OneCycleLR', eta_max=0.1, total_steps=8, by_epoch=False),
        dict(type='MultiStepLR', milestones=[1, 3], by_epoch=False)],
    default_hooks=dict(
        logger=dict(type='LoggerHook', interval=1),
        checkpoint=dict(type='CheckpointHook', interval=2, by_epoch=False,
                        save_best='acc')),
    custom_hooks=[dict(type='EMAHook')],
    resume=iterations > 2, default_scope='mmengine')))
runner.train()
losses = runner.message_hub.get_scalar('train/loss').data[0]
print('done', runner.iter, len(losses),
      runner.message_hub.get_info('best_score'))
"""


def run_job(iterations, folder, preamble='import apa_mm'):
    return subprocess.run([
        sys.executable, '-c',
        JOB.format(preamble=preamble),
        str(iterations),
        str(folder)
    ],
                          capture_output=True,
                          text=True,
                          env=dict(os.environ, OMP_NUM_THREADS='1'))


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp('job')
    result = run_job(2, folder)
    assert 'done 2 2 4.0' in result.stdout, result.stderr
    return folder


@pytest.mark.skipif(
    torch.__version__ < '2.6', reason='torch.load did not restrict itself')
def test_without_the_package_a_resume_fails(trained):
    result = run_job(4, trained, preamble='')
    assert result.returncode != 0
    assert 'Weights only load failed' in result.stderr


def test_two_iterations_resume_two_more(trained):
    result = run_job(4, trained)
    assert 'resumed epoch: 0, iter: 2' in result.stdout, result.stderr
    # Four logged losses: two of them came out of the file.
    assert 'done 4 4 4.0' in result.stdout, result.stderr


def history():
    buffer = HistoryBuffer([1.0, 2.0, 6.0], [1, 1, 1])
    return dict(loss=buffer, best=np.float64(0.25), count=np.int64(3))


def check_history(loaded):
    assert loaded['loss'].mean() == 3.0
    assert loaded['loss'].statistics('max') == 6.0
    assert loaded['best'] == 0.25 and loaded['count'] == 3


def test_what_a_message_hub_holds_is_read(tmp_path):
    torch.save(history(), tmp_path / 'a.pth')
    check_history(torch.load(tmp_path / 'a.pth', weights_only=True))


def rename_in_pickle(path, old, new):
    with zipfile.ZipFile(path) as archive:
        entries = [(info, archive.read(info)) for info in archive.infolist()]
    assert any(old in data for _, data in entries)
    with zipfile.ZipFile(path, 'w') as archive:
        for info, data in entries:
            archive.writestr(info, data.replace(old, new))


@pytest.mark.parametrize('module', ['numpy.core', 'numpy._core'])
def test_files_of_numpy_1_and_2_are_read(tmp_path, module):
    path = tmp_path / 'a.pth'
    torch.save(history(), path)
    own = np.float64(0).__reduce__()[0].__module__.rpartition('.')[0]
    rename_in_pickle(path, f'{own}.multiarray'.encode(),
                     f'{module}.multiarray'.encode())
    check_history(torch.load(path, weights_only=True))


class Call:
    """Pickles as a call."""

    def __init__(self, function, *args):
        self.function, self.args = function, args

    def __reduce__(self):
        return self.function, self.args


@pytest.mark.parametrize('call', [
    Call(os.system, 'touch {mark}'),
    Call(eval, "open('{mark}', 'w')"),
    Call(exec, "open('{mark}', 'w')"),
    Call(open, '{mark}', 'w'),
    Call(subprocess.call, ['touch', '{mark}']),
    Call(__import__, 'os'),
],
                         ids=lambda call: call.function.__name__)
def test_hostile_calls_are_refused(tmp_path, call):
    mark = tmp_path / 'mark'
    call.args = tuple(
        arg.format(mark=mark) if isinstance(arg, str) else
        [word.format(mark=mark) for word in arg] for arg in call.args)
    torch.save(dict(state_dict={}, message_hub=call), tmp_path / 'a.pth')
    with pytest.raises(pickle.UnpicklingError, match='(?i)unsupported global'):
        torch.load(tmp_path / 'a.pth', weights_only=True)
    assert not mark.exists()


@pytest.mark.parametrize('owner, name', [
    (np.ndarray, 'tofile'),
    (HistoryBuffer, '__init__'),
    (HistoryBuffer, 'register_statistics'),
    (torch.Tensor, 'mean'),
])
def test_getattr_gives_nothing_but_the_known_methods(tmp_path, owner, name):
    torch.save(Call(getattr, owner, name), tmp_path / 'a.pth')
    with pytest.raises(pickle.UnpicklingError, match=f"'{name}'.*only the"):
        torch.load(tmp_path / 'a.pth', weights_only=True)


def test_the_list_holds_nothing_else():
    names = {
        f'{item.__module__}.{item.__qualname__}'
        for item in serialization._safe_globals()
    }
    dtypes = {
        f'numpy.dtypes.{kind}DType' for kind in ('Bool', 'UInt8', 'Int32',
                                                 'Int64', 'Float32', 'Float64')
    }
    assert names - dtypes == {
        'mmengine.logging.history_buffer.HistoryBuffer',
        'mmengine.optim.scheduler.param_scheduler.OneCycleParamScheduler',
        'numpy.ndarray', 'numpy.dtype', 'numpy.core.multiarray._reconstruct',
        'numpy.core.multiarray.scalar', 'numpy._core.multiarray._reconstruct',
        'numpy._core.multiarray.scalar', 'builtins.getattr',
        '__builtin__.getattr'
    }
    listed = torch.serialization.get_safe_globals()
    assert getattr not in listed and eval not in listed


def test_a_second_call_adds_nothing():
    before = len(torch.serialization.get_safe_globals())
    assert serialization.allow_mmengine_checkpoints() is True
    assert len(torch.serialization.get_safe_globals()) == before


def test_old_torch_has_no_list(monkeypatch):
    monkeypatch.delattr(torch.serialization, 'add_safe_globals')
    assert serialization.allow_mmengine_checkpoints() is False
