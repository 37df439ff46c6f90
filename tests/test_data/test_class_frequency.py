"""Tests of counting the training images of every class."""
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.dataset import (BaseDataset, ClassBalancedDataset,
                              ConcatDataset, RepeatDataset)
from PIL import Image
from support.tiny_annotations import CLASSES, COUNTS, NUM_IMAGES, build, write

from apa_mm.data.class_frequency import (class_frequency,
                                           class_frequency_from_file,
                                           plain_datasets)


def check(found, counts=COUNTS, num_images=NUM_IMAGES):
    assert found.counts.tolist() == counts
    assert found.counts.dtype == np.int64
    assert found.num_images == num_images


# --- detection datasets -----------------------------------------------------
@pytest.mark.parametrize('kind', ['CocoDataset', 'LVISV1Dataset'])
def test_the_whole_file_counts_whatever_is_filtered(kind, tmp_path):
    dataset = build(kind, write(tmp_path / 'ann.json'))
    assert len(dataset) == 4  # image 5 is too small, image 6 is empty
    found = class_frequency(dataset)
    check(found)
    assert found.classes == CLASSES
    assert found.source.endswith('ann.json')


def test_a_part_of_the_images_keeps_the_frequencies_of_the_file(tmp_path):
    # Only of its own images a dataset knows what it learns.
    check(class_frequency(
        build('CocoDataset', write(tmp_path / 'ann.json'), indices=1)),
        [3, 3, 1, 1], 5)


@pytest.mark.parametrize('kwargs', [{}, dict(filter_cfg=None)])
def test_a_part_of_the_classes_counts_among_all_annotated_images(
        tmp_path, kwargs):
    dataset = build('CocoDataset', write(tmp_path / 'ann.json'),
                    classes=('dog', 'bee'), **kwargs)
    # mmdet orders labels as the file does: bee, dog.
    check(class_frequency(dataset), [2, 1], 4)


def test_wrappers_are_looked_through(tmp_path):
    from mmdet.datasets import MultiImageMixDataset
    dataset = build('LVISV1Dataset', write(tmp_path / 'ann.json'))
    for wrapped in (RepeatDataset(dataset, times=3),
                    ClassBalancedDataset(dataset, oversample_thr=0.9),
                    MultiImageMixDataset(dataset, pipeline=[])):
        check(class_frequency(wrapped))
    balanced = ClassBalancedDataset(dataset, oversample_thr=0.9)
    assert len(balanced) > len(dataset)
    # mmengine's wrappers take each other only by configuration.
    nested = SimpleNamespace(dataset=SimpleNamespace(dataset=balanced))
    check(class_frequency(nested))
    assert list(plain_datasets(nested)) == [dataset]


def test_members_of_a_concatenation_add_up(tmp_path):
    from mmdet.datasets import ConcatDataset as MMDetConcat
    one = build('CocoDataset', write(tmp_path / 'a.json'))
    same = build('CocoDataset', str(tmp_path / 'a.json'), indices=2)
    other = build('CocoDataset',
                  write(tmp_path / 'b.json', [(1, 30, 40), (2, 30, 40)]))
    for kind in (ConcatDataset, MMDetConcat):
        found = class_frequency(kind([one, other]))
        check(found, [3, 2, 3, 1], 6)
        check(class_frequency(kind([one, same])))
    assert found.source.count('.json') == 2


def test_concatenated_classes_must_be_the_same(tmp_path):
    one = build('CocoDataset', write(tmp_path / 'a.json'))
    other = build('CocoDataset', str(tmp_path / 'a.json'), CLASSES[:2])
    wrapped = SimpleNamespace(datasets=[one, other])
    with pytest.raises(
            ValueError,
            match=r'same classes, but .*a.json has 4 \(ant, bee, cat, '
            r'...\) and .*a.json has 2 \(ant, bee\)'):
        class_frequency(wrapped)


def test_other_detection_datasets_count_their_samples(tmp_path):
    instances = [[0, 0, 2], [1], [], [2, 1]]
    content = dict(
        metainfo=dict(classes=list(CLASSES)),
        data_list=[
            dict(
                img_path=f'{i}.png',
                instances=[dict(bbox_label=label) for label in labels])
            for i, labels in enumerate(instances)
        ])
    (tmp_path / 'ann.json').write_text(json.dumps(content))
    pytest.importorskip('mmdet')
    from mmdet.datasets import BaseDetDataset
    dataset = BaseDetDataset(
        ann_file=str(tmp_path / 'ann.json'),
        metainfo=dict(classes=CLASSES),
        pipeline=[])
    check(class_frequency(dataset), [1, 2, 2, 0], 3)


# --- classification datasets ------------------------------------------------
def folders(root, counts):
    for name, count in zip(CLASSES, counts, strict=False):
        (root / name).mkdir(parents=True)
        for i in range(count):
            Image.new('RGB', (4, 4)).save(root / name / f'{i}.png')
    return str(root)


def test_classification_counts_labels(tmp_path):
    pytest.importorskip('mmpretrain')
    from mmpretrain.datasets import CustomDataset, KFoldDataset
    dataset = CustomDataset(data_root=folders(tmp_path, [5, 1, 2, 4]))
    check(class_frequency(dataset), [5, 1, 2, 4], 12)
    check(class_frequency(RepeatDataset(dataset, 2)), [5, 1, 2, 4], 12)
    fold = KFoldDataset(
        dict(type='CustomDataset', data_root=str(tmp_path)),
        num_splits=3)
    found = class_frequency(fold)
    assert found.num_images == 8 == found.counts.sum()


def test_several_labels_per_image(tmp_path):
    pytest.importorskip('mmpretrain')
    from mmpretrain.datasets import MultiLabelDataset
    labels = [[0, 1], [1], [], [1, 2]]
    (tmp_path / 'ann.json').write_text(
        json.dumps(
            dict(
                metainfo=dict(classes=list(CLASSES)),
                data_list=[
                    dict(img_path=f'{i}.png', gt_label=label)
                    for i, label in enumerate(labels)
                ])))
    dataset = MultiLabelDataset(ann_file=str(tmp_path / 'ann.json'))
    check(class_frequency(dataset), [1, 3, 1, 0], 4)


def test_datasets_that_cannot_tell(tmp_path):
    class Mute(BaseDataset):
        METAINFO = dict(classes=CLASSES)

        def load_data_list(self):
            return [dict(img_path='0.png')]

    with pytest.raises(
            TypeError, match='Mute cannot tell the classes.*neither '
            r"cat_img_map nor a working get_cat_ids; .*ann_file=\.\.\."):
        class_frequency(Mute())
    subset = torch.utils.data.Subset(Mute(), [0])
    with pytest.raises(TypeError, match='Subset cannot tell'):
        class_frequency(subset)
    Mute.get_cat_ids = lambda self, i: [4]
    with pytest.raises(ValueError, match='labels from 4 to 4, but 4 classes'):
        class_frequency(Mute())
    Mute.METAINFO = {}
    with pytest.raises(TypeError, match='no class names; set metainfo'):
        class_frequency(Mute())


# --- annotation files -------------------------------------------------------
def test_a_file_is_counted(tmp_path):
    path = write(tmp_path / 'ann.json')
    check(class_frequency_from_file(path))
    found = class_frequency_from_file(path, ['dog', 'bee'])
    check(found, [2, 1])
    assert found.classes == ('bee', 'dog')


def test_image_count_is_taken_where_the_file_has_it(tmp_path):
    categories = [
        dict(id=10 * (i + 1), name=name, image_count=i + 1)
        for i, name in enumerate(CLASSES)
    ]
    path = write(tmp_path / 'ann.json', categories=categories)
    check(class_frequency_from_file(path), [1, 2, 3, 4])
    del categories[0]['image_count']
    path = write(tmp_path / 'ann.json', categories=categories)
    check(class_frequency_from_file(path))


def test_lvis_files_have_no_file_name(tmp_path):
    path = write(tmp_path / 'ann.json')
    content = json.loads((tmp_path / 'ann.json').read_text())
    for image in content['images']:
        del image['file_name']
    (tmp_path / 'ann.json').write_text(json.dumps(content))
    check(class_frequency_from_file(path, CLASSES))
    with pytest.raises(ValueError, match='4 categories, but.*names 2 class'):
        class_frequency_from_file(path, CLASSES[:2])


@pytest.mark.parametrize('key', ['images', 'annotations', 'categories'])
def test_files_that_lack_a_section(key, tmp_path):
    path = write(tmp_path / 'ann.json')
    content = json.loads((tmp_path / 'ann.json').read_text())
    del content[key]
    (tmp_path / 'ann.json').write_text(json.dumps(content))
    with pytest.raises(ValueError, match=f"ann.json: it lacks '{key}'"):
        class_frequency_from_file(path)


def test_files_that_lack_a_category_id(tmp_path):
    path = write(tmp_path / 'ann.json')
    content = json.loads((tmp_path / 'ann.json').read_text())
    del content['annotations'][2]['category_id']
    (tmp_path / 'ann.json').write_text(json.dumps(content))
    with pytest.raises(
            ValueError, match="ann.json: 1 of 11 entries of 'annotations' "
            "lack 'category_id'"):
        class_frequency_from_file(path)


def test_files_that_are_not_json(tmp_path):
    (tmp_path / 'ann.json').write_text('{"images": [')
    with pytest.raises(
            ValueError, match='ann.json: it is not JSON.*get it again'):
        class_frequency_from_file(str(tmp_path / 'ann.json'))


def test_a_dataset_without_annotations(tmp_path):
    path = write(tmp_path / 'ann.json', [])
    with pytest.raises(
            ValueError, match='ann.json holds no object to learn from; train'):
        class_frequency(build('CocoDataset', path, filter_cfg=None))


def unlearned(path, **change):
    """Write a file of which no annotation is learned."""
    content = json.loads(open(write(path)).read())
    for item in content['annotations']:
        item.update(change)
    path.write_text(json.dumps(content))
    return str(path)


@pytest.mark.parametrize('change', [
    dict(iscrowd=1),
    dict(ignore=1),
    dict(bbox=[0, 0, 0, 9]),
    dict(bbox=[500, 0, 9, 9]),
    dict(area=0),
])
def test_what_is_not_learned_does_not_count(tmp_path, change):
    path = unlearned(tmp_path / 'none.json', **change)
    dataset = build('CocoDataset', path, filter_cfg=dict(min_size=1))
    assert len(dataset) == 6
    assert not any(
        not item['ignore_flag'] for i in range(6)
        for item in dataset.get_data_info(i)['instances'])
    with pytest.raises(ValueError, match='no object to learn from'):
        class_frequency(dataset)
    found = class_frequency_from_file(path)
    assert found.num_images == 0 and found.counts.tolist() == [0, 0, 0, 0]


def test_members_without_objects_count_as_nothing(tmp_path):
    labelled = build('CocoDataset', write(tmp_path / 'a.json'))
    content = json.loads((tmp_path / 'a.json').read_text())
    background = build(
        'CocoDataset', write(tmp_path / 'b.json', []), filter_cfg=None)
    del content['annotations']
    (tmp_path / 'c.json').write_text(json.dumps(content))
    unlabelled = build(
        'CocoDataset', str(tmp_path / 'c.json'), filter_cfg=None)
    for members in ([labelled, background], [unlabelled, labelled]):
        check(class_frequency(ConcatDataset(members)))


def test_classes_in_another_order_are_named_as_the_file_does(tmp_path):
    path = write(tmp_path / 'ann.json')
    dataset = build('CocoDataset', path, tuple(reversed(CLASSES)))
    found = class_frequency(dataset)
    assert found.classes == CLASSES
    check(found)


def test_a_dataset_with_other_classes_than_its_file(tmp_path):
    path = write(tmp_path / 'ann.json')
    with pytest.raises(
            ValueError, match=r'ann.json has 1 categories for the 2 classes '
            r'of the dataset \(ant, yak\); set metainfo'):
        class_frequency(build('CocoDataset', path, ('ant', 'yak')))
