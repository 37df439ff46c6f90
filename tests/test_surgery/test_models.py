"""Swapping activations in models of four libraries."""
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from mmengine.hub import get_config
from mmengine.registry import DefaultScope

from apa_mm.layers import AGLU
from apa_mm.surgery import replace_activations
from apa_mm.registry import MODELS
from apa_mm.utils.imports import HAS_MMDET, HAS_MMPRETRAIN

ROOT = Path(__file__).parents[2]
# transformers 5 and mmpretrain 1.2 cannot be imported in one environment;
# "pip install --target" of it may lie here.
OPTIONAL = ROOT / '.venv' / 'optional'


def units(model):
    return [m for m in model.modules() if isinstance(m, AGLU)]


# --- whole models; tolerances are relative to the output's largest value,
# measured with random weights and rounded up ---
def build(name, scope, **changes):
    cfg = get_config(f'{scope}::{name}')
    with DefaultScope.overwrite_default_scope(scope):
        cfg.merge_from_dict(changes)
        if 'init_cfg' in cfg.model.backbone:
            cfg.model.backbone.pop('init_cfg')
        model = MODELS.build(cfg.model)
    model.init_weights()  # some parameters have no value before
    # Heads start with weights so small, or zero, that 2.8e-5 would show or
    # nothing at all; trained ones keep the scale of what they get.
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight)
        elif isinstance(module, torch.nn.Linear):
            torch.nn.init.xavier_normal_(module.weight)
    model.eval()
    return model


def flat(outputs):
    if isinstance(outputs, torch.Tensor):
        return [outputs]
    if isinstance(outputs, dict):
        outputs = list(outputs.values())
    return [t for item in outputs if item is not None for t in flat(item)]


def assert_same_function(model, run, expected_units, tolerance, **options):
    before = flat(run(model))
    report = replace_activations(model, **options)
    after = flat(run(model))
    assert report.num_units == expected_units == len(units(model)), report
    for one, two in zip(before, after, strict=True):
        assert one.abs().max() > 1e-4
        assert (one - two).abs().max() <= tolerance * one.abs().max()
    # All units are used, so that each can learn (and DDP finds no loose end).
    sum(t.square().sum() for t in after).backward()
    unused = [n for n, p in model.named_parameters()
              if n.endswith(('kappa', 'lambd')) and p.grad is None]
    assert not unused
    return report


def forward_tensor(image_size):
    x = torch.randn(1, 3, image_size, image_size)
    return lambda model: model(x, mode='tensor')


@pytest.mark.skipif(not HAS_MMDET, reason='needs mmdet with mmcv.ops')
def test_rtmdet():
    model = build('rtmdet/rtmdet_tiny_8xb32-300e_coco.py', 'mmdet')
    report = assert_same_function(model, forward_tensor(64), 76, 1e-5)
    assert not report.kept
    assert {swap.old for swap in report.swapped} == {'SiLU'}


@pytest.mark.skipif(not HAS_MMDET, reason='needs mmdet with mmcv.ops')
def test_retinanet_with_shared_activations_in_its_blocks():
    model = build('retinanet/retinanet_r18_fpn_1x_coco.py', 'mmdet')
    # Stem 1, eight blocks of 2, four convolutions in each of two branches.
    report = assert_same_function(model, forward_tensor(64), 1 + 16 + 8, 1e-3)
    assert report.kept == [('bbox_head.relu', 'RetinaHead never calls it')]
    assert 'kept bbox_head.relu' in str(report)


@pytest.mark.skipif(not HAS_MMDET, reason='needs mmdet with mmcv.ops')
def test_deformable_detr():
    from mmdet.structures import DetDataSample
    model = build(
        'deformable_detr/deformable-detr_r50_16xb2-50e_coco.py', 'mmdet', **{
            'model.encoder.num_layers': 1,
            'model.decoder.num_layers': 1,
            'model.num_queries': 10
        })
    sample = DetDataSample(metainfo=dict(
        img_shape=(64, 64), batch_input_shape=(64, 64)))
    x = torch.randn(1, 3, 64, 64)

    def run(model):
        return model(x, [sample], mode='tensor')

    # Stem 1, sixteen blocks of 3, one FFN in each of two layers; the box
    # branches' ReLUs (2 in each of two) are not part of mode='tensor'.
    assert_same_function(
        model, run, 1 + 48 + 2, 1e-3, pattern=r'^(backbone|encoder|decoder)')
    box_branches = replace_activations(model)
    assert {s.name.split('.')[0] for s in box_branches.swapped} == {
        'bbox_head'}


@pytest.mark.skipif(not HAS_MMPRETRAIN, reason='needs mmpretrain')
def test_convnext():
    model = build(
        'convnext/convnext-tiny_32xb128_in1k.py', 'mmpretrain', **{
            'model.backbone.arch':
            dict(
                _delete_=True,
                depths=[1, 1, 2, 1],
                channels=[8, 16, 32, 64]),
            'model.backbone.layer_scale_init_value': 1.0,
            'model.head.in_channels': 64,
            'model.head.num_classes': 10
        })
    assert_same_function(model, forward_tensor(64), 5, 0.05)


@pytest.mark.skipif(not HAS_MMPRETRAIN, reason='needs mmpretrain')
def test_vision_transformer():
    model = build(
        'vision_transformer/vit-base-p16_32xb128-mae_in1k.py', 'mmpretrain',
        **{
            'model.backbone.arch':
            dict(
                _delete_=True,
                embed_dims=32,
                num_layers=3,
                num_heads=4,
                feedforward_channels=64),
            'model.backbone.img_size': 32,
            'model.head.in_channels': 32,
            'model.head.num_classes': 10
        })
    assert_same_function(model, forward_tensor(32), 3, 0.05)
    assert [n for n, m in model.named_modules() if isinstance(m, AGLU)] == [
        f'backbone.layers.{i}.ffn.layers.0.1' for i in range(3)
    ]


GPT2 = """
import torch
from transformers import GPT2Config, GPT2LMHeadModel
from apa_mm.surgery.replace import replace_activations
torch.manual_seed(0)
model = GPT2LMHeadModel(GPT2Config(
    n_layer=3, n_embd=32, n_head=2, vocab_size=50, n_positions=16,
    bos_token_id=0, eos_token_id=0)).eval()
tokens = torch.randint(50, (2, 16))
before = model(tokens).logits
report = replace_activations(model)
after = model(tokens, labels=tokens)
after.loss.backward()
grads = [p.grad is not None for n, p in model.named_parameters()
         if n.endswith(('kappa', 'lambd'))]
error = ((after.logits - before).abs().max() / before.abs().max()).item()
names = [swap.name for swap in report.swapped]
stage = [s.name for s in replace_activations(GPT2LMHeadModel(
    model.config), stages=[1, 2]).swapped]
print(report.num_units, names[0], all(grads), len(grads), error, len(stage))
"""


@pytest.mark.skipif(
    find_spec('transformers') is None and not OPTIONAL.is_dir(),
    reason='transformers is not installed (optional: it cannot share an '
    'environment with mmpretrain; pip install --target .venv/optional)')
def test_gpt2():
    path = os.pathsep.join([str(ROOT), str(OPTIONAL)])
    result = subprocess.run([sys.executable, '-c', GPT2],
                            capture_output=True,
                            text=True,
                            env=dict(os.environ, PYTHONPATH=path))
    assert result.returncode == 0, result.stderr
    number, name, used, grads, error, stage = result.stdout.split()
    assert (number, name) == ('3', 'transformer.h.0.mlp.act')
    assert used == 'True' and grads == '6' and stage == '2'
    assert float(error) < 0.05
