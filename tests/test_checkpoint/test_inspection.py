import argparse

from support import checkpoint_layouts as layouts
import pytest
import torch

from apa_mm.checkpoint import convert, inspect_file
from apa_mm.layers.pairs import Pair, parameter_pairs
from apa_mm.checkpoint.writing import write_checkpoint


def save(tmp_path, content, name='a.pth'):
    path = tmp_path / name
    torch.save(content, path)
    return str(path)


def cifar(**kwargs):
    return layouts.random({
        **layouts.authors_cifar(**kwargs),
        **layouts.classifier(None, 100, 64, 'linear')
    })


@pytest.fixture
def authors_file(tmp_path):
    source = cifar()
    source['unirect.lambda_param'] = torch.tensor([-0.5])
    source['layer1.0.unirect1.lambda_param'] = torch.tensor([5e-5])
    source['layer2.1.se.unact.lambda_param'] = torch.tensor([5e-5])
    return save(
        tmp_path,
        dict(
            model=source,
            epoch=499,
            args=argparse.Namespace(dset_name='cifar100',
                                    classif_norm=None)))


def test_what_a_file_is(authors_file):
    found = inspect_file(authors_file)
    text = str(found)
    for words in ("the authors' CIFAR classification code",
                  'ResNet-32, AGLU units, SE attention (apa, reduction 4, '
                  'LayerNorm)', 'linear classifier, 100 classes',
                  '340 tensors, 484,656 parameters',
                  '46 pairs (31 units, 15 gates)', 'NaN or inf    none',
                  'class order: native'):
        assert words in text
    assert found.num_bytes > 10**6


def test_dead_lambdas_follow_the_sources_clamps(authors_file):
    # Classification units die at 0, gates at 1e-4.
    assert inspect_file(authors_file).dead == [
        'backbone.act1', 'backbone.layer2.1.attention.gate'
    ]


def test_pairs_come_in_the_order_of_the_network(authors_file):
    names = [pair.name for pair in inspect_file(authors_file).pairs]
    assert names[:7] == [
        'backbone.act1', 'backbone.layer1.0.act1',
        'backbone.layer1.0.attention.gate', 'backbone.layer1.0.act2',
        'backbone.layer1.1.act1', 'backbone.layer1.1.attention.gate',
        'backbone.layer1.1.act2'
    ]
    shuffled = {}
    for block in (10, 2):
        for site in ('act3', 'attention.spatial.gate', 'act2',
                     'attention.channel.gate', 'act1'):
            for leaf in ('kappa', 'lambd'):
                shuffled[f'layer3.{block}.{site}.{leaf}'] = torch.ones(1)
    shuffled.update({'z.kappa': torch.ones(1), 'z.lambd': torch.ones(1)})
    order = [p.name for p in parameter_pairs(shuffled)]
    sites = ['act1', 'act2', 'attention.channel.gate',
             'attention.spatial.gate', 'act3']
    assert order == [f'layer3.{b}.{s}' for b in (2, 10) for s in sites] + ['z']


def test_the_table_lists_values_and_marks_dead_ones(authors_file):
    lines = inspect_file(authors_file).table().splitlines()
    assert len(lines) == 48
    cells = [cell.strip() for cell in lines[2].split('|')[1:-1]]
    assert cells[:2] == ['backbone.act1', 'unit']
    assert cells[3:] == ['-0.50000', 'dead']


def test_nan_is_reported_and_not_refused(tmp_path):
    source = cifar()
    source['bn1.weight'][3] = torch.nan
    found = inspect_file(save(tmp_path, source))
    assert found.broken == ['bn1.weight']
    assert 'NaN or inf    1 (bn1.weight)' in str(found)


@pytest.mark.parametrize('name, words', [
    ('lvis-r50', 'Mask R-CNN, 1203 scores, learned mask temperature, CARAFE'),
    ('coco-r50', 'Mask R-CNN, 81 scores'),
    ('v3det-faster', 'Faster R-CNN, 13205 scores, wrapped Cauchy'),
    ('v3det-cascade', 'Cascade R-CNN, 13205 scores, wrapped Cauchy'),
])
def test_detectors_are_told_by_their_heads(tmp_path, name, words):
    # Small stand-ins of the large layers keep the file small.
    shapes = {
        k: (s if len(s) < 2 or k.startswith('backbone') else
            (s[0] if 'fc_cls' in k else 1, 1, *s[2:]))
        for k, s in layouts.authors_detector(name, depth=18).items()
    }
    found = inspect_file(
        save(tmp_path, dict(state_dict=layouts.random(shapes))))
    assert found.head == words
    assert 'ResNet-18' in str(found)


@pytest.mark.parametrize('kind, words', [
    ('cosine', 'cosine classifier, 100 classes'),
    ('lr_cosine', 'cosine with learned scale classifier, 100 classes'),
    ('norm', 'normalised classifier, 100 classes'),
])
def test_classifiers_are_told_by_names_and_shapes(tmp_path, kind, words):
    source = layouts.random({
        **layouts.authors_cifar(),
        **layouts.classifier(kind, 100, 64, 'linear')
    })
    assert inspect_file(save(tmp_path, source)).head == words


def test_unknown_networks_are_described_as_far_as_possible(tmp_path):
    found = inspect_file(save(tmp_path, dict(a=torch.ones(2))))
    assert found.source is None and not found.pairs
    assert 'source        unknown' in str(found)
    assert 'no source that is known' in str(found)
    assert found.table() == 'no kappa and lambda in this file'


def test_ultralytics_units_count_as_gates(tmp_path):
    source = {'model.0.act.kappa': torch.ones(1),
              'model.0.act.lambd': torch.ones(1)}
    assert [p.kind for p in inspect_file(save(tmp_path, source)).pairs] == [
        'gate'
    ]


def test_a_converted_file_tells_where_it_comes_from(tmp_path):
    result = convert(cifar(), 'mmpretrain')
    meta = dict(source='somebody', source_sha256='ab' * 32,
                class_order='frequency-rank')
    for name in ('a.pth', 'a.safetensors'):
        path = write_checkpoint(str(tmp_path / name), result.tensors, meta)
        text = str(inspect_file(path))
        assert 'apa_mm, converted from somebody (abababab)' in text
        assert 'class order: frequency-rank' in text


def test_values_per_channel_are_given_as_a_range():
    pair = Pair('a', 'unit', torch.tensor([1.0, 2.0]),
                torch.tensor([0.5, 5e-5]))
    assert pair.dead('floor') and not pair.dead('shifted')
