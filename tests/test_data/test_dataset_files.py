import pytest
from mmengine.config import Config

from apa_mm.data.dataset_files import find_data_files
from apa_mm.utils.imports import HAS_MMDET, HAS_MMPRETRAIN

needs_mmdet = pytest.mark.skipif(not HAS_MMDET, reason='mmdet is missing')
COCO = dict(
    type='CocoDataset', data_root='data/', ann_file='a.json',
    data_prefix=dict(img='img/'))


def files(train=None, val=None, evaluator=None, scope='mmdet', **kwargs):
    cfg = dict(default_scope=scope)
    if train is not None:
        cfg['train_dataloader'] = dict(dataset=train)
    if val is not None:
        cfg['val_dataloader'] = dict(dataset=val)
    if evaluator is not None:
        cfg['val_evaluator'] = evaluator
    return find_data_files(Config(cfg), **kwargs)


@needs_mmdet
def test_a_dataset_is_described():
    item, = files(dict(COCO, metainfo=dict(classes=('a', 'b'))))
    assert (item.split, item.reader) == ('train', 'CocoDataset')
    assert (item.path, item.image_folder) == ('data/a.json', 'data/img/')
    assert item.layout == 'coco' and item.classes == ('a', 'b')
    assert not item.masks and not item.lvis_metric and item.labelled


@needs_mmdet
def test_absolute_paths_are_not_joined():
    item, = files(
        dict(COCO, ann_file='/x/a.json', data_prefix=dict(img='/y')))
    assert (item.path, item.image_folder) == ('/x/a.json', '/y')


@needs_mmdet
def test_wrappers_are_opened():
    other = dict(COCO, ann_file='b.json')
    train = dict(
        type='RepeatDataset',
        dataset=dict(
            type='ClassBalancedDataset',
            dataset=dict(type='ConcatDataset', datasets=[COCO, other])))
    assert [item.path for item in files(train)] == ['data/a.json',
                                                    'data/b.json']
    assert [item.path for item in files([COCO, other])] == ['data/a.json',
                                                            'data/b.json']


@needs_mmdet
@pytest.mark.parametrize('kind, layout', [
    ('CocoDataset', 'coco'),
    ('mmdet.CocoDataset', 'coco'),
    ('V3DetDataset', 'coco'),
    ('LVISV05Dataset', 'lvis_v0.5'),
    ('LVISV1Dataset', 'lvis_v1'),
    ('CocoPanopticDataset', None),
    ('Objects365V2Dataset', None),
    ('VOCDataset', None),
    ('NoSuchDataset', None),
])
def test_layouts_of_the_datasets_of_mmdet(kind, layout):
    item, = files(dict(COCO, type=kind))
    assert item.layout == layout
    assert (item.image_folder is None) == (layout is None)


@needs_mmdet
def test_class_names_come_from_the_class_where_the_config_has_none():
    assert len(files(COCO)[0].classes) == 80
    assert len(files(dict(COCO, type='LVISV1Dataset'))[0].classes) == 1203
    assert files(dict(COCO, type='V3DetDataset'))[0].classes is None
    named = dict(COCO, metainfo=dict(classes='classes.txt'))
    assert files(named)[0].classes is None


@needs_mmdet
@pytest.mark.parametrize('change', [
    dict(ann_file='s3://bucket/a.json'),
    dict(data_root='s3://bucket'),
    dict(backend_args=dict(backend='petrel')),
    dict(ann_file=''),
])
def test_files_out_of_reach_are_left_out(change):
    assert files(dict(COCO, **change)) == []


@needs_mmdet
def test_metrics_tell_what_the_file_needs():
    metric = dict(type='apa_mm.LVISMetric', metric=['bbox', 'segm'])
    item, = files(val=COCO, evaluator=[metric])
    assert item.lvis_metric and item.masks and item.split == 'val'
    item, = files(val=COCO, evaluator=dict(type='CocoMetric', metric='bbox'))
    assert not item.lvis_metric and not item.masks
    item, = files(val=COCO, evaluator=dict(metrics=[dict(metric, a=1)]))
    assert item.lvis_metric
    blind = dict(type='CocoMetric', format_only=True)
    assert not files(val=COCO, evaluator=blind)[0].labelled
    assert files(val=COCO, evaluator=[blind, metric])[0].labelled


@needs_mmdet
def test_a_pipeline_may_read_masks():
    pipeline = [dict(type='LoadAnnotations', with_mask=True)]
    assert files(dict(COCO, pipeline=pipeline))[0].masks


@needs_mmdet
def test_a_metric_may_have_a_file_of_its_own():
    metric = dict(type='apa_mm.LVISMetric', ann_file='data//a.json')
    assert len(files(val=COCO, evaluator=metric)) == 1
    other = dict(type='CocoMetric', metric='segm', ann_file='data/b.json')
    lvis, coco = files(
        val=dict(
            type='ConcatDataset', datasets=[COCO,
                                            dict(COCO, ann_file='b.json')]),
        evaluator=dict(
            type='MultiDatasetsEvaluator', metrics=[metric, other]))
    assert lvis.lvis_metric and not lvis.masks
    assert coco.masks and not coco.lvis_metric
    own = files(val=COCO, evaluator=dict(metric, ann_file='c.json'))[1]
    assert (own.path, own.layout, own.image_folder) == ('c.json', 'coco', None)
    assert own.lvis_metric


@needs_mmdet
def test_only_the_asked_splits():
    assert files(COCO, COCO, splits=('val', ))[0].split == 'val'
    assert len(files(COCO, COCO)) == 2
    with_none = Config(dict(default_scope='mmdet', val_dataloader=None))
    assert find_data_files(with_none) == []


@pytest.mark.skipif(not HAS_MMPRETRAIN, reason='mmpretrain is missing')
def test_a_folder_of_images_is_a_file_too():
    folder = dict(type='CustomDataset', data_root='data/x')
    item, = files(folder, scope='mmpretrain')
    assert (item.path, item.layout) == ('data/x', 'folder')
    download = dict(type='CIFAR10', data_root='data/cifar10')
    assert files(download, scope='mmpretrain') == []
