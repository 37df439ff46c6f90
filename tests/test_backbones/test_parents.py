"""With ReLU and no attention APAResNet computes what its parents compute."""
import copy
import re

import mmdet.models
import mmpretrain.models
import pytest
import torch
from torch.nn.modules.batchnorm import _BatchNorm

from apa_mm.backbones import APAResNet, APAResNetD

PLAIN = dict(act_cfg=dict(type='ReLU', inplace=True), attention_cfg=None)
SMALL = dict(depth=50, base_channels=8, stem_channels=8,
             out_indices=(0, 1, 2, 3), zero_init_residual=False)
SE = dict(attention_cfg=dict(
    type='apa_mm.ChannelAttention', gate_cfg=dict(type='Sigmoid'),
    norm_cfg=None, dropout=0., bias=True))
RESNEXT = dict(groups=2, base_width=4)
DCN = dict(stage_with_dcn=(False, True, True, False))
FEW = dict(num_stages=2, strides=(1, 2), dilations=(1, 1), out_indices=(1, ))


def plugins(*places):
    return [dict(cfg=dict(type='ContextBlock', ratio=1 / 4, postfix=f'_{i}'),
                 position=f'after_conv{place}')
            for i, place in enumerate(places)]


#: Parent, arguments of both, arguments of ours.
DET = [
    ('ResNet', dict(), {}),
    ('ResNet', dict(depth=18, in_channels=1, frozen_stages=4), {}),
    ('ResNet', dict(frozen_stages=0, stem_channels=16), {}),
    ('ResNet', dict(frozen_stages=1, norm_eval=False, style='caffe'), {}),
    ('ResNet', dict(frozen_stages=2, deep_stem=True, norm_eval=True), {}),
    ('ResNet', dict(frozen_stages=3, with_cp=True, out_indices=(1, 3)), {}),
    ('ResNet', dict(frozen_stages=-1, with_cp=True, norm_eval=False), {}),
    ('ResNet', dict(strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4)), {}),
    ('ResNet', dict(FEW, avg_down=True, depth=34), {}),
    ('ResNet', dict(norm_cfg=dict(type='GN', num_groups=4)), {}),
    ('ResNet', dict(FEW, plugins=plugins(1, 2, 3, 3)), {}),
    ('ResNet', dict(DCN, dcn=dict(type='DCN', deform_groups=1)), {}),
    # mmdet takes the fallback out of the dict at the first block.
    ('ResNet', dict(FEW, stage_with_dcn=(False, True),
                    dcn=dict(type='DCNv2', fallback_on_stride=True)), {}),
    ('ResNetV1d', dict(norm_eval=False), dict(deep_stem=True, avg_down=True)),
    ('ResNeXt', dict(RESNEXT, plugins=plugins(3), norm_eval=False), {}),
    ('ResNeXt', dict(RESNEXT, **DCN, dcn=dict(type='DCNv2')), {}),
]
CLS = [
    ('ResNet', dict(), {}),
    ('ResNet', dict(depth=34, drop_path_rate=0.5, frozen_stages=0), {}),
    ('ResNet', dict(FEW, expansion=2, style='caffe'), {}),
    ('ResNet', dict(FEW, with_cp=True, frozen_stages=1), {}),
    ('ResNet', dict(strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2),
                    norm_eval=True), {}),
    ('ResNetV1c', dict(frozen_stages=2), dict(deep_stem=True)),
    ('ResNetV1d', dict(), dict(deep_stem=True)),
    ('ResNeXt', dict(groups=2, width_per_group=4), {}),
    ('SEResNet', dict(se_ratio=4), SE),
    # MMPretrain's does not hand se_ratio on.
    ('SEResNeXt', dict(FEW, groups=2, width_per_group=4, base_channels=32,
                       stem_channels=32), SE),
]


def ours_from(theirs, name):
    """Return our name of a tensor or module of MMPretrain's."""
    for i in range(3):
        name = name.replace(f'stem.{i}.conv', f'stem.{3 * i}')
        name = name.replace(f'stem.{i}.bn', f'stem.{3 * i + 1}')
    if theirs.avg_down:  # no identity where the stride is 1
        name = re.sub(r'(layer1\.0\.downsample\.)(\d)',
                      lambda m: f'{m[1]}{int(m[2]) + 1}', name)
    for i in (1, 2):
        name = name.replace(f'se_layer.conv{i}.conv', f'attention.fc{i}')
    return name


def run(model, x):
    """Return outputs and gradients in training, and outputs after it."""
    torch.manual_seed(1)
    model.train()
    outs = model(x)
    if any(out.requires_grad for out in outs):
        sum(out.square().mean() for out in outs).backward()
    model.eval()
    with torch.no_grad():
        return outs, model(x)


@pytest.mark.parametrize(
    'library, parent, both, own',
    [(mmdet, *case) for case in DET] + [(mmpretrain, *case) for case in CLS])
def test_it_is_its_parent(library, parent, both, own):
    both = {**SMALL, **both}
    theirs = getattr(library.models, parent)(**copy.deepcopy(both)).double()
    cls = APAResNet
    if library is mmpretrain and parent == 'ResNetV1d':
        cls = APAResNetD
    # mmdet keeps its norms in eval mode, unless told not to.
    both.setdefault('norm_eval', library is mmdet)
    ours = cls(**{**both, **PLAIN, **own}).double()
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.1)

    def renamed(named):
        named = dict(named)
        if library is mmdet:
            return named
        return {ours_from(theirs, name): value
                for name, value in named.items()}

    state = ours.state_dict()
    weights = renamed(theirs.state_dict())
    ours.load_state_dict(
        {k: v.reshape(state[k].shape) for k, v in weights.items()})
    x = torch.randn(2, both.get('in_channels', 3), 64, 64).double()
    got, want = run(ours, x), run(theirs, x)
    for a, b in zip(got, want, strict=True):
        assert len(a) == len(b) == len(both['out_indices'])
        for one, other in zip(a, b, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-10)
    mine = dict(ours.named_parameters())
    for name, parameter in renamed(theirs.named_parameters()).items():
        assert mine[name].requires_grad == parameter.requires_grad, name
        assert (mine[name].grad is None) == (parameter.grad is None), name
        if parameter.grad is not None:
            torch.testing.assert_close(
                mine[name].grad, parameter.grad.reshape(mine[name].shape),
                rtol=1e-6, atol=1e-9)
    mine = dict(ours.named_buffers())
    for name, buffer in renamed(theirs.named_buffers()).items():
        torch.testing.assert_close(mine[name], buffer)
    ours.train(), theirs.train()
    mine = dict(ours.named_modules())
    for name, module in renamed(theirs.named_modules()).items():
        if isinstance(module, _BatchNorm):
            assert mine[name].training == module.training, name
    assert ours.feat_dim == theirs.feat_dim
