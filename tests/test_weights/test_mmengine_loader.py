"""mmengine reads by our reader, whichever of the two comes first."""
import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.runner import CheckpointLoader

from apa_mm.utils.imports import HAS_MMDET
from apa_mm.weights import mmengine_loader
from support import entrances, forked

JOB = """
import sys
import torch
import apa_mm
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


def run_job(iterations, folder):
    return forked.run(['-c', JOB, iterations, folder])


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp('job')
    result = run_job(2, folder)
    assert 'done 2 2 4.0' in result.stdout, result.stderr
    return folder


def test_two_iterations_resume_two_more(trained):
    result = run_job(4, trained)
    assert 'resumed epoch: 0, iter: 2' in result.stdout, result.stderr
    # Four logged losses: two of them came out of the file.
    assert 'done 4 4 4.0' in result.stdout, result.stderr


ORDERS = {
    'before': 'import apa_mm\nfrom mmengine.runner import CheckpointLoader',
    'after': 'from mmengine.runner import CheckpointLoader\nimport apa_mm',
    'between': 'import mmengine\nimport apa_mm\n'
               'from mmengine.runner import CheckpointLoader',
    'type in a config': (
        'from mmengine.registry import MODELS\n'
        "MODELS.build(dict(type='apa_mm.AGLU'))\n"
        'from mmengine.runner import CheckpointLoader'),
}


@pytest.mark.parametrize('order', ORDERS)
def test_our_loader_is_there_in_any_order_of_imports(order):
    code = ORDERS[order] + """
import torch
print([(k, v.__module__) for k, v in CheckpointLoader._schemes.items() if not k
      or 'apa_mm' not in str(getattr(v, '__globals__', {}).get('__name__'))])
print([i for i in torch.serialization.get_safe_globals()
       if not i.__module__.startswith('torch.')])
"""
    result = subprocess.run([sys.executable, '-c', code], capture_output=True,
                            text=True)
    # Some libraries greet on the standard output first.
    assert result.stdout.splitlines()[-2:] == [
        "[('', 'apa_mm.weights.mmengine_loader')]", '[]'], (
            result.stdout + result.stderr)


def test_importing_the_package_imports_nothing_heavy():
    code = ("import sys, apa_mm; print([m for m in ('torch', 'mmengine', "
            "'numpy') if m in sys.modules])")
    result = subprocess.run([sys.executable, '-c', code], capture_output=True,
                            text=True)
    assert result.stdout == '[]\n', result.stderr


class Web:
    """A server that hands out one file, as mmengine's downloads see it."""

    def __init__(self, path):
        self.path = path

    def __call__(self, url, dst, *args, **kwargs):
        Path(dst).write_bytes(Path(self.path).read_bytes())


@pytest.mark.parametrize('content, words', [
    (dict(state_dict=dict(a=torch.ones(2))), None),
    (dict(state_dict=entrances.Call(os.system, 'touch it-ran')),
     'wants posix.system'),
])
def test_downloads_are_read_by_us_too(tmp_path, monkeypatch, content, words):
    monkeypatch.chdir(tmp_path)
    torch.save(content, 'source.pth')
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    monkeypatch.setattr(torch.hub, 'download_url_to_file', Web('source.pth'))
    load = CheckpointLoader.load_checkpoint
    own = torch.load
    if words is None:
        assert torch.equal(
            load('https://a.b/c.pth', 'cpu')['state_dict']['a'],
            torch.ones(2))
    else:
        with pytest.raises(ValueError, match=words):
            load('https://a.b/c.pth', 'cpu')
    assert torch.load is own and not Path('it-ran').exists()


def test_safetensors_that_we_wrote_keep_their_meta(tmp_path):
    from apa_mm.checkpoint import write_checkpoint
    path = write_checkpoint(
        str(tmp_path / 'a.safetensors'), dict(a=torch.ones(1)), dict(b=2))
    loaded = CheckpointLoader.load_checkpoint(path)
    assert loaded['meta'] == dict(b=2) and list(loaded['state_dict']) == ['a']


def versions(value):
    state = torch.nn.Linear(1, 1).state_dict()
    state._metadata = value
    return state


@pytest.mark.parametrize('state, words', [
    (None, 'its state_dict is a NoneType'),
    ([1], 'its state_dict is a list'),
    ({1: torch.ones(1)}, 'the name 1, which no'),
    ({'a\x1b[2J': torch.ones(1)}, r'the name .a.*x1b\[2J., which no'),
    (versions(5), 'versions of its modules'),
    (versions({'': 5}), 'versions of its modules'),
    (versions({'': dict(version='2')}), 'versions of its modules'),
])
def test_state_dicts_on_which_mmengine_breaks(tmp_path, state, words):
    path = str(tmp_path / 'a.pth')
    torch.save(dict(state_dict=state), path)
    with pytest.raises(ValueError, match=f'a.pth cannot be used: .*{words}'):
        CheckpointLoader.load_checkpoint(path)


def test_state_dicts_that_are_as_torch_writes_them(tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    state = versions({'': {}, 'a': dict(version=2)})
    torch.save(state, tmp_path / 'a.pth')
    loaded = CheckpointLoader.load_checkpoint('~/a.pth', 'meta')
    assert loaded._metadata == state._metadata
    assert loaded['weight'].is_meta


@pytest.mark.parametrize('stream', [False, True])
def test_what_downloads_hand_to_torch(tmp_path, stream):
    path = tmp_path / 'a.pth'
    torch.save(dict(state_dict=dict(a=torch.ones(2))), path)
    read = (lambda: io.BytesIO(path.read_bytes())) if stream else (
        lambda: path)
    assert mmengine_loader._load(read(), 'meta', weights_only=False)[
        'state_dict']['a'].is_meta
    torch.save(dict(state_dict=[1]), path)
    with pytest.raises(ValueError, match='its state_dict is a list'):
        mmengine_loader._load(read())


def test_a_second_installation_changes_nothing():
    before = dict(CheckpointLoader._schemes)
    mmengine_loader.install()
    assert dict(CheckpointLoader._schemes) == before
    assert all(loader is mmengine_loader.load_from_local
               or hasattr(loader, '__wrapped__')
               for loader in before.values())


@pytest.mark.parametrize('meta', ['{no', '[' * 100_000])
def test_a_meta_of_safetensors_that_is_no_json(tmp_path, meta):
    from safetensors.torch import save_file
    path = str(tmp_path / 'a.safetensors')
    save_file(dict(a=torch.ones(1)), path, dict(meta=meta))
    with pytest.raises(ValueError, match='a.safetensors cannot be used: '):
        CheckpointLoader.load_checkpoint(path)


def test_a_missing_file_is_mmengines_own_error():
    with pytest.raises(FileNotFoundError, match='none.pth can not be found'):
        CheckpointLoader.load_checkpoint('none.pth')


def test_mmdet_style_history_is_restored(tmp_path):
    from mmengine.logging import HistoryBuffer
    buffer = HistoryBuffer([1.0, 2.0, 6.0], [1, 1, 1])
    torch.save(dict(loss=buffer, best=np.float64(0.25)), tmp_path / 'a.pth')
    loaded = CheckpointLoader.load_checkpoint(str(tmp_path / 'a.pth'))
    assert loaded['loss'].mean() == 3.0 and loaded['best'] == 0.25
    assert loaded['loss'].statistics('max') == 6.0
    loaded['loss'].update(3.0)
    assert loaded['loss'].current() == 3.0


GROUPS = [['convert', 'inspect', 'pretrained', 'load_from', 'resume', 'test'],
          pytest.param(
              ['pretrained_of_mmdet', 'detector', 'inferencer'],
              marks=pytest.mark.skipif(
                  not HAS_MMDET, reason='needs mmdet with mmcv.ops'))]


@pytest.mark.parametrize('group', GROUPS, ids=lambda g: g[0])
def test_every_attack_fails_at_every_entrance(tmp_path, group):
    result = forked.run([entrances.__file__, tmp_path, *group])
    rows = [line.split(' | ') for line in result.stdout.splitlines()
            if line.count(' | ') == 2]
    assert result.returncode == 0, result.stdout + result.stderr[-2000:]
    attacks = entrances.all_attacks(dict(a=torch.ones(9)), 'x')
    assert len(rows) == len(group) * len(attacks)
    for entrance, attack, word in rows:
        assert word.startswith('CheckpointError: '), (entrance, attack, word)
        assert 'IT RAN' not in word
