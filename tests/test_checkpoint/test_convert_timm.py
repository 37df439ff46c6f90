"""timm's networks, with and without timm, and the original CBAM."""
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from support import checkpoint_layouts as layouts
from support import checkpoint_networks as networks
import pytest
import torch
from support.checkpoint_checks import (assert_round_trip, assert_same,
                                       backbone_of)

from apa_mm.checkpoint import CheckpointError, convert

# timm would change what mmpretrain imports; "pip install --target" of it may
# lie here.
OPTIONAL = Path(__file__).parents[2] / '.venv' / 'optional'


@pytest.mark.parametrize('attention, table', [
    (layouts.timm_se, 'timm'),
    (layouts.legacy_se, 'timm-legacy'),
])
def test_se_as_convolutions_with_biases(attention, table):
    shapes = layouts.resnet(50, attention=attention)
    legacy = table == 'timm-legacy'
    head = 'last_linear' if legacy else 'fc'
    shapes.update(layouts.classifier(None, 10, 2048, head))
    if legacy:
        shapes = {(f'layer0.{k}' if k.startswith(('conv1', 'bn1')) else k): v
                  for k, v in shapes.items()}
    source = layouts.random(shapes)
    result = convert(source, 'mmpretrain')
    assert result.report.ok
    assert_round_trip(result, source, table)
    # 16 blocks with two weights each.
    assert len(result.report.reshaped) == 32
    cfg = result.architecture.cfg()
    assert cfg['attention_cfg'] == dict(
        type='apa_mm.ChannelAttention', norm_cfg=None, dropout=0.0, bias=True)
    assert cfg.get('style', 'pytorch') == ('caffe' if legacy else 'pytorch')
    plain = {k.replace('layer0.', ''): v for k, v in source.items()}
    x = torch.randn(2, 3, 48, 48, dtype=torch.float64)
    network = networks.Network(plain, legacy=legacy)
    with torch.no_grad():
        outs = backbone_of(result)(x)
    for out, wanted in zip(outs, network.features(x), strict=True):
        assert_same(out, wanted)


def test_timms_cbam_stacks_mean_before_max():
    source = layouts.random(layouts.resnet(18, attention=layouts.timm_cbam))
    result = convert(source, 'mmdet-backbone')
    assert_round_trip(result, source, 'timm')
    # The same network under CBAM's names has the two inputs exchanged.
    original = {}
    for name, value in source.items():
        name = name.replace('se.channel.fc1', 'cbam.ChannelGate.mlp.1')
        name = name.replace('se.channel.fc2', 'cbam.ChannelGate.mlp.3')
        name = name.replace('se.spatial.conv.', 'cbam.SpatialGate.spatial.')
        if name.endswith('spatial.conv.weight'):
            value = torch.stack([value[:, 1], value[:, 0]], dim=1)
        original[name] = value
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        out = backbone_of(result)(x)[-1]
    assert_same(out, networks.Network(original).features(x)[-1])


def test_the_original_cbam_has_biases_and_no_norm():
    source = layouts.random(
        layouts.resnet(
            18,
            attention=lambda c: layouts.authors_cbam(c, False, False, norm=
                                                     False)))
    result = convert(source, 'mmdet-backbone')
    assert_round_trip(result, source, 'cbam')
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        out = backbone_of(result)(x)[-1]
    assert_same(out, networks.Network(source).features(x)[-1])


TIMM = """
import sys, torch
from timm.models.resnet import Bottleneck, ResNet
from timm.models.senet import SENet, SEResNetBottleneck, SEResNeXtBottleneck
torch.manual_seed(0)
depth = [3, 4, 6, 3]
se, cbam = (dict(attn_layer=name) for name in ('se', 'cbam'))
senet = dict(reduction=16, inplanes=64, input_3x3=False,
             downsample_kernel_size=1, downsample_padding=0)
models = dict(
    seresnet=ResNet(Bottleneck, depth, block_args=se),
    seresnet_d=ResNet(Bottleneck, depth, stem_type='deep', stem_width=32,
                      avg_down=True, block_args=se),
    cbam=ResNet(Bottleneck, depth, block_args=cbam),
    legacy=SENet(SEResNetBottleneck, depth, groups=1, **senet),
    legacy_x=SENet(SEResNeXtBottleneck, depth, groups=32, **senet))
x = torch.randn(4, 3, 48, 48)
saved = {}
with torch.no_grad():
    for name, model in models.items():
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = None
                torch.nn.init.uniform_(module.weight, 0.6, 1.1)
        model.train()(x)
        state = {k: v.clone() for k, v in model.state_dict().items()}
        saved[name] = dict(state_dict=state, x=x.double(),
            y=model.double().eval().forward_features(x.double()))
torch.save(saved, sys.argv[1])
"""


@pytest.fixture(scope='module')
def timm_networks(tmp_path_factory):
    path = tmp_path_factory.mktemp('timm') / 'timm.pth'
    run = subprocess.run([sys.executable, '-c', TIMM, str(path)],
                         capture_output=True,
                         text=True,
                         env=dict(os.environ, PYTHONPATH=str(OPTIONAL)))
    assert run.returncode == 0, run.stderr
    return torch.load(path, weights_only=True)


@pytest.mark.skipif(
    find_spec('timm') is None and not (OPTIONAL / 'timm').is_dir(),
    reason='timm is not installed (optional; pip install --target '
    '.venv/optional --no-deps timm)')
@pytest.mark.parametrize(
    'kind, cls', [('seresnet', 'APAResNet'), ('seresnet_d', 'APAResNetD'),
                  ('cbam', 'APAResNet'), ('legacy', 'APAResNetLegacy'),
                  ('legacy_x', 'APAResNetLegacy')])
def test_timms_own_networks(timm_networks, kind, cls):
    saved = timm_networks[kind]
    result = convert(saved['state_dict'], 'mmpretrain')
    assert result.report.ok
    assert result.architecture.type == f'apa_mm.{cls}'
    with torch.no_grad():
        assert_same(backbone_of(result)(saved['x'])[-1], saved['y'])


# --- refused ---
def rounded_se(channels):
    """timm rounds hidden widths up to multiples of 8: no common ratio."""
    hidden = max(8, channels // 16)
    return {**layouts.conv('se.fc1', hidden, channels, 1),
            **layouts.conv('se.fc2', channels, hidden, 1)}


@pytest.mark.parametrize('shapes, match', [
    (layouts.resnet(18, attention=rounded_se), 'no common reduction'),
    ({(f'layer0.{k}' if k.startswith(('conv1', 'bn1')) else k): v
      for k, v in layouts.resnet(18, attention=layouts.legacy_se).items()},
     'legacy SE-ResNet-18 and -34 have an activation before'),
])
def test_networks_that_have_no_counterpart(shapes, match):
    with pytest.raises(CheckpointError, match=match):
        convert(layouts.hollow(shapes), 'mmdet-backbone')
