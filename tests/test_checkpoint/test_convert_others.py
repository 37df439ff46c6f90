"""Networks without kappa and lambda: torchvision, mmpretrain, mmdet."""
from support import checkpoint_layouts as layouts
from support import checkpoint_networks as networks
import pytest
import torch
import torch.nn.functional as F
import torchvision
from support.checkpoint_checks import (RELU_TOLERANCE, assert_round_trip,
                                       assert_same, backbone_of, calibrate)

from apa_mm.checkpoint import CheckpointError, Start, convert, convert_back
from apa_mm.layers import AGLU, APA
from apa_mm.registry import MODELS
from apa_mm.utils.imports import HAS_MMDET, HAS_MMPRETRAIN

# --- torchvision ---
@pytest.mark.parametrize('name, cfg', [
    ('resnet18', dict(depth=18)),
    ('resnext50_32x4d', dict(depth=50, groups=32, base_width=4)),
    ('wide_resnet50_2', dict(depth=50, base_width=128)),
])
def test_torchvision(name, cfg):
    model = calibrate(getattr(torchvision.models, name)(num_classes=10), 32)
    source = model.state_dict()
    result = convert(source, 'mmpretrain')
    assert result.report.ok
    assert result.architecture.cfg() == dict(
        type='apa_mm.APAResNet', attention_cfg=None, **cfg)
    assert_round_trip(result, source, 'torchvision')
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    with torch.no_grad():
        out = backbone_of(result)(x)[-1].mean((2, 3))
        out = out @ result.tensors['head.fc.weight'].t()
        assert_same(out + result.tensors['head.fc.bias'], model(x))


@pytest.mark.parametrize('act, function, tolerance', [
    ('relu', F.relu, RELU_TOLERANCE),
    ('silu', F.silu, 1e-12),
    # kappa = 1.702 is stored in float32.
    ('gelu', lambda x: x * torch.sigmoid(1.702 * x), 1e-6),
])
def test_the_units_compute_the_named_activation(act, function, tolerance):
    source = layouts.random(layouts.resnet(18))
    result = convert(source, 'mmdet-backbone', start=Start(act=act))
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    network = networks.Network(source, unit=function)
    with torch.no_grad():
        outs = backbone_of(result)(x)
    for out, wanted in zip(outs, network.features(x), strict=True):
        assert_same(out, wanted, tolerance)


def test_the_stated_deviation_is_in_the_report():
    source = layouts.hollow(layouts.resnet(18))
    note, = convert(source, 'mmdet-backbone').report.notes
    assert 'kappa=10000, lambda=1' in note and '2.78e-05' in note
    start = Start(relu_kappa=100.0)
    result = convert(source, 'mmdet-backbone', start=start)
    assert '2.78e-03' in result.report.notes[0]
    assert result.tensors['act1.kappa'] == 100


def test_random_values_lie_in_the_papers_ranges():
    source = layouts.hollow(layouts.resnet(50, attention=layouts.timm_se))
    drawn = [
        convert(source, 'mmdet-backbone', start=Start('random', seed=s))
        for s in (0, 0, 1)
    ]
    one, same, other = (
        torch.cat([v for k, v in r.tensors.items() if k.endswith('.kappa')])
        for r in drawn)
    assert torch.equal(one, same) and not torch.equal(one, other)
    values = drawn[0].tensors
    for name, value in values.items():
        if name.endswith('.lambd'):
            assert 0 <= value <= 1
        elif name.endswith('gate.kappa'):
            assert -1 <= value <= 0
        elif name.endswith('.kappa'):
            assert 1 <= value <= 1.3
    assert 'seed 0' in drawn[0].report.notes[0]


def test_plain_adds_nothing_and_says_how_to_build_it():
    source = layouts.random(layouts.resnet(18, attention=layouts.timm_se))
    result = convert(source, 'mmdet-backbone', start=Start('plain'))
    assert not result.report.added and len(result.tensors) == len(source)
    model = backbone_of(result)
    assert not any(isinstance(m, (AGLU, APA)) for m in model.modules())
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        assert_same(
            model(x)[-1],
            networks.Network(source).features(x)[-1], 1e-12)


def test_counters_that_old_files_lack_are_added():
    source = layouts.random(layouts.resnet(18))
    old = {k: v for k, v in source.items() if not k.endswith('tracked')}
    result = convert(old, 'mmdet-backbone')
    assert result.report.ok
    assert_round_trip(result, old, 'torchvision')
    assert result.tensors['bn1.num_batches_tracked'].dtype == torch.int64
    assert '20 x num_batches_tracked = 0' in str(result.report)


# --- MMPretrain and MMDetection ---
def built(cfg, scope):
    from mmengine.registry import DefaultScope
    with DefaultScope.overwrite_default_scope(scope):
        return MODELS.build(cfg)


@pytest.mark.skipif(not HAS_MMPRETRAIN, reason='needs mmpretrain')
@pytest.mark.parametrize('cfg, cls', [
    (dict(type='SEResNet', depth=50, out_indices=(0, 1, 2, 3)), 'APAResNet'),
    (dict(type='ResNetV1d', depth=18, out_indices=(0, 1, 2, 3)),
     'APAResNetD'),
    (dict(type='ResNeXt', depth=50, out_indices=(0, 1, 2, 3)), 'APAResNet'),
])
def test_mmpretrain(cfg, cls):
    model = calibrate(built(cfg, 'mmpretrain'))
    source = {f'backbone.{k}': v for k, v in model.state_dict().items()}
    source['head.fc.weight'] = torch.randn(10, model.feat_dim)
    source['head.fc.bias'] = torch.randn(10)
    result = convert(source, 'mmpretrain')
    assert result.report.ok and result.architecture.type == f'apa_mm.{cls}'
    assert_round_trip(
        result, source,
        'mmpretrain-d' if cls == 'APAResNetD' else 'mmpretrain')
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        for out, wanted in zip(backbone_of(result)(x), model(x), strict=True):
            assert_same(out, wanted)


@pytest.mark.skipif(not HAS_MMDET, reason='needs mmdet with mmcv.ops')
@pytest.mark.parametrize('cfg, cls', [
    (dict(type='ResNet', depth=50, style='pytorch'), 'APAResNet'),
    (dict(type='ResNet', depth=50, style='caffe'), 'APAResNet'),
    (dict(type='ResNetV1d', depth=18), 'APAResNetD'),
])
def test_mmdet(cfg, cls):
    model = calibrate(built(cfg, 'mmdet'))
    source = {f'backbone.{k}': v for k, v in model.state_dict().items()}
    source['bbox_head.retina_cls.weight'] = torch.randn(9, 4, 3, 3)
    result = convert(source, 'mmdet')
    assert result.report.ok and result.architecture.type == f'apa_mm.{cls}'
    assert any('name the config with --config' in note
               for note in result.report.notes)
    assert_round_trip(result, source,
                      'mmdet-d' if cls == 'APAResNetD' else 'mmdet')
    x = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    style = {} if cfg['depth'] == 18 else dict(style=cfg['style'])
    if style:  # names cannot tell, the report says so
        assert any("style='caffe'" in n for n in result.report.notes)
    with torch.no_grad():
        outs = backbone_of(result, **style)(x)
        for out, wanted in zip(outs, model(x), strict=True):
            assert_same(out, wanted)


# --- Ultralytics and our own ---
def test_ultralytics_names_stay_and_are_called_gates():
    source = {
        'model.0.conv.weight': torch.ones(4, 3, 3, 3),
        'model.0.act.kappa': torch.ones(1),
        'model.0.act.lambd': torch.ones(1),
    }
    result = convert(source, 'mmdet-backbone')
    assert result.source.table.name == 'ultralytics'
    assert result.architecture is None
    assert any("type='apa_mm.APA', not 'apa_mm.AGLU'" in note
               for note in result.report.notes)


@pytest.mark.parametrize('cfg', [
    dict(type='apa_mm.APAResNet', depth=18),
    dict(type='apa_mm.APAResNet', depth=50,
         act_cfg=dict(type='apa_mm.AGLU', num_parameters='channels')),
    dict(type='apa_mm.APAResNet', depth=18, act_cfg=dict(type='ReLU'),
         attention_cfg=dict(type='apa_mm.ChannelAttention',
                            gate_cfg=dict(type='Sigmoid'))),
    dict(type='apa_mm.APAResNetD', depth=18),
    dict(type='apa_mm.APAResNetCIFAR', depth=20),
])
def test_our_own_files_change_their_prefix_only(cfg):
    source = MODELS.build(cfg).state_dict()
    first = convert({f'backbone.{k}': v for k, v in source.items()},
                    'mmdet-backbone')
    assert first.source.table.name == 'apa_mm'
    assert first.report.ok and not first.report.added
    assert list(first.tensors) == list(source)
    assert all(first.tensors[k] is source[k] for k in source)
    again = convert(first.tensors, 'mmdet-backbone')
    assert again.report.ok and list(again.tensors) == list(source)
    backbone_of(again)


def test_per_channel_values_become_one_axis_and_go_back():
    shapes = layouts.authors_resnet(18)
    shapes = {
        name: ((1, 64, 1, 1) if name.startswith('relu.') else shape)
        for name, shape in shapes.items()
    }
    result = convert(layouts.random(shapes), 'mmdet-backbone')
    assert result.tensors['act1.kappa'].shape == (64, )
    assert result.report.reshaped['act1.kappa'] == ((1, 64, 1, 1), (64, ))
    back, _ = convert_back(result.tensors, 'authors-classification')
    assert back['relu.kappa_param'].shape == (1, 64, 1, 1)


# --- refused ---
@pytest.mark.parametrize('shapes, match', [
    ({k: v for k, v in layouts.resnet(50).items()
      if not k.startswith('layer3.5')}, 'which is no depth'),
    ({'conv1.weight': (64, )}, 'no ResNet stem and stages'),
])
def test_networks_that_have_no_counterpart(shapes, match):
    with pytest.raises(CheckpointError, match=match):
        convert(layouts.hollow(shapes), 'mmdet-backbone')


def test_unknown_options_are_refused():
    source = layouts.hollow(layouts.resnet(18))
    with pytest.raises(ValueError, match='to must be one of'):
        convert(source, 'onnx')
    with pytest.raises(CheckpointError, match='init must be one of'):
        convert(source, 'mmdet-backbone', start=Start('zero'))
    with pytest.raises(CheckpointError, match='kind must be one of'):
        convert(source, 'mmdet-backbone', start=Start(act='tanh'))
    with pytest.raises(CheckpointError, match="no key table 'keras'"):
        convert_back(source, 'keras')
