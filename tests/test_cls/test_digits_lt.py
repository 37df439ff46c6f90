"""Configs of Digits-LT, and runs from training set to shot accuracy."""
import logging
from pathlib import Path

import pytest
from support.long_tail_sets import write_cifar
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from torch import nn

from apa_mm.engine import launch
from apa_mm.layers import AGLU, APA

CONFIGS = Path(__file__).parents[2] / 'configs/cls/digits_lt'
SETTING = '_digits-lt-ir50'
# A ResNet-20 has 1 + 9 * 2 sites of units and 9 blocks with attention.
# Variant: type of the units, gate, whether the prior is divided out.
EXPECTED = {
    'resnet20_relu': (nn.ReLU, None, False),
    'resnet20_silu': (nn.SiLU, None, False),
    'resnet20_gelu': (nn.GELU, None, False),
    'resnet20_mish': (nn.Mish, None, False),
    'resnet20_aglu': (AGLU, None, False),
    'seresnet20_relu': (nn.ReLU, nn.Sigmoid, False),
    'apa-seresnet20_relu': (nn.ReLU, APA, False),
    'apa-seresnet20_aglu': (AGLU, APA, False),
    'resnet20_relu_pc-softmax': (nn.ReLU, None, True),
    'apa-seresnet20_aglu_pc-softmax': (AGLU, APA, True),
}


def count(model, kind):
    return sum(type(module) is kind for module in model.modules())


def test_there_are_these_variants_and_no_others():
    names = {path.stem for path in CONFIGS.glob('*.py')}
    assert names == {name + SETTING for name in EXPECTED}


@pytest.mark.parametrize('name', EXPECTED)
def test_a_config_has_the_modules_of_its_name(name):
    unit, gate, offset = EXPECTED[name]
    cfg = Config.fromfile(CONFIGS / f'{name}{SETTING}.py')
    init_default_scope(cfg.default_scope)
    model = MODELS.build(cfg.model)
    # The hidden layer of every attention block has a ReLU of its own.
    hidden = 9 if gate else 0
    for kind in (nn.ReLU, nn.SiLU, nn.GELU, nn.Mish, AGLU):
        own = hidden if kind is nn.ReLU else 0
        assert count(model, kind) == 19 * (kind is unit) + own, kind
    for kind in (nn.Sigmoid, APA):
        assert count(model, kind) == 9 * (kind is gate), kind
    assert (model.head.logit_offset is not None) == offset
    hooks = [hook['type'] for hook in cfg.get('custom_hooks', [])]
    assert hooks == ['apa_mm.ClassFrequencyHook'] * offset


@pytest.mark.parametrize('name', ['resnet20_relu', 'apa-seresnet20_aglu'])
def test_imbalance_ten_trains_and_is_tested_on_the_same_split(name, tmp_path):
    config = f'{CONFIGS}_ir10/{name}_digits-lt-ir10.py'
    launch.train(
        config, work_dir=str(tmp_path), cfg_options={
            'train_cfg.max_epochs': 1,
            'train_cfg.val_interval': 1,
        })
    logging.shutdown()
    log = next(tmp_path.rglob('*.log')).read_text()
    # 544 training images; no class has fewer than 20 but digits 8 and 9.
    assert '[1][6/9]' in log and 'shot/few: ' in log
    cfg = Config.fromfile(config)
    for split in ('train', 'val', 'test'):
        dataset = cfg[f'{split}_dataloader'].dataset
        assert dataset.imbalance_factor == 10


def test_a_test_run_needs_no_training_set(tmp_path):
    config = str(CONFIGS / f'resnet20_relu_pc-softmax{SETTING}.py')
    options = {
        'train_cfg.max_epochs': 1,
        'default_hooks.checkpoint.interval': 1
    }
    launch.train(config, work_dir=str(tmp_path), cfg_options=options)
    options = {
        'train_dataloader': None,
        'train_cfg': None,
        'optim_wrapper': None,
        'param_scheduler': None
    }
    metrics = launch.test(
        config,
        str(tmp_path / 'epoch_1.pth'),
        work_dir=str(tmp_path / 'test'),
        cfg_options=options)
    logging.shutdown()
    assert {'shot/many', 'shot/medium', 'shot/few', 'calibration/ece',
            'accuracy/top1'} <= set(metrics)


CIFAR = """
_base_ = '{base}'
image = dict(
    type='apa_mm.CIFAR100LT', data_root='{root}', imbalance_factor=10,
    check_md5=False)
train_dataloader = dict(
    batch_size=8,
    sampler=dict(_delete_=True, type='apa_mm.ClassBalancedSampler',
                 epoch_size=16),
    dataset=dict(_delete_=True, split='train', **image, pipeline=[
        dict(type='RandomCrop', crop_size=32, padding=4),
        dict(type='RandomFlip', prob=0.5, direction='horizontal'),
        dict(type='NumpyToPIL'),
        dict(type='apa_mm.CIFARAutoAugment'),
        dict(type='PILToNumpy'),
        dict(type='Cutout', shape=16, pad_val=0, prob=1.0),
        dict(type='PackInputs')]))
test_dataloader = dict(dataset=dict(
    _delete_=True, split='test', test_mode=True, **image,
    pipeline=[dict(type='PackInputs')]))
val_dataloader = test_dataloader
data_preprocessor = dict(num_classes=100)
model = dict(head=dict(num_classes=100))
train_cfg = dict(max_epochs=1, val_interval=1)
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=1))
custom_hooks = [dict(type='apa_mm.ClassFrequencyHook')]
"""


def test_cifar100_lt_trains_with_class_balanced_sampling(tmp_path):
    write_cifar(tmp_path, 100, 20)
    base = CONFIGS / f'resnet20_relu_pc-softmax{SETTING}.py'
    config = tmp_path / 'cifar.py'
    config.write_text(CIFAR.format(base=base, root=tmp_path))
    model = launch.train(str(config), work_dir=str(tmp_path / 'work'))
    logging.shutdown()
    # 20 images of class 0 down to 2 of class 99, 737 in all.
    counts = model.head.class_counts.tolist()
    assert (counts[0], counts[-1], sum(counts)) == (20, 2, 737)
    log = next((tmp_path / 'work').rglob('*.log')).read_text()
    assert '[1][2/2]' in log and 'shot/few: ' in log
    assert 'shot/medium: ' in log and 'shot/many' not in log
