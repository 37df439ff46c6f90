"""What a file says besides its weights, and what it leaves open."""
import argparse
import re

from support import checkpoint_layouts as layouts
from support import checkpoint_networks as networks
import pytest
import torch
from support.checkpoint_checks import backbone_of

from apa_mm.checkpoint import CheckpointError, convert
from apa_mm.checkpoint.contents import Facts, find_weights
from apa_mm.checkpoint.notes import class_order
from apa_mm.registry import MODELS


def full(backbone, kind=None, classes=1000, features=2048, name='fc'):
    return {**backbone, **layouts.classifier(kind, classes, features, name)}


def cifar():
    return full(layouts.authors_cifar(), None, 100, 64, 'linear')


def namespace(**kwargs):
    return argparse.Namespace(**kwargs)


@pytest.mark.parametrize('args, order, words', [
    (dict(dset_name='ImageNet_LT', classif_norm='cosine'), 'frequency-rank',
     'i-th most frequent class of ImageNet-LT'),
    (dict(dset_name='inat18', classif_norm=None), 'frequency-rank',
     'iNaturalist 2018'),
    (dict(dset_name='imagenet', classif_norm=None), 'native', None),
    (None, 'unknown', 'ImageNet-1K .* or ImageNet-LT'),
])
def test_the_class_order_is_told_or_said_to_be_unknown(args, order, words):
    shapes = full(layouts.authors_resnet(), 'cosine')
    content = {'model': layouts.hollow(shapes), 'epoch': 99}
    if args is not None:
        content['args'] = namespace(**args)
    weights = find_weights(content)
    assert weights.facts.epoch == 99
    result = convert(weights.tensors, 'mmpretrain', weights.facts)
    found, note = class_order(result.source, weights.facts, 1000)
    assert found == order
    assert (note is None) == (words is None)
    if words:
        assert re.search(words, note) and note in result.report.notes


def test_what_only_the_command_line_tells_is_in_the_notes():
    shapes = full(layouts.authors_resnet())
    silent = convert(layouts.hollow(shapes), 'mmpretrain').report.notes
    assert any("'inv', which has the same tensors" in n for n in silent)
    facts = Facts(form='authors', head='inv', offset='rel')
    told = convert(layouts.hollow(shapes), 'mmpretrain', facts)
    assert told.head == 'inv'
    assert any("iif='rel'" in note for note in told.report.notes)
    assert any('no counterpart here' in note for note in told.report.notes)


@pytest.mark.parametrize('wrap', [
    lambda s: {'model': s},
    lambda s: {'state_dict': s},
    lambda s: s,
    lambda s: {'model_ema': {'n_averaged': torch.tensor(5),
                             **{f'module.{k}': v for k, v in s.items()}}},
    lambda s: {'model': {f'module.{k}': v for k, v in s.items()}},
])
def test_every_wrapping_of_the_authors_files_is_understood(wrap):
    source = layouts.random(cifar())
    weights = find_weights(wrap(source))
    assert weights.tensors.keys() == source.keys()
    result = convert(weights.tensors, 'mmpretrain')
    assert result.report.ok and result.source.table.name == 'authors-cifar'


def test_the_average_is_taken_on_request_only():
    plain, averaged = layouts.random(cifar()), layouts.random(cifar(), seed=1)
    content = {'model': plain, 'model_ema': {
        f'module.{k}': v for k, v in averaged.items()}}
    name = 'layer1.0.conv1.weight'
    assert torch.equal(find_weights(content).tensors[name], plain[name])
    found = find_weights(content, averaged=True).tensors
    assert torch.equal(found[name], averaged[name])
    with pytest.raises(CheckpointError, match='holds no moving average'):
        find_weights({'model': plain}, averaged=True)


# --- the two clamps of lambda ---
def test_the_shifted_clamp_is_measured_and_can_be_matched():
    shapes = full(layouts.authors_resnet(depth=18), None, 10, 512)
    source = layouts.random(shapes)
    low = {'relu.lambda_param': 5e-5, 'layer2.0.unirect1.lambda_param': -0.3,
           'layer4.1.unirect2.lambda_param': 0.0}
    for name, value in low.items():
        source[name] = torch.tensor([value])
    result = convert(source, 'mmpretrain')
    note, = [n for n in result.report.notes if 'lambda below' in n]
    assert '3 of 17 units' in note and '(2 at or below 0)' in note
    # The text: the forward difference is at most 2.5e-5 on [-12, 12].
    measured = float(note.split('at most ')[1].split(' apart')[0])
    assert 1e-6 < measured <= 2.6e-5
    for name, value in low.items():  # stored as they are
        assert result.tensors[result.report.mapped[name]] == torch.tensor(
            value)
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    expected = networks.Network(source).features(x)[-1]
    cfg = dict(
        result.architecture.cfg(),
        act_cfg=dict(type='apa_mm.AGLU', lambd_min=1e-8))
    exact = MODELS.build(cfg).double().eval()
    default = backbone_of(result)
    exact.load_state_dict(default.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(
            exact(x)[-1], expected, rtol=1e-6, atol=1e-6)
        assert not torch.allclose(default(x)[-1], expected, rtol=0, atol=1e-6)
        torch.testing.assert_close(
            default(x)[-1], expected, rtol=1e-3, atol=1e-3)


def test_detection_files_need_no_note_about_the_clamp():
    source = layouts.random(
        {f'backbone.{n}': s for n, s in layouts.authors_resnet(18).items()})
    source['backbone.relu.lambda_param'] = torch.tensor([-1.0])
    result = convert(source, 'mmdet-backbone')
    assert result.source.table.name == 'authors-detection'
    assert not any('lambda below' in note for note in result.report.notes)
