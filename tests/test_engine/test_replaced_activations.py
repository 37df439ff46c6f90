"""Swapping activations from a config, in real tiny runs."""
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.registry import DATASETS as ROOT_DATASETS
from mmengine.registry import MODELS as ROOT_MODELS
from mmengine.runner import Runner
from torch import nn

from apa_mm.layers import AGLU
from apa_mm.registry import MODELS

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


def config(work_dir, max_iters=3, **extra):
    return Config(
        dict(
            model=dict(
                type='apa_mm.ReplacedActivations',
                model=dict(type='SharedReLU'),
                types=['ReLU'],
                relu_kappa=5.0),
            work_dir=str(work_dir),
            train_dataloader=dict(
                dataset=dict(type='PointsForSwaps'),
                batch_size=4,
                num_workers=0,
                sampler=dict(type='InfiniteSampler', shuffle=False)),
            train_cfg=dict(by_epoch=False, max_iters=max_iters),
            optim_wrapper=dict(
                constructor='apa_mm.APAOptimWrapperConstructor',
                optimizer=dict(type='SGD', lr=0.1, weight_decay=0.3)),
            param_scheduler=[
                dict(type='LinearLR', start_factor=0.5, by_epoch=False, end=2)
            ],
            default_scope='mmengine',
            default_hooks=dict(
                checkpoint=dict(
                    type='CheckpointHook', interval=1, by_epoch=False)),
            **extra))


def units(runner):
    return [m for m in runner.model.modules() if isinstance(m, AGLU)]


def test_the_units_are_there_trained_and_without_weight_decay(tmp_path):
    runner = Runner.from_cfg(
        config(
            tmp_path,
            data_preprocessor=dict(type='BaseDataPreprocessor')))
    runner.train()
    assert type(runner.model).__name__ == 'SharedReLU'
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


def test_a_run_is_resumed_with_its_learned_values(tmp_path):
    first = Runner.from_cfg(config(tmp_path, max_iters=2))
    first.train()
    learned = [unit.kappa.item() for unit in units(first)]
    second = Runner.from_cfg(config(tmp_path, max_iters=3, resume=True))
    seen = []

    class Look(Hook):

        def before_train(self, runner):
            seen.extend(unit.kappa.item() for unit in units(runner))

    second.register_hook(Look())
    second.train()
    assert seen == learned and second.iter == 3


def test_a_child_config_wraps_the_model_of_its_base(tmp_path):
    base = tmp_path / 'base.py'
    base.write_text("model = dict(type='SharedReLU')")
    child = tmp_path / 'child.py'
    child.write_text("_base_ = ['base.py']\nmodel = dict(_delete_=True, "
                     "type='apa_mm.ReplacedActivations', "
                     "model={{_base_.model}}, types=['ReLU'])")
    model = MODELS.build(Config.fromfile(child).model)
    assert sum(isinstance(m, AGLU) for m in model.modules()) == 2
