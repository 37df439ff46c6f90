"""A parent's config works when the type of its backbone alone is replaced."""
import copy
import functools
import glob
import json
import os
import re
from pathlib import Path

import mmdet.models
import mmpretrain.models
import pytest
import torch
from mmcv.cnn import fuse_conv_bn
from mmdet.registry import MODELS as DET_MODELS
from mmengine.config import Config
from mmpretrain.registry import MODELS as CLS_MODELS
from support.resnet_defaults import (MMDET, MMPRETRAIN_OR_MMPOSE,
                                     check_defaults)

from apa_mm.backbones import APAResNet

REGISTRIES = {mmdet: DET_MODELS, mmpretrain: CLS_MODELS}
#: type in the parent's config -> what replaces it
SWAPS = {
    'ResNet': dict(type='apa_mm.APAResNet'),
    'ResNeXt': dict(type='apa_mm.APAResNet'),
    'SEResNet': dict(type='apa_mm.APAResNet'),
    'SEResNeXt': dict(type='apa_mm.APAResNet'),
    'mmpretrain.ResNet': dict(type='apa_mm.APAResNet'),
    'ResNet_CIFAR': dict(type='apa_mm.APAResNetCIFAR'),
    'ResNetV1c': dict(type='apa_mm.APAResNet', deep_stem=True),
    'ResNetV1d': dict(type='apa_mm.APAResNetD', deep_stem=True),
}
#: What has no influence on what is built.
IRRELEVANT = ('init_cfg', 'norm_eval', 'frozen_stages', 'out_indices',
              'zero_init_residual')


def backbones_in(node):
    if isinstance(node, dict):
        if isinstance(node.get('backbone'), dict):
            yield node['backbone']
        node = list(node.values())
    if isinstance(node, (list, tuple)):
        for child in node:
            yield from backbones_in(child)


def distinct_settings(library):
    """Return the backbone settings of all configs, each once.

    A file that does not name its backbone has that of its bases, which are
    read too. Of settings that differ in depth alone the smallest stands for
    all.
    """
    root = os.path.join(os.path.dirname(library.__file__), '.mim', 'configs')
    smallest = {}
    for path in glob.glob(root + '/**/*.py', recursive=True):
        if 'backbone' not in Path(path).read_text():
            continue
        try:
            model = Config.fromfile(path).to_dict().get('model')
        except Exception:  # wants another library, or the data
            continue
        for cfg in backbones_in(model):
            if cfg.get('type') in SWAPS:
                kept = {k: v for k, v in cfg.items() if k not in IRRELEVANT}
                text = json.dumps(dict(kept, depth=0), sort_keys=True)
                other = smallest.setdefault(text, kept)
                smallest[text] = min(kept, other, key=lambda c: c['depth'])
    return list(smallest.values())


def shapes(model, cfg):
    """Return the shapes by name, in one naming for all libraries."""
    found = {}
    for name, tensor in model.state_dict().items():
        if cfg['type'] == 'ResNetV1d':  # no pooling where the stride is 1
            name = re.sub(r'downsample\.\d', 'downsample', name)
            name += str(tuple(tensor.shape))
        if 'se_layer' not in name and not name.startswith('stem.'):
            found[name] = tensor.shape
    return found


@pytest.mark.parametrize(
    'library, at_least', [(mmdet, 30), (mmpretrain, 9)],
    ids=['mmdet', 'mmpretrain'])
def test_every_resnet_config(library, at_least, monkeypatch):
    """Built without memory: all tensors of theirs are there in ours."""
    monkeypatch.setattr(torch, 'linspace',
                        functools.partial(torch.linspace, device='cpu'))
    settings, build = distinct_settings(library), REGISTRIES[library].build
    assert len(settings) >= at_least
    for cfg in settings:
        with torch.device('meta'):
            if 'num_stages' in cfg:
                cfg['out_indices'] = (cfg['num_stages'] - 1, )
            ours = build(copy.deepcopy({**cfg, **SWAPS[cfg['type']]}))
            theirs = build(copy.deepcopy(cfg))
        ours, theirs = shapes(ours, cfg), shapes(theirs, cfg)
        assert {k: ours.get(k) for k in theirs} == theirs, cfg


@pytest.mark.parametrize('parent, column', [
    (mmdet.models.ResNet, MMDET),
    (mmpretrain.models.ResNet, MMPRETRAIN_OR_MMPOSE)])
def test_the_documented_defaults_are_the_ones_that_differ(parent, column):
    check_defaults(parent, column)


@pytest.mark.parametrize('depth', [18, 50])
def test_names_that_hooks_ask_for(depth):
    model = APAResNet(depth)
    block = model.layer4[-1]
    assert model.norm1 is model.bn1 and model.relu is model.act1
    assert (block.norm1, block.norm2) == (block.bn1, block.bn2)
    assert block.relu is block.last_act
    if depth == 50:
        assert block.norm3 is block.bn3
    assert model.res_layers == ['layer1', 'layer2', 'layer3', 'layer4']
    deep = APAResNet(depth, deep_stem=True)
    assert deep.relu is deep.stem[-1] and not hasattr(deep, 'conv1')


PLUGIN = dict(
    cfg=dict(type='ContextBlock', ratio=1. / 16), position='after_conv3')


def test_plugins_stand_beside_units_and_attention():
    model = APAResNet(50, plugins=[dict(PLUGIN, stages=(False, True) * 2)])
    assert 'context_block' not in dict(model.layer1[0].named_children())
    model.train()(torch.randn(2, 3, 32, 32))[-1].sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_drop_path_drops_the_whole_branch():
    model = APAResNet(18, drop_path_rate=0.9)
    rates = [getattr(b.drop_path, 'drop_prob', 0.)
             for stage in model.stages for b in stage]
    assert rates == pytest.approx([0.9 * i / 7 for i in range(8)])
    block = model.layer4[1]
    block.drop_path.drop_prob = 1 - 1e-7
    x = torch.randn(2, 512, 4, 4)
    torch.testing.assert_close(block.train()(x), block.last_act(x))
    assert not torch.allclose(block.eval()(x), block.last_act(x))


@pytest.mark.parametrize('kwargs, match', [
    (dict(strides=(1, 2)), 'strides must have 4 entries.*got .1, 2.'),
    (dict(dilations=(1, 1, 1, 1, 1)), 'dilations must have 4 entries'),
    (dict(dcn=dict(type='DCNv2'), stage_with_dcn=(True, )),
     'stage_with_dcn must have 4'),
    (dict(plugins=[dict(PLUGIN, stages=(True, ))]), 'stages must have 4'),
    (dict(plugins=[PLUGIN, PLUGIN]), "'context_block' is there twice"),
    (dict(plugins=[dict(PLUGIN, position='after_conv4')]), "'after_conv4'"),
    (dict(depth=18, plugins=[PLUGIN]), 'need a bottleneck'),
    (dict(depth=18, dcn=dict(type='DCNv2'), stage_with_dcn=(True, ) * 4),
     'BasicBlock .* has no dcn'),
    (dict(multi_grid=(1, 2)), 'multi_grid must have 3 entries'),
    (dict(pretrained='a.pth', init_cfg=dict(type='Pretrained')),
     'set only one of init_cfg and pretrained'),
    (dict(base_width=4, width_per_group=4), 'only one of base_width'),
])
def test_settings_that_do_not_fit(kwargs, match):
    with torch.device('meta'), pytest.raises(ValueError, match=match):
        APAResNet(**{'depth': 50, **kwargs})


def test_names_of_other_libraries():
    with torch.device('meta'):
        assert APAResNet(50, groups=32).layer1[0].conv2.in_channels == 128
        wide = APAResNet(50, groups=32, width_per_group=8)
        assert wide.layer1[0].conv2.in_channels == 256
        assert APAResNet(50, se_ratio=8).layer1[0].attention.fc1.weight.shape \
            == (32, 256)
        old = APAResNet(18, pretrained='a.pth')
    assert old.init_cfg == dict(type='Pretrained', checkpoint='a.pth')


def test_dilations_are_those_of_mmsegmentation():
    with torch.device('meta'):
        model = APAResNet(
            50,
            strides=(1, 2, 1, 1),
            dilations=(1, 1, 2, 4),
            contract_dilation=True,
            deep_stem=True)
        grid = APAResNet(
            50,
            strides=(1, 2, 1, 1),
            dilations=(1, 1, 2, 4),
            multi_grid=(1, 2, 4))
    assert [b.conv2.dilation[0] for b in model.layer3] == [1] + [2] * 5
    assert [b.conv2.dilation[0] for b in model.layer4] == [2, 4, 4]
    assert [b.conv2.dilation[0] for b in grid.layer3] == [2] * 6
    assert [b.conv2.dilation[0] for b in grid.layer4] == [1, 2, 4]
    assert all(b.conv2.padding == b.conv2.dilation for b in grid.layer4)


@pytest.mark.parametrize('deep_stem', [False, True])
@pytest.mark.parametrize('freeze_stem_act', [False, True])
def test_a_frozen_stem(deep_stem, freeze_stem_act):
    model = APAResNet(
        18,
        deep_stem=deep_stem,
        frozen_stages=0,
        freeze_stem_act=freeze_stem_act).train()
    free = {n for n, p in model.named_parameters() if p.requires_grad}
    last = 'stem.8' if deep_stem else 'act1'
    stem = {n for n in free if not n.startswith('layer')}
    assert stem == (set() if freeze_stem_act else
                    {f'{last}.kappa', f'{last}.lambd'})


@pytest.mark.parametrize('depth', [18, 50])
def test_mmcv_folds_norms_into_convolutions(depth):
    model = APAResNet(depth).eval()
    x = torch.randn(2, 3, 64, 64)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -.1, .1)
            torch.nn.init.uniform_(module.running_var, .5, 2)
    with torch.no_grad():
        want = model(x)
        folded = fuse_conv_bn(copy.deepcopy(model))
        got = folded(x)
    kinds = {type(m) for m in folded.modules()}
    assert torch.nn.BatchNorm2d not in kinds
    for a, b in zip(got, want, strict=True):
        scale = b.abs().max()
        torch.testing.assert_close(a / scale, b / scale, rtol=1e-5, atol=1e-5)
