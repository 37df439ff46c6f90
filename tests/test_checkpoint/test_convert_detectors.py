"""The authors' five detectors, and mmdet's own."""
import collections
from pathlib import Path

from support import checkpoint_layouts as layouts
from support import checkpoint_networks as networks
import pytest
import torch
import torch.nn.functional as F
from mmengine.logging import HistoryBuffer

from apa_mm.checkpoint import CheckpointError, convert, convert_back
from apa_mm.checkpoint.contents import find_weights
from apa_mm.checkpoint.report import LoadReport
from apa_mm.layers import CosineConv2d, WrappedCauchyLinear
from apa_mm.registry import MODELS
from apa_mm.utils.imports import HAS_MMDET

CONFIGS = Path(__file__).parents[2] / 'configs' / 'det'
# name, keys, parameters, backbone keys, roi_head keys: from the text
DETECTORS = [
    ('lvis-r50', 557, 52796328, 512, 23),
    ('lvis-r101', 1064, 74239883, 1022, 20),
    ('coco-r50', 554, 46941618, 512, 20),
    ('v3det-faster', 543, 57439743, 512, 9),
    ('v3det-cascade', 561, 112335963, 512, 27),
]
NAMES = [row[0] for row in DETECTORS]


@pytest.fixture(scope='module')
def sources():
    return {
        name: layouts.hollow(layouts.authors_detector(name))
        for name in NAMES
    }


@pytest.mark.parametrize('name, keys, parameters, backbone, heads', DETECTORS)
def test_layout_and_conversion_have_the_counts_of_the_text(
        sources, name, keys, parameters, backbone, heads):
    source = sources[name]
    assert len(source) == keys
    trained = layouts.parameters(source)
    assert sum(source[n].numel() for n in trained) == parameters
    parts = collections.Counter(n.split('.')[0] for n in source)
    assert parts == dict(
        backbone=backbone, neck=16, rpn_head=6, roi_head=heads)

    result = convert(source, 'mmdet')
    report = result.report
    assert result.source.table.name == 'authors-detection'
    assert report.ok and not report.dropped and not report.added
    assert len(result.tensors) == keys == len(report.mapped)
    only = convert(source, 'mmdet-backbone')
    assert len(only.tensors) == backbone and only.report.ok
    assert len(only.report.dropped) == keys - backbone


@pytest.mark.parametrize('name', NAMES)
def test_there_and_back_is_bit_for_bit(sources, name):
    # Real values where rules act, shared ones in the large plain layers.
    source = dict(sources[name])
    small = {n: v.shape for n, v in source.items() if v.numel() < 10000}
    source.update(layouts.random(small))
    result = convert(source, 'mmdet')
    back, left = convert_back(result.tensors, 'authors-detection')
    assert not left and back.keys() == source.keys()
    for key, value in source.items():
        assert back[key].shape == value.shape
        assert torch.equal(back[key], value), key
    bare = convert(source, 'mmdet-backbone').tensors
    back, left = convert_back(bare, 'authors-detection')
    assert not left
    assert all(torch.equal(back[k], source[k]) for k in back)
    assert len(back) == len(bare)


@pytest.mark.parametrize('apa', [True, False])
def test_backbone_outputs_equal_the_float64_reference(apa):
    shapes = layouts.authors_resnet(50, apa)
    source = layouts.random(shapes)
    low = 'layer3.1.unirect2.lambda_param'
    if apa:  # detection clamps at 1e-4, as we do: exact even there
        source[low] = torch.tensor([-0.2])
    result = convert({f'backbone.{k}': v for k, v in source.items()},
                     'mmdet-backbone')
    model = MODELS.build(result.architecture.cfg()).double().eval()
    model.load_state_dict(result.tensors, strict=True)
    x = torch.randn(1, 3, 32, 32, dtype=torch.float64)
    network = networks.Network(source, shifted=False)
    with torch.no_grad():
        outs = model(x)
    # Units of the baseline are ReLU, ours a steep AGLU.
    tolerance = 1e-9 if apa else 1e-3
    for out, wanted in zip(outs, network.features(x), strict=True):
        torch.testing.assert_close(
            out, wanted, rtol=0,
            atol=tolerance * wanted.abs().max().item())


def test_the_learned_mask_temperature_keeps_its_value():
    name = 'roi_head.mask_head.conv_logits'
    source = dict(layouts.hollow(layouts.authors_detector('lvis-r50')))
    source.update(layouts.random({
        f'{name}.weight': (1203, 256, 1, 1),
        f'{name}.bias': (1203, ),
        f'{name}.tempearture': ()
    }))
    tensors = convert(source, 'mmdet').tensors
    layer = CosineConv2d(256, 1203, 1, learnable_temperature=True).double()
    layer.load_state_dict({
        k[len(name) + 1:]: v for k, v in tensors.items() if k.startswith(name)
    })
    x = torch.randn(1, 256, 2, 2, dtype=torch.float64)
    weight = source[f'{name}.weight'].double()
    theta = source[f'{name}.tempearture'].double()

    def unit(v):
        return v / (v.norm(dim=1, keepdim=True) + 1e-6)

    wanted = F.conv2d(unit(x) * theta**2, unit(weight),
                      source[f'{name}.bias'].double())
    torch.testing.assert_close(layer(x), wanted)


@pytest.mark.parametrize('learned', [False, True])
def test_the_wrapped_cauchy_classifier_keeps_its_function(learned):
    name = 'roi_head.bbox_head.fc_cls'
    source = dict(layouts.hollow(layouts.authors_detector('v3det-faster')))
    shapes = {f'{name}.weight': (13205, 1024), f'{name}.bias': (13205, ),
              f'{name}.g': (13205, )}
    source.update(layouts.random(shapes))
    source[f'{name}.bias'] = 0.01 * source[f'{name}.bias']
    if learned:
        source[f'{name}.s_'] = torch.tensor(57.0)
    result = convert(source, 'mmdet')
    assert result.report.ok
    assert any("form='released'" in note for note in result.report.notes)
    layer = WrappedCauchyLinear(
        1024, 13205, scale=None if learned else 300.0, form='released')
    layer.load_state_dict({
        k[len(name) + 1:]: v
        for k, v in result.tensors.items() if k.startswith(name)
    })
    x = torch.randn(2, 1024, dtype=torch.float64)
    w = source[f'{name}.weight'].double()
    u = (x / (x.norm(dim=1, keepdim=True) + 1e-6)) @ (
        w / (w.norm(dim=1, keepdim=True) + 1e-6)).t()
    u = u + source[f'{name}.bias'].double()
    gamma = torch.sigmoid(source[f'{name}.g'].double())
    scale = 57.0 if learned else 300.0
    wanted = scale / (2 * 3.14) * (1 - gamma**2) / (
        1 + gamma**2 - 2 * gamma * u)
    torch.testing.assert_close(layer.double()(x), wanted)


# --- forms of the file ---
@pytest.mark.parametrize('content, form', [
    (dict(meta=dict(epoch=24), message_hub=dict(h=HistoryBuffer([1.], [1]))),
     'mmengine'),
    (dict(meta=dict(mmdet_version='2.28', CLASSES=('cat', 'dog'))),
     'mmdet-2'),
])
def test_both_eras_of_files_are_understood(sources, content, form):
    weights = find_weights(dict(content, state_dict=sources['lvis-r101'],
                                optimizer={}))
    assert weights.facts.form == form
    assert convert(weights.tensors, 'mmdet', weights.facts).report.ok
    expected = ('cat', 'dog') if form == 'mmdet-2' else None
    assert weights.facts.classes == expected


# --- what does not fit ---
def test_wrong_sizes_in_heads_are_found(sources):
    source = dict(sources['v3det-faster'])
    source['roi_head.bbox_head.fc_cls.g'] = torch.ones(13204)
    source['neck.lateral_convs.2.conv.weight'] = torch.ones(256, 512, 1, 1)
    del source['rpn_head.rpn_reg.bias']
    source['roi_head.bbox_head.extra.weight'] = torch.ones(1)
    report = convert(source, 'mmdet').report
    assert report.mismatched == {
        'roi_head.bbox_head.fc_cls.g': ((13204, ), (13205, )),
        'neck.lateral_convs.2.conv.weight': ((256, 512, 1, 1),
                                             (256, 1024, 1, 1)),
    }
    assert report.missing == ['rpn_head.rpn_reg.bias']
    assert report.unexpected == ['roi_head.bbox_head.extra.weight']


def test_two_names_for_one_tensor_are_refused(sources):
    name = 'roi_head.mask_head.conv_logits.temperature'
    source = {**sources['lvis-r50'], name: torch.tensor(4.0)}
    with pytest.raises(CheckpointError,
                       match='temperature and .*tempearture would both'):
        convert(source, 'mmdet')


@pytest.mark.parametrize('part, to', [
    ('neck', 'mmdet'), ('roi_head', 'mmdet-backbone')])
def test_work_grows_with_the_tensors_not_with_their_square(
        sources, part, to, monkeypatch):
    """The look-up of names, as long as the file, is not made per name."""
    made, origins = [], LoadReport.origins
    monkeypatch.setattr(LoadReport, 'origins', property(
        lambda self: made.append(1) or origins.fget(self)))
    numbers = []
    for count in (2, 200):
        made.clear()
        extra = {f'{part}.extra{i}.weight': torch.zeros(1)
                 for i in range(count)}
        report = convert({**sources['lvis-r50'], **extra}, to).report
        assert len(report.unexpected or report.dropped) >= count
        numbers.append(len(made))
    assert 0 < numbers[0] == numbers[1]


def test_a_classifier_is_no_detector_and_a_detector_no_classifier(sources):
    classifier = layouts.hollow({
        **layouts.authors_resnet(),
        **layouts.classifier(None, 1000, 2048)
    })
    with pytest.raises(CheckpointError, match='use --to mmdet-backbone'):
        convert(classifier, 'mmdet')
    report = convert(sources['coco-r50'], 'mmpretrain').report
    assert report.missing == ['head.fc.weight', 'head.fc.bias']
    assert len(report.dropped) == 42


# --- built by mmdet ---
def model_of(config):
    from mmengine.config import Config
    from mmengine.registry import DefaultScope
    cfg = Config.fromfile(config)
    # GOL reads its buffers when it is built, so they need data.
    device = 'cpu' if 'gol' in Path(config).name else 'meta'
    with DefaultScope.overwrite_default_scope('mmdet'), torch.device(device):
        return MODELS.build(cfg.model)


@pytest.mark.skipif(not HAS_MMDET, reason='needs mmdet with mmcv.ops')
@pytest.mark.parametrize('name, config', [
    ('lvis-r50',
     'lvis/mask-rcnn_apa-seresnet50_fpn_gol_sample1e-3-ms-2x_lvis-v1.py'),
    ('lvis-r101',
     'lvis/mask-rcnn_apa-seresnet101_fpn_gol_sample1e-3-ms-2x_lvis-v1.py'),
    ('coco-r50', 'coco/mask-rcnn_apa-seresnet50_fpn_2x_coco.py'),
    ('v3det-faster',
     'v3det/faster-rcnn_apa-seresnet50_fpn_wc_sample1e-3-ms-2x_v3det.py'),
    ('v3det-cascade',
     'v3det/cascade-rcnn_apa-seresnet50_fpn_wc_sample1e-3-ms-2x_v3det.py'),
])
def test_our_configs_take_every_tensor(sources, name, config):
    model = model_of(CONFIGS / config)
    wanted = {k: tuple(v.shape) for k, v in model.state_dict().items()}
    # What GOL learns from the training set is in no file of the authors.
    counts = {k for k in wanted if k.startswith('roi_head.bbox_head.loss_cls')}
    assert counts if name.startswith('lvis') else not counts
    result = convert(sources[name], 'mmdet')
    found = {k: tuple(v.shape) for k, v in result.tensors.items()}
    assert found == {k: v for k, v in wanted.items() if k not in counts}
