"""The lists of LVIS's files on their way to the loss."""
import json
import logging
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from support.demo_jobs import DigitsLVISSettings, make_digits_lvis

from apa_mm.data.dataset_files import find_data_files
from apa_mm.utils.imports import HAS_MMDET

if not HAS_MMDET:
    pytest.skip('mmdet is missing', allow_module_level=True)

from apa_mm.det.datasets import CachedAnnotations, LVISV1Dataset
from apa_mm.det.federated import FederatedLVISDataset
from apa_mm.registry import MODELS
from mmdet.datasets.transforms import PackDetInputs
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from support.tiny_detectors import (
    NUM_CLASSES, box_heads, build, tiny_cfg)

NAMES = dict(classes=tuple(
    f'{colour}_{digit}' for digit in range(10)
    for colour in ('red', 'green', 'blue')))


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp('digits') / 'set'
    make_digits_lvis(str(folder), DigitsLVISSettings(
        num_train=30, num_val=30, train_negatives=3))
    return folder


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))


def open_set(data, pipeline=(), **kwargs):
    return FederatedLVISDataset(**arguments(data, pipeline), **kwargs)


def arguments(data, pipeline=()):
    return dict(
        ann_file=str(data / 'annotations/digits_lvis_train.json'),
        data_root=str(data), data_prefix=dict(img=''), metainfo=NAMES,
        pipeline=list(pipeline))


def infos(dataset):
    return [dataset.get_data_info(i) for i in range(len(dataset))]


def test_samples_tell_what_was_looked_for(data):
    dataset = open_set(data, [
        dict(type='mmdet.LoadImageFromFile'),
        dict(type='mmdet.LoadAnnotations', with_bbox=True),
        dict(type='mmdet.PackDetInputs')])
    path = data / 'annotations/digits_lvis_train.json'
    content = json.loads(path.read_text())
    seen = 0
    for sample in map(dataset.__getitem__, range(len(dataset))):
        meta = sample['data_samples'].metainfo
        image, = (i for i in content['images'] if i['id'] == meta['img_id'])
        shown = {a['category_id'] for a in content['annotations']
                 if a['image_id'] == image['id']}
        assert not shown & set(image['neg_category_ids'])
        seen += len(image['neg_category_ids'])
        # Category ids start at 1, labels at 0.
        assert meta['verified_labels'] == sorted(
            i - 1 for i in shown.union(image['neg_category_ids']))
        assert {'img_id', 'ori_shape'} <= set(meta)
    assert seen > 0
    # Only its own pipeline packs more.
    assert 'verified_labels' not in PackDetInputs().meta_keys


def test_the_cache_holds_what_mmdets_reader_makes(data, monkeypatch):
    pytest.importorskip('lvis')
    parent = LVISV1Dataset(  # has a file of its own in the cache
        ann_file=str(data / 'annotations/digits_lvis_train.json'),
        data_root=str(data), data_prefix=dict(img=''), metainfo=NAMES,
        pipeline=[])
    made = infos(open_set(data))
    assert infos(parent) == [
        {k: v for k, v in info.items() if k != 'verified_labels'}
        for info in made]
    with monkeypatch.context() as patch:
        patch.setattr('apa_mm.det.datasets.read_annotations', None)
        patch.setattr('mmdet.datasets.LVISV1Dataset.load_data_list', None)
        assert infos(open_set(data)) == made  # mapped
    monkeypatch.setattr(CachedAnnotations, 'is_plain', lambda self: False)
    assert infos(open_set(data)) == made
    assert any(info['verified_labels'] for info in made)


@pytest.mark.parametrize('plain', [True, False])
def test_without_lists_everything_was_looked_for(data, tmp_path, plain,
                                                 monkeypatch):
    if not plain:
        pytest.importorskip('lvis')
        monkeypatch.setattr(CachedAnnotations, 'is_plain', lambda _: False)
    content = json.loads(
        (data / 'annotations/digits_lvis_train.json').read_text())
    for image in content['images']:
        del image['neg_category_ids']
    (tmp_path / 'annotations').mkdir()
    path = tmp_path / 'annotations/digits_lvis_train.json'
    path.write_text(json.dumps(content))
    said = []
    monkeypatch.setattr('apa_mm.det.federated.print_log',
                        lambda *args: said.append(args))
    for _ in range(2):  # at each start
        dataset = open_set(tmp_path)
        dataset.full_init()  # as whoever counts the images
        found = infos(dataset)
        assert {tuple(i['verified_labels']) for i in found} == {
            tuple(range(30))}
    open_set(data)
    assert len(said) == 2
    for text, *where in said:
        assert f'{path} has no neg_category_ids (image ' in text
        assert where == ['current', logging.WARNING]


def test_the_checks_before_training_know_the_dataset():
    cfg = Config(dict(default_scope='mmdet', train_dataloader=dict(
        dataset=dict(type='apa_mm.FederatedLVISDataset', ann_file='a.json',
                     metainfo=NAMES))))
    file, = find_data_files(cfg, ['train'])
    assert file.layout == 'lvis_v1'


@pytest.mark.parametrize('kind, parent', [
    ('FederatedRoIHead', 'StandardRoIHead'),
    ('FederatedCascadeRoIHead', 'CascadeRoIHead')])
def test_samples_without_labels_are_refused(kind, parent):
    kind = MODELS.get(kind)
    head = kind.__new__(kind)
    with pytest.raises(ValueError, match='no verified_labels; train on an '
                       'apa_mm.FederatedLVISDataset.*rare_threshold=0 and '
                       f"mmdet's {parent}"):
        head.loss((), [], [SimpleNamespace(metainfo={})])


def losses_of(name, kind, verified, seen=None, **gol):
    """Return the classifier losses of a training step on two images."""
    cfg = tiny_cfg(name)
    cfg.roi_head.type = kind
    for head in box_heads(cfg):
        head.loss_cls = dict(
            type='apa_mm.GOLLoss', num_classes=NUM_CLASSES, **gol)
    model = build(cfg).train()
    heads = model.roi_head.bbox_head
    for head in heads if isinstance(heads, torch.nn.ModuleList) else [heads]:
        head.loss_cls.set_class_frequency([1] * NUM_CLASSES, 10000)
        watch(head, seen)
    torch.manual_seed(0)
    samples = []
    for n, labels in enumerate(verified):
        # An object more on the second image, so that sizes may differ.
        boxes = torch.tensor([[4., 4, 40, 40], [20, 8, 60, 60]])[:n + 1]
        samples.append(DetDataSample(
            gt_instances=InstanceData(
                bboxes=boxes, labels=torch.arange(n + 1)),
            metainfo=dict(img_shape=(64, 64), pad_shape=(64, 64),
                          scale_factor=(1, 1), verified_labels=labels)))
    losses = model.loss(torch.randn(2, 3, 64, 64), samples)
    return {k: v for k, v in losses.items() if k.endswith('loss_cls')}


def watch(head, seen):
    """Note the image of each RoI, and what the loss is told."""
    if seen is None:
        return
    told, given = head.loss_cls.set_verified, head.loss_and_target

    def set_verified(verified, sizes):
        seen.append([verified, sizes])
        told(verified, sizes)

    def loss_and_target(**kwargs):
        seen[-1].append(kwargs['rois'][:, 0].tolist())
        return given(**kwargs)

    head.loss_cls.set_verified = set_verified
    head.loss_and_target = loss_and_target


@pytest.mark.parametrize('name, kind, stages', [
    ('faster-rcnn', 'FederatedRoIHead', 1),
    ('cascade-rcnn', 'FederatedCascadeRoIHead', 3)])
def test_the_loss_of_each_stage_is_told_whose_the_rois_are(
        name, kind, stages):
    seen = []
    some = losses_of(name, f'apa_mm.{kind}', [[0], [1, 0]], seen,
                     unverified_only=True)
    assert len(some) == len(seen) == stages
    for verified, sizes, images in seen:
        assert verified == [[0], [1, 0]]
        assert images == [0.] * sizes[0] + [1.] * sizes[1]
    parent = kind.replace('Federated', '' if stages > 1 else 'Standard')
    whole = losses_of(name, f'apa_mm.{kind}', [range(NUM_CLASSES)] * 2,
                      unverified_only=True)
    plain = losses_of(name, parent, [[], []], rare_threshold=0)
    torch.testing.assert_close(whole, plain)
    assert all(some[key] < whole[key] for key in whole)
