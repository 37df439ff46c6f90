"""Runs of the launcher that are killed and go on."""
import pytest
import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from support.tiny_jobs import (write_classification_config,
                               write_classification_data,
                               write_detection_config, write_detection_data)

from apa_mm.engine import launch
from apa_mm.preflight.job import InputError
from apa_mm.utils.imports import HAS_MMDET, HAS_MMPRETRAIN
from apa_mm.weights import read_checkpoint

pytestmark = pytest.mark.skipif(
    not (HAS_MMDET and HAS_MMPRETRAIN), reason='mmdet or mmpretrain missing')


@HOOKS.register_module(force=True)
class KillAt(Hook):
    """Ends a training in an iteration, as a kill does."""

    priority = 'LOWEST'

    def __init__(self, iteration):
        self.iteration = iteration

    def after_train_iter(self, runner, *args, **kwargs):
        if runner.iter + 1 == self.iteration:
            raise KeyboardInterrupt


@pytest.fixture(scope='module', params=['det', 'cls'])
def config(request, tmp_path_factory):
    root = tmp_path_factory.mktemp(request.param)
    if request.param == 'det':
        data = write_detection_data(root / 'data')
        path = write_detection_config(root / 'tiny.py', data)
    else:
        data = write_classification_data(root / 'data')
        path = write_classification_config(root / 'tiny.py', data)
    changes = {
        # mmengine draws one.
        'dict(seed=0)': 'dict(seed=None)',
        "dict(\n        type='Pack": "dict(type='Pack",
        "dict(type='Pack": "dict(type='RandomFlip', prob=0.5), "
                           "dict(type='Pack",
        # Anchors alone: the RPN has no place for more.
        'rpn=dict(\n            assigner=assigner, sampler=sampler':
            'rpn=dict(assigner=assigner, '
            'sampler=dict(sampler, add_gt_as_proposals=False)',
    }
    text = path.read_text()
    for old, new in changes.items():
        text = text.replace(old, new)
    path.write_text(text)
    return str(path)


def train(config, work_dir, seed=None, stop=None, epochs=3, **kwargs):
    hooks = [] if stop is None else [dict(type='KillAt', iteration=stop)]
    options = {
        'train_cfg.max_epochs': epochs,
        'train_cfg.val_interval': 1,
        'custom_hooks': hooks,
        'experiment_name': f'{work_dir.name}-{torch.rand(1).item()}',
        'optim_wrapper.optimizer.lr': 0.01,
        'optim_wrapper.constructor': 'apa_mm.APAOptimWrapperConstructor',
    }
    if seed is not None:
        options['randomness.seed'] = seed
    options.update(kwargs.pop('cfg_options', {}))
    return launch.train(
        config, work_dir=str(work_dir), cfg_options=options, **kwargs)


def saved(path):
    return read_checkpoint(str(path)).content


def test_killed_and_resumed_is_uninterrupted_bit_for_bit(
        config, tmp_path, capfd):
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / 'killed', stop=3)
    # The seed that mmengine drew travels in the checkpoint.
    seed = saved(tmp_path / 'killed/epoch_1.pth')['meta']['seed']
    train(config, tmp_path / 'killed', resume='auto')
    train(config, tmp_path / 'whole', seed=seed)
    ends = [saved(tmp_path / name / 'epoch_3.pth')
            for name in ('killed', 'whole')]
    for key, value in ends[0]['state_dict'].items():
        assert torch.equal(value, ends[1]['state_dict'][key]), key
    first = saved(tmp_path / 'whole/epoch_1.pth')['state_dict']
    assert any(not torch.equal(value, first[key])
               for key, value in ends[0]['state_dict'].items())
    # All is done: nothing is left, and nothing is written again.
    written = (tmp_path / 'whole/epoch_3.pth').stat().st_mtime_ns
    capfd.readouterr()
    train(config, tmp_path / 'whole', resume='auto')
    assert (tmp_path / 'whole/epoch_3.pth').stat().st_mtime_ns == written
    said = ''.join(capfd.readouterr())
    assert 'max_epochs=3; raise that to go on: nothing is left' in said
    assert 'Epoch(train)' not in said


@pytest.mark.parametrize('config', ['cls'], indirect=True)
def test_what_cannot_be_resumed_is_one_sentence(config, tmp_path):
    train(config, tmp_path, epochs=2)
    with pytest.raises(InputError, match='epoch_2.pth has done 2 of train_cfg'
                       '.max_epochs=1; raise that'):
        train(config, tmp_path, epochs=1, resume='auto')
    with pytest.raises(InputError, match='that of the config 1 of 144; resume '
                       'by the config it was trained with'):
        train(
            config,
            tmp_path,
            resume='auto',
            cfg_options={
                'optim_wrapper.constructor': 'DefaultOptimWrapperConstructor'
            })
    content = saved(tmp_path / 'epoch_2.pth')
    content['optimizer'] = dict(state={})
    torch.save(content, tmp_path / 'none.pth')
    with pytest.raises(InputError, match='has 0 groups of 0 parameters'):
        train(config, tmp_path, resume=str(tmp_path / 'none.pth'))
    content['meta'] = 'lost'
    torch.save(content, tmp_path / 'none.pth')
    with pytest.raises(InputError, match='does not say where its training st'):
        train(config, tmp_path, resume=str(tmp_path / 'none.pth'))


@pytest.mark.parametrize('config', ['cls'], indirect=True)
def test_lost_losses_stop_the_run(config, tmp_path):
    with pytest.raises(InputError, match='^loss not finite in iteration '):
        train(
            config,
            tmp_path,
            epochs=9,
            cfg_options={
                'optim_wrapper.optimizer.lr': 1e30,
                'optim_wrapper.clip_grad': None,
                'param_scheduler': []
            })
