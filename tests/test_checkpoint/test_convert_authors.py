"""The authors' classification files: counts, outputs, heads, round trips."""
from support import checkpoint_layouts as layouts
from support import checkpoint_networks as networks
import pytest
import torch

from apa_mm.checkpoint.back import _task_of
from apa_mm.checkpoint import TABLES, convert, convert_back, recognise
from apa_mm.checkpoint.contents import find_weights
from apa_mm.checkpoint.configs import config_text
from apa_mm.weights.errors import CheckpointError
from apa_mm.registry import MODELS
from apa_mm.utils.imports import HAS_MMPRETRAIN


def full(backbone, kind=None, classes=1000, features=2048, name='fc'):
    return {**backbone, **layouts.classifier(kind, classes, features, name)}


def build(result):
    backbone = MODELS.build(result.architecture.cfg()).double().eval()
    weights = {
        name[len('backbone.'):]: value
        for name, value in result.tensors.items()
        if name.startswith('backbone.')
    }
    backbone.load_state_dict(weights, strict=True)
    return backbone


def cifar(**kwargs):
    kind = kwargs.pop('kind', None)
    return full(layouts.authors_cifar(**kwargs), kind, 100, 64, 'linear')


# name, layout, keys, parameter tensors, parameters, pairs, all from the text
COUNTS = [
    ('se_resnet50', full(layouts.authors_resnet()), 514, 355, 28102314, 65),
    ('se_resnet50 SE', full(layouts.authors_resnet(apa=False)), 352, 193,
     28071976, 0),
    ('cosine', full(layouts.authors_resnet(), 'cosine'), 513, 354, 28101314,
     65),
    ('lr_cosine', full(layouts.authors_resnet(), 'lr_cosine'), 514, 355,
     28101315, 65),
    ('se_resnext50', full(layouts.authors_resnet(groups=32, base_width=4)),
     514, 355, 27574186, 65),
    ('se_resnet101', full(layouts.authors_resnet(101)), 1024, 712, 49357618,
     133),
    ('se_resnet152', full(layouts.authors_resnet(152)), 1534, 1069, 66867130,
     201),
    ('se_resnet152 SE', full(layouts.authors_resnet(152, apa=False)), 1032,
     567, 66770984, 0),
    ('cb_resnet50 both', full(layouts.authors_resnet(attention='cbam')), 674,
     467, 28119994, 81),
    ('cb_resnet50 channel',
     full(layouts.authors_resnet(attention='cbam', spatial_apa=False)), 642,
     435, 28119962, 65),
    ('cb_resnet50 baseline',
     full(layouts.authors_resnet(apa=False, attention='cbam')), 512, 305,
     28119832, 0),
    ('cb_resnet152', full(layouts.authors_resnet(152, attention='cbam')), 2034,
     1419, 66923094, 251),
    ('sp_resnet50', full(layouts.authors_resnet(attention='spatial')), 546,
     339, 25558762, 65),
    ('sp_resnet50 baseline',
     full(layouts.authors_resnet(apa=False, attention='spatial')), 416, 209,
     25558632, 0),
    ('se_resnet32', cifar(), 340, 247, 484656, 46),
    ('se_resnet32 cosine', cifar(kind='cosine'), 339, 246, 484556, 46),
    ('se_resnet32 lr_cosine', cifar(kind='lr_cosine'), 340, 247, 484557, 46),
    ('se_resnet32 SE', cifar(apa=False), 218, 125, 483444, 0),
    ('cb_resnet32 both', cifar(attention='cbam'), 490, 352, 486886, 61),
    ('cb_resnet32 channel', cifar(attention='cbam', spatial_apa=False), 460,
     322, 486856, 46),
]


@pytest.mark.parametrize(
    'shapes, keys, tensors, parameters, pairs',
    [row[1:] for row in COUNTS],
    ids=[row[0] for row in COUNTS])
def test_layout_and_conversion_have_the_counts_of_the_text(
        shapes, keys, tensors, parameters, pairs):
    source = layouts.hollow(shapes)
    names = layouts.parameters(shapes)
    # The layout itself, before it proves anything about the converter.
    assert len(source) == keys and len(names) == tensors
    assert sum(source[name].numel() for name in names) == parameters
    assert sum(n.endswith('kappa_param') for n in names) == pairs

    result = convert(source, 'mmpretrain')
    report = result.report
    assert report.ok and not report.unexpected and not report.dropped
    assert len(report.mapped) == keys
    assert len(set(report.mapped.values())) == keys
    found = [n for n in result.tensors if n.endswith('.kappa')]
    if pairs:
        assert len(result.tensors) == keys and len(found) == pairs
    else:  # baselines get units and gates
        assert len(found) == len(report.added) / 2 > 0


@pytest.mark.parametrize(
    'shapes', [row[1] for row in COUNTS], ids=[row[0] for row in COUNTS])
def test_the_built_network_has_exactly_these_tensors(shapes):
    result = convert(layouts.hollow(shapes), 'mmdet-backbone')
    with torch.device('meta'):
        model = MODELS.build(result.architecture.cfg())
    expected = {k: v.shape for k, v in model.state_dict().items()}
    assert {k: v.shape for k, v in result.tensors.items()} == expected
    assert not result.report.missing and not result.report.unexpected


NETWORKS = [
    ('authors-classification', layouts.authors_resnet(), 1, 32),
    ('authors-classification',
     layouts.authors_resnet(groups=32, base_width=4), 32, 32),
    ('authors-classification', layouts.authors_resnet(attention='cbam'), 1,
     32),
    ('authors-classification',
     layouts.authors_resnet(attention='cbam', spatial_apa=False), 1, 32),
    ('authors-spatial', layouts.authors_resnet(attention='spatial'), 1, 32),
    ('authors-cifar', layouts.authors_cifar(), 1, 32),
    ('authors-cifar', layouts.authors_cifar(attention='cbam'), 1, 32),
]


@pytest.mark.parametrize(
    'table, shapes, groups, size', NETWORKS,
    ids=['se50', 'sex50', 'cbam50', 'cbam50-channel', 'sp50', 'se32', 'cb32'])
def test_outputs_equal_the_float64_reference(table, shapes, groups, size):
    cifar_net = table == 'authors-cifar'
    name = 'linear' if cifar_net else 'fc'
    features = 64 if cifar_net else 2048
    source = layouts.random(full(shapes, None, 10, features, name))
    result = convert(source, 'mmpretrain')
    assert result.source.table.name == table
    x = torch.randn(2, 3, size, size, dtype=torch.float64)
    expected = networks.Network(source).features(x, groups)
    with torch.no_grad():
        outs = build(result)(x)
    # The reference adds the classification code's 1e-8 to lambda.
    for out, wanted in zip(outs, expected[-len(outs):], strict=True):
        torch.testing.assert_close(
            out, wanted, rtol=0, atol=1e-6 * wanted.abs().max().item())
    assert expected[-1].abs().max() > 0.1  # no dead network


# --- heads ---
@pytest.mark.skipif(not HAS_MMPRETRAIN, reason='needs mmpretrain')
@pytest.mark.parametrize('kind', ['linear', 'cosine', 'lr_cosine', 'norm'])
def test_every_classifier_computes_the_authors_logits(kind):
    shapes = full(
        layouts.authors_cifar(blocks=3), kind, 100, 64, name='linear')
    source = layouts.random(shapes)
    result = convert(source, 'mmpretrain')
    assert result.report.ok and result.head == kind
    scope = {}
    exec(
        config_text('mmpretrain', 'x.pth', result.architecture, result.head,
                    len(result.tensors['head.fc.weight'])), scope)
    from mmengine.registry import DefaultScope
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        head = MODELS.build(scope['model']['head']).double()
    head.load_state_dict({
        name[len('head.'):]: value
        for name, value in result.tensors.items() if name.startswith('head.')
    })
    features = torch.randn(3, 64, 2, 2, dtype=torch.float64)
    expected = networks.logits(features, source, kind, 'linear')
    assert expected.shape == (3, 100)
    out = head((features.mean((2, 3)), ))
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-6)


def test_the_unused_bias_of_the_transposed_classifier_is_dropped():
    source = layouts.random(cifar(kind='norm'))
    result = convert(source, 'mmpretrain')
    assert result.report.dropped == {
        'linear.bias': 'bias that the normalised classifier never uses'
    }
    assert result.report.reshaped['head.fc.weight'] == ((64, 100), (100, 64))
    assert torch.equal(result.tensors['head.fc.weight'],
                       source['linear.weight'].t())
    back, left = convert_back(
        result.tensors, 'authors-cifar', head=result.head)
    assert not left and set(source) - set(back) == {'linear.bias'}
    assert all(torch.equal(back[name], source[name]) for name in back)


# --- round trips ---
@pytest.mark.parametrize(
    'shapes', [row[1] for row in COUNTS if row[3] < 500],
    ids=[row[0] for row in COUNTS if row[3] < 500])
def test_there_and_back_is_bit_for_bit(shapes):
    source = layouts.random({
        name: shape
        for name, shape in shapes.items()
        if not name.startswith('layer') or name[5] in '14'
    })
    # Two stages do: what a rule does to a tensor does not depend on others.
    first = convert(layouts.hollow(shapes), 'mmpretrain')
    small = {}
    for old, new in first.report.mapped.items():
        if old in source:
            small[new] = source[old]
    names = first.source.table.name
    whole = convert(
        {n: source.get(n, v) for n, v in layouts.hollow(shapes).items()},
        'mmpretrain')
    back, left = convert_back(
        whole.tensors, names, added=whole.report.added, head=whole.head)
    assert not left and set(back) == set(shapes)
    for name, value in source.items():
        assert back[name].dtype == value.dtype
        assert back[name].shape == value.shape, name
        assert torch.equal(back[name], value), name
        assert torch.equal(
            whole.tensors[first.report.mapped[name]].flatten(),
            small[first.report.mapped[name]].flatten())


def test_the_converter_does_not_touch_its_input():
    source = layouts.random(cifar())
    copies = {name: value.clone() for name, value in source.items()}
    convert(source, 'mmpretrain')
    assert list(source) == list(copies)
    assert all(torch.equal(source[n], copies[n]) for n in copies)


# --- what is not explained ---
def test_missing_unexpected_and_reshaped_are_listed_by_name():
    source = layouts.random(cifar())
    del source['layer1.0.conv1.weight']
    source['layer2.0.surprise.weight'] = torch.ones(1)
    source['layer1.1.se.excitation.0.weight'] = torch.ones(3, 16)
    with pytest.raises(CheckpointError, match='no common reduction'):
        convert(source, 'mmpretrain')
    source['layer1.1.se.excitation.0.weight'] = torch.ones(4, 16)
    source['layer3.0.bn1.weight'] = torch.ones(63)
    report = convert(source, 'mmpretrain').report
    assert report.missing == ['backbone.layer1.0.conv1.weight']
    assert report.unexpected == ['layer2.0.surprise.weight']
    assert report.mismatched == {
        'backbone.layer3.0.bn1.weight': ((63, ), (64, ))
    }
    text = str(report)
    for words in ('missing (1):\n  backbone.layer1.0.conv1.weight',
                  'unexpected (1):\n  layer2.0.surprise.weight',
                  'reshaped: none', '(63,), expected (64,)'):
        assert words in text
    assert not report.ok


@pytest.mark.parametrize('change, match', [
    (lambda s: {f'encoder.{k}': v for k, v in s.items()},
     'those of no source that is known here'),
    (lambda s: {**s, 'module.conv1.weight': s['conv1.weight']},
     "'conv1.weight' is in the file twice"),
    (lambda s: {**s, 'fc.weight': s['linear.weight']}, None),
    (lambda s: {k: v for k, v in s.items() if '.4.' not in k or
                not k.startswith('layer3')}, 'which is no depth'),
])
def test_states_that_cannot_be_converted(change, match):
    source = change(layouts.random(cifar()))
    if match is None:
        report = convert(source, 'mmpretrain').report
        assert report.unexpected == ['fc.weight']
        return
    with pytest.raises(CheckpointError, match=match):
        convert(find_weights(source).tensors, 'mmpretrain')


def test_two_prefixes_for_one_network_are_refused():
    source = layouts.random(layouts.authors_resnet(18))
    twice = {**source, **{f'backbone.{k}': v for k, v in source.items()}}
    report = convert(twice, 'mmdet-backbone').report
    assert len(report.unexpected) == len(source)
    both = {'act1.kappa': torch.ones(1), 'backbone.act1.kappa': torch.ones(1)}
    assert recognise(both).table is TABLES['apa_mm']
    ours = convert(source, 'mmdet-backbone').tensors
    twice = {**ours, **{f'backbone.{k}': v for k, v in ours.items()}}
    report = convert(twice, 'mmdet-backbone').report
    assert not report.ok or report.dropped


def test_every_table_has_distinct_targets_and_a_title():
    for table in TABLES.values():
        targets = [r.target for r in table.backbone if '{path}' not in
                   r.target]
        doubles = {t for t in targets if targets.count(t) > 1}
        # Stems that come in two forms may end in one name.
        assert all(t.startswith(('conv1', 'bn1')) for t in doubles), table
        assert table.title and table.marks


@pytest.mark.parametrize('names, width, task', [
    (['roi_head.bbox_head.fc_cls.weight'], 64, 'detection'),
    ([], 16, 'cifar'),
    (['backbone.layer1.0.attention.conv.weight'], 64, 'spatial'),
    (['backbone.layer1.0.attention.norm.weight'], 64, 'classification'),
])
def test_files_of_ours_that_do_not_say_whose_they_were(names, width, task):
    tensors = {name: torch.ones(1) for name in names}
    tensors['backbone.conv1.weight'] = torch.ones(width, 3, 3, 3)
    assert _task_of(tensors) == task
