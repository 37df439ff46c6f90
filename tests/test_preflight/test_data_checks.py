"""What the checks of the data find beyond a single file."""
import copy
import json
import subprocess

import pytest
import torch
from mmengine.config import Config
from support.tiny_jobs import (CLASSES, coco_annotations,
                               write_detection_config, write_detection_data)

from apa_mm.preflight.job import report_datasets
from apa_mm.utils.imports import HAS_MMDET

pytestmark = pytest.mark.skipif(not HAS_MMDET, reason='mmdet is missing')


#: Losses that drop nothing there, or by no threshold.
LOSSES = dict(
    verified=dict(type='apa_mm.GOLLoss', unverified_only=True,
                  rare_threshold=1.),
    sampled=dict(type='apa_mm.SampledSigmoidLoss'))


@pytest.fixture
def job(tmp_path):
    data = write_detection_data(tmp_path / 'data')
    cfg = Config.fromfile(write_detection_config(tmp_path / 'tiny.py', data))
    cfg.data = data
    return cfg


def put(job, name, content=None, **change):
    """Write an annotation file beside the job's."""
    content = dict(content or coco_annotations(), **change)
    (job.data / name).write_text(json.dumps(content))
    return name


@pytest.mark.parametrize('threshold, negatives, affected', [
    (1., None, 3), (0.3, None, 2), (0.25, None, 0), (0, None, 0),
    (1., 'every', 3), (1., 'none', 0), ('verified', None, 0),
    ('sampled', None, 0)
])
def test_gol_on_a_set_that_is_labelled_whole(
        job, threshold, negatives, affected):
    content = coco_annotations()
    for image in content['images']:
        shown = {a['category_id'] for a in content['annotations']
                 if a['image_id'] == image['id']}
        if negatives is None:
            del image['neg_category_ids']
        if negatives == 'every':
            image['neg_category_ids'] = [
                c['id'] for c in content['categories']
                if c['id'] not in shown]
    # Only what is trained on counts.
    job.val_dataloader.dataset.ann_file = put(job, 'own.json', content)
    job.train_dataloader.dataset.dataset.ann_file = 'own.json'
    job.model.roi_head = dict(bbox_head=dict(
        type='Shared2FCBBoxHead', num_classes=len(CLASSES), loss_cls=dict(
            num_classes=len(CLASSES), **LOSSES.get(threshold, dict(
                type='apa_mm.GOLLoss', rare_threshold=threshold)))))
    job.pop('data')
    report = report_datasets(job)
    assert not [p for p in report.problems if 'own.json' in p]
    found = [w for w in report.warnings if 'GOLLoss' in w]
    assert len(found) == bool(affected)
    if affected:
        assert f'{affected} of {len(CLASSES)} classes' in found[0]
        assert 'box AP of rare classes from 0.511 to 0.157' in found[0]
        assert found[0].endswith('set rare_threshold=0 in loss_cls')


def problems(job):
    folder = job.pop('data')
    try:
        return report_datasets(job).problems
    finally:
        job.data = folder


def member(job):
    return copy.deepcopy(job.train_dataloader.dataset.dataset)


def moved(content, by_id=False):
    """Return the same content with the categories in another order."""
    categories = content['categories'][::-1]
    if by_id:
        names = [item['name'] for item in categories]
        categories = [
            dict(item, name=name)
            for item, name in zip(content['categories'], names, strict=True)
        ]
    return dict(content, categories=categories)


@pytest.mark.parametrize('by_id', [False, True])
def test_a_val_file_with_another_order(job, by_id):
    from apa_mm.det.coco_metric import CocoMetric
    content = moved(coco_annotations(), by_id)
    name = put(job, 'val.json', content)
    job.val_dataloader.dataset.ann_file = name
    job.val_evaluator = dict(
        type='apa_mm.CocoMetric', ann_file=str(job.data / name))
    told, order = problems(job)
    line = "set metainfo=dict(classes=('ring', 'ball', 'cube'))"
    assert told.endswith(line) and '(val CocoDataset)' in told
    assert "class 0 is 'ring' there and 'cube' in" in order
    assert order.endswith(f"{job.data / 'ann.json'} (train CocoDataset)")
    assert ('sort_categories=True' in order) == (not by_id)
    # What it would have come to: a perfect detector of the training labels.
    metric = CocoMetric(str(job.data / name))
    metric.dataset_meta = dict(classes=CLASSES)
    number = {item['name']: k for k, item in enumerate(
        coco_annotations()['categories'])}
    names = {item['id']: item['name'] for item in content['categories']}
    for item in content['annotations']:
        x, y, w, h = item['bbox']
        pred = dict(
            bboxes=torch.tensor([[x, y, x + w, y + h]]),
            scores=torch.ones(1),
            labels=torch.tensor([number[names[item['category_id']]]]))
        metric.process(None, [
            dict(img_id=item['image_id'], ori_shape=(64, 64),
                 pred_instances=pred)
        ])
    assert metric.evaluate(4)['coco/bbox_mAP'] == pytest.approx(1 / 3, abs=.01)


def test_sort_categories_mends_it(job):
    name = put(job, 'val.json', moved(coco_annotations()))
    job.val_dataloader.dataset.ann_file = name
    job.val_evaluator.update(
        ann_file=str(job.data / name), sort_categories=True)
    assert problems(job) == []


def test_classes_of_the_config_in_another_order(job):
    for loader in (job.train_dataloader.dataset, job.val_dataloader):
        loader.dataset.metainfo = dict(classes=('ball', 'cube', 'ring'))
    found = problems(job)
    assert len(found) == 2
    assert all(
        text.endswith("set metainfo=dict(classes=('cube', 'ball', 'ring'))")
        and "class 0 is 'ball' in the dataset's metainfo" in text
        for text in found)
    job.train_dataloader.dataset.dataset.metainfo = dict(
        classes=('cube', 'ball', 'ring'))
    job.val_dataloader.dataset.metainfo = dict(
        classes=('cube', 'ball', 'ring'))
    assert problems(job) == []


def test_many_classes_get_a_command_for_the_right_order(
        job, tmp_path, monkeypatch):
    names = [f'class {k}' for k in range(120)]
    name = put(job, 'many.json', categories=[
        dict(id=k + 1, name=item) for k, item in enumerate(names)
    ])
    job.model.roi_head.bbox_head.num_classes = 120
    job.val_dataloader = job.val_evaluator = job.val_cfg = None
    job.test_dataloader = job.test_evaluator = job.test_cfg = None
    train = member(job)
    job.train_dataloader.dataset = dict(
        train, ann_file=name, metainfo=dict(classes=names[::-1]))
    found, = problems(job)
    told, command = found.split(', one a line: ')
    assert "set metainfo=dict(classes='classes.txt')" in told
    monkeypatch.chdir(tmp_path)
    subprocess.run(command, shell=True, check=True)
    job.train_dataloader.dataset.metainfo = dict(classes='classes.txt')
    assert problems(job) == []
    from mmdet.registry import DATASETS
    dataset = DATASETS.build(
        dict(job.train_dataloader.dataset, pipeline=[]))
    assert list(dataset.metainfo['classes']) == names
    (tmp_path / 'classes.txt').write_text('\n'.join(names[::-1]))
    assert problems(job) == [found]


def test_a_model_that_reads_text_needs_each_set_to_agree_with_itself(job):
    job.model.language_model = dict(type='BertModel')
    name = put(job, 'val.json', moved(coco_annotations()))
    job.val_dataloader.dataset.ann_file = name
    job.val_evaluator.ann_file = str(job.data / name)
    found, = problems(job)
    assert "class 0 is 'cube' in the dataset's metainfo" in found
    job.val_dataloader.dataset.metainfo = dict(
        classes=('ring', 'ball', 'cube'))
    assert problems(job) == []


def test_members_with_another_order_have_no_metric_to_sort(job):
    other = dict(member(job), metainfo=dict(classes=CLASSES[::-1]),
                 ann_file=put(job, 'b.json', moved(coco_annotations())))
    job.train_dataloader.dataset = dict(
        type='ConcatDataset', datasets=[member(job), other])
    found, = problems(job)
    assert "class 0 is 'ring' there and 'cube' in" in found
    assert "; write its 'categories' in the order of" in found
    assert 'sort_categories' not in found


def test_a_file_with_the_last_category_alone(job):
    content = coco_annotations()
    content['categories'] = content['categories'][2:]
    content['annotations'] = content['annotations'][2:3]
    job.val_dataloader.dataset.update(
        ann_file=put(job, 'val.json', content),
        metainfo=dict(classes=('ring', )))
    job.val_evaluator.ann_file = str(job.data / 'val.json')
    # mmdet gives ring the label 0 there, and 2 in training.
    assert any("class 0 is 'ring' there and 'cube' in" in text
               for text in problems(job))


def test_objects_of_other_classes_are_not_learned(job):
    content = coco_annotations()
    for item in content['annotations']:
        item['iscrowd'] = int(item['category_id'] == 2)
    for loader in (job.train_dataloader.dataset, job.val_dataloader,
                   job.test_dataloader):
        loader.dataset.metainfo = dict(classes=('ball', ))
    job.model.roi_head.bbox_head.num_classes = 1
    train = job.train_dataloader.dataset.dataset
    train.ann_file = put(job, 'crowds.json', content)
    found, = problems(job)
    assert 'none of its 4 annotations can be learned' in found
    from mmdet.registry import DATASETS
    built = DATASETS.build(dict(train, pipeline=[]))
    kept = [item for info in built.load_data_list()
            for item in info['instances'] if not item['ignore_flag']]
    assert kept == []


def test_only_classes_of_the_data_set_are_missed(job):
    content = coco_annotations()
    content['annotations'] = content['annotations'][:2]
    train = job.train_dataloader.dataset.dataset
    train.ann_file = put(job, 'two.json', content)
    folder = job.pop('data')
    warning, = report_datasets(job).warnings
    assert 'ring' in warning
    train.metainfo = dict(classes=('cube', 'ball'))
    assert report_datasets(job).warnings == []
    job.data = folder


def test_lvis_files_with_renamed_or_moved_classes(job):
    content = coco_annotations()
    for loader in (job.train_dataloader.dataset, job.val_dataloader):
        loader.dataset.type = 'LVISV1Dataset'
        loader.dataset.data_prefix = dict(img='images/')
    job.val_evaluator = dict(
        type='apa_mm.LVISMetric', ann_file=str(job.data / 'val.json'))
    job.val_dataloader.dataset.ann_file = put(
        job, 'val.json', dict(content, categories=[
            dict(item, name=f'new {item["name"]}')
            for item in content['categories']
        ]))
    assert any('3 of 3 classes' in text and 'val LVISV1Dataset' in text
               for text in problems(job))
    put(job, 'val.json', moved(content))
    assert any("write its 'categories' in the order of" in text
               for text in problems(job))


@pytest.mark.parametrize('change', [
    dict(iscrowd=1),
    dict(ignore=1),
    dict(bbox=[0, 0, 0, 9]),
    dict(bbox=[500, 0, 9, 9]),
    dict(area=0),
])
def test_a_training_set_without_an_object_to_learn(job, change):
    content = coco_annotations()
    for item in content['annotations']:
        item.update(change)
    job.train_dataloader.dataset.dataset.ann_file = put(
        job, 'none.json', content)
    found, = problems(job)
    assert 'none of its 4 annotations can be learned' in found
    content['annotations'][0] = coco_annotations()['annotations'][0]
    put(job, 'none.json', content)
    assert problems(job) == []


@pytest.mark.parametrize('small', [[0, 1, 2, 3], [1]])
def test_images_below_the_least_size_are_not_learned(job, small):
    content = coco_annotations()
    for index in small:
        content['images'][index]['width'] = 31
    train = dict(member(job), ann_file=put(job, 'small.json', content),
                 filter_cfg=dict(filter_empty_gt=True, min_size=32))
    job.train_dataloader.dataset = train
    job.pop('data')
    report = report_datasets(job)
    row = next(row for row in report.rows if row['split'] == 'train')
    assert row['unlearned_annotations'] == len(small)
    if small == [1]:
        from mmdet.registry import DATASETS
        assert len(DATASETS.build(dict(train, _scope_='mmdet'))) == 3
        assert report.problems == []
        warning, = report.warnings
        assert warning.endswith('cannot be learned: ball')
    else:
        assert 'none of its 4 annotations can be learned' in str(
            report.problems)


@pytest.mark.parametrize('kind', ['CocoDataset', 'LVISV1Dataset'])
def test_a_name_that_two_categories_have(job, kind):
    content = coco_annotations()
    content['categories'].append(dict(content['categories'][0], id=9))
    train = dict(member(job), type=kind,
                 ann_file=put(job, 'twice.json', content))
    job.train_dataloader.dataset = train
    if kind != 'CocoDataset':  # which takes them by their place
        train['metainfo'] = dict(classes=['cube', 'cube', 'ring', 'ball'])
    found = [text for text in problems(job) if 'num_classes' not in text]
    assert len(found) == 1 and found[0].endswith(
        f'twice.json (train {kind}): 1 class names occur more than once '
        "(cube) in its categories or the dataset's metainfo; give every "
        'class a name of its own')
    # In the same places, mmdet's data sets and ours number them alike.
    put(job, 'ann.json', content)  # of validation and test
    names = [item['name'] for item in content['categories']]
    for loader in (job.train_dataloader, job.val_dataloader,
                   job.test_dataloader):
        loader.dataset.metainfo = dict(classes=names)
    assert not [text for text in problems(job) if 'cube' in text]


@pytest.mark.parametrize('annotations', [[], None])
def test_members_without_labels(job, annotations):
    content = coco_annotations()
    content['annotations'] = annotations
    if annotations is None:
        del content['annotations']
    empty = dict(member(job), ann_file=put(job, 'empty.json', content),
                 filter_cfg=None)
    train = job.train_dataloader
    train.dataset = dict(type='ConcatDataset', datasets=[member(job), empty])
    assert problems(job) == []
    # A reader that drops empty images would be left with none.
    train.dataset.datasets[1].filter_cfg = dict(filter_empty_gt=True)
    assert len(problems(job)) == 1
    # Alone they are no training set.
    train.dataset = dict(
        type='ConcatDataset', datasets=[copy.deepcopy(empty)] * 2)
    assert 'none of its 0 annotations' in problems(job)[0]
    train.dataset = empty
    assert any("'annotations'" in text for text in problems(job))


def test_masks_are_looked_into_where_they_are_read(job):
    content = coco_annotations()
    content['annotations'][1]['segmentation'] = []
    put(job, 'ann.json', content)
    assert problems(job) == []
    job.val_evaluator = dict(
        type='CocoMetric', metric=['bbox', 'segm'],
        ann_file=str(job.data / 'ann.json'))
    found, = problems(job)
    assert "ann.json (val CocoDataset): 1 of 4 entries of 'annotations' " \
        "have an unusable 'segmentation' (the first is entry 1 with id 2" \
        in found


@pytest.mark.parametrize('shape', [[], None, [1, 2, 3, 4, 5, 6], [[1] * 7]])
def test_training_needs_the_masks_that_it_keeps(job, shape):
    train = member(job)
    train.pipeline[1].with_mask = True
    content = coco_annotations()
    content['annotations'][1]['segmentation'] = shape
    job.train_dataloader.dataset = dict(
        train, ann_file=put(job, 'masks.json', content))
    found, = problems(job)
    assert "an unusable 'segmentation' (the first is entry 1 with id 2" \
        in found
    # mmdet drops these objects before it reads their masks.
    from mmdet.registry import DATASETS
    for change in (dict(area=0), dict(bbox=[9, 9, 0, 9]), dict(ignore=1)):
        put(job, 'masks.json', dict(content, annotations=[
            dict(item, **change) if item['id'] == 2 else item
            for item in content['annotations']
        ]))
        assert problems(job) == []
        built = DATASETS.build(
            dict(job.train_dataloader.dataset, pipeline=[]))
        assert all(item['mask'] for info in built.load_data_list()
                   for item in info['instances'])
    # The metric reads all of them.
    job.val_dataloader.dataset.ann_file = 'masks.json'
    job.val_evaluator = dict(type='CocoMetric', metric='segm',
                             ann_file=str(job.data / 'masks.json'))
    assert len(problems(job)) == 1
