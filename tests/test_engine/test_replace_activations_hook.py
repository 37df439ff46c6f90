"""Swapping activations from a config, in real tiny runs."""
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper
from mmengine.registry import DATASETS as ROOT_DATASETS
from mmengine.registry import MODELS as ROOT_MODELS
from mmengine.runner import Runner
from torch import nn

from apa_mm.engine.hooks import ReplaceActivationsHook
from apa_mm.layers import AGLU

ROOT = Path(__file__).parents[2]


@ROOT_MODELS.register_module(force=True)
class SharedReLU(BaseModel):

    def __init__(self, data_preprocessor=None):
        super().__init__(data_preprocessor=data_preprocessor)
        self.fc1, self.fc2 = nn.Linear(4, 4), nn.Linear(4, 1)
        self.relu = nn.ReLU()

    def forward(self, inputs, data_samples=None, mode='tensor'):
        x = torch.stack(list(inputs))
        x = self.relu(self.fc1(x))
        x = self.fc2(self.relu(x - 0.5))
        return dict(loss=x.square().mean()) if mode == 'loss' else x


@ROOT_DATASETS.register_module(name='PointsForSwaps', force=True)
class Points(torch.utils.data.Dataset):

    def __len__(self):
        return 8

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index)
        return dict(inputs=torch.randn(4, generator=generator))


def config(work_dir, hook=None, model=None, max_iters=3, **extra):
    return Config(
        dict(
            model=model or dict(type='SharedReLU'),
            work_dir=str(work_dir),
            train_dataloader=dict(
                dataset=dict(type='PointsForSwaps'),
                batch_size=4,
                num_workers=0,
                sampler=dict(type='InfiniteSampler', shuffle=False)),
            train_cfg=dict(by_epoch=False, max_iters=max_iters),
            optim_wrapper=dict(
                optimizer=dict(type='SGD', lr=0.1, weight_decay=0.3),
                paramwise_cfg=dict(custom_keys=dict(
                    kappa=dict(decay_mult=0), lambd=dict(decay_mult=0)))),
            param_scheduler=[
                dict(type='LinearLR', start_factor=0.5, by_epoch=False, end=2)
            ],
            default_scope='mmengine',
            default_hooks=dict(
                checkpoint=dict(
                    type='CheckpointHook', interval=1, by_epoch=False)),
            custom_hooks=[hook] if hook else [],
            **extra))


def units(runner):
    return [m for m in runner.model.modules() if isinstance(m, AGLU)]


HOOK = dict(
    type='apa_mm.ReplaceActivationsHook', types=['ReLU'], relu_kappa=5.0)


def test_the_units_are_there_trained_and_without_weight_decay(tmp_path):
    runner = Runner.from_cfg(config(tmp_path, HOOK))
    runner.train()
    found = units(runner)
    assert len(found) == 2  # one per call of the one ReLU
    assert all(unit.kappa.item() != 5.0 for unit in found)
    decay = {
        id(p): group['weight_decay']
        for group in runner.optim_wrapper.optimizer.param_groups
        for p in group['params']
    }
    for name, parameter in runner.model.named_parameters():
        expected = 0 if name.endswith(('kappa', 'lambd')) else 0.3
        assert decay[id(parameter)] == expected, name
    # The schedule drives the optimizer that is used now.
    assert runner.optim_wrapper.get_lr()['lr'][0] == pytest.approx(0.1)
    assert {len(g['params']) for g in
            runner.optim_wrapper.optimizer.param_groups} == {1}


def test_a_run_is_resumed_with_its_learned_values(tmp_path):
    first = Runner.from_cfg(config(tmp_path, HOOK, max_iters=2))
    first.train()
    learned = [unit.kappa.item() for unit in units(first)]
    second = Runner.from_cfg(
        config(tmp_path, HOOK, max_iters=3, resume=True))
    seen = []
    class Look(Hook):

        def before_train(self, runner):
            seen.extend(unit.kappa.item() for unit in units(runner))

    second.register_hook(Look())
    second.train()
    assert seen == learned and second.iter == 3


def test_the_ema_copy_has_the_units_too(tmp_path):
    cfg = config(tmp_path, HOOK)
    cfg.custom_hooks.append(dict(type='EMAHook'))
    runner = Runner.from_cfg(cfg)
    runner.train()
    ema = next(h for h in runner.hooks if type(h).__name__ == 'EMAHook')
    names = [n for n, _ in ema.ema_model.module.named_parameters()]
    assert names == [n for n, _ in runner.model.named_parameters()]
    assert any(n.endswith('kappa') for n in names)


def test_auto_scale_lr_still_holds(tmp_path):
    runner = Runner.from_cfg(
        config(
            tmp_path,
            HOOK,
            auto_scale_lr=dict(enable=True, base_batch_size=8)))
    runner.train()
    # Batch 4 of 8: half of 0.1.
    assert runner.optim_wrapper.get_lr()['lr'][0] == pytest.approx(0.05)


def test_testing_swaps_before_the_checkpoint_is_loaded(tmp_path):
    trained = Runner.from_cfg(config(tmp_path, HOOK))
    trained.train()
    cfg = config(tmp_path, HOOK)
    for key in ('train_dataloader', 'train_cfg', 'optim_wrapper',
                'param_scheduler'):
        cfg.pop(key)
    cfg.load_from = str(tmp_path / 'iter_3.pth')
    runner = Runner.from_cfg(cfg)
    hook = next(h for h in runner.hooks
                if isinstance(h, ReplaceActivationsHook))
    hook.before_run(runner)
    hook.before_run(runner)  # once is enough
    runner.load_or_resume()
    state = runner.model.state_dict()
    for name, value in trained.model.state_dict().items():
        assert torch.equal(state[name], value)


def test_an_optimizer_object_cannot_be_built_anew(tmp_path):
    model = SharedReLU()
    optimizer = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1))
    cfg = config(tmp_path)
    runner = Runner(
        model=model,
        work_dir=str(tmp_path),
        train_dataloader=cfg.train_dataloader,
        train_cfg=cfg.train_cfg,
        optim_wrapper=optimizer,
        custom_hooks=[HOOK],
        default_scope='mmengine')
    with pytest.raises(RuntimeError, match='got it as an object.*Replaced'):
        runner.train()


def test_the_switch_in_the_model_config_does_the_same(tmp_path):
    model = dict(
        type='apa_mm.ReplacedActivations',
        model=dict(type='SharedReLU'),
        types=['ReLU'],
        relu_kappa=5.0)
    runner = Runner.from_cfg(
        config(
            tmp_path,
            model=model,
            data_preprocessor=dict(type='BaseDataPreprocessor')))
    runner.train()
    assert type(runner.model).__name__ == 'SharedReLU'
    assert len(units(runner)) == 2
    assert all(unit.kappa.item() != 5.0 for unit in units(runner))


DISTRIBUTED = """
import os, sys
sys.path[:0] = [{root!r}, {tests!r}]
import torch
torch.distributed.init_process_group(
    'gloo', init_method='file://' + {work_dir!r} + '/meet', rank=0,
    world_size=1)
from test_replace_activations_hook import HOOK, Runner, config, units
cfg = config({work_dir!r}, HOOK, launcher='pytorch',
             model_wrapper_cfg=dict(
                 type='MMDistributedDataParallel', device_ids=None))
runner = Runner.from_cfg(cfg)
runner.train()
wrapped = type(runner.model).__name__
reduced = set(map(id, runner.model._module_parameters))
units = units(runner)
print(wrapped, len(units), all(id(u.kappa) in reduced for u in units))
"""


def test_a_distributed_model_is_wrapped_again(tmp_path):
    # One process: what counts is that DDP knows the new parameters.
    code = DISTRIBUTED.format(
        root=str(ROOT), tests=str(Path(__file__).parent),
        work_dir=str(tmp_path))
    env = dict(
        os.environ, RANK='0', LOCAL_RANK='0', WORLD_SIZE='1',
        CUDA_VISIBLE_DEVICES='')
    result = subprocess.run([sys.executable, '-c', code],
                            capture_output=True, text=True, env=env)
    assert result.returncode == 0, result.stderr[-2000:]
    assert result.stdout.splitlines()[-1] == (
        'MMDistributedDataParallel 2 True')
