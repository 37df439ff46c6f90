import copy
import json
import logging

import pytest

from apa_mm.data.annotation_file import AnnotationFile

TRUTH = dict(
    images=[
        dict(
            id=5,
            height=20,
            width=30,
            neg_category_ids=[9],
            not_exhaustive_category_ids=[]),
        dict(
            id=2,
            height=20,
            width=30,
            neg_category_ids=[],
            not_exhaustive_category_ids=[4])
    ],
    categories=[
        dict(id=9, name='cup', frequency='r'),
        dict(id=4, name='pan', frequency='f')
    ],
    annotations=[
        dict(
            id=8,
            image_id=5,
            category_id=4,
            bbox=[1, 2, 3, 4],
            area=12,
            iscrowd=1,
            segmentation=[[1, 2, 4, 2, 4, 6]]),
        dict(
            id=3,
            image_id=5,
            category_id=9,
            bbox=[0, 0, 2, 2],
            area=0,
            segmentation=dict(size=[20, 30], counts=[600])),
        dict(
            id=6,
            image_id=5,
            category_id=9,
            bbox=[0, 0, 2, 3],
            area=6,
            ignore=1,
            segmentation=dict(size=[20, 30], counts=[0, 6, 594]))
    ])


def write(folder, change=None):
    truth = copy.deepcopy(TRUTH)
    if change is not None:
        change(truth)
    path = folder / 'val.json'
    path.write_text(json.dumps(truth))
    return str(path)


def test_annotations_keep_file_order(tmp_path):
    truth = AnnotationFile(write(tmp_path))
    assert [entry['id'] for entry in truth.annotations(5)] == [8, 3, 6]
    assert truth.annotations(2) == []
    assert list(truth.images) == [5, 2]
    assert truth.annotations(5)[0]['iscrowd'] == 1


def test_lvis_rules(tmp_path):
    truth = AnnotationFile(write(tmp_path), lvis_style=True, with_masks=True)
    entries = truth.annotations(5)
    assert [entry['id'] for entry in entries] == [8, 6]
    assert [entry['iscrowd'] for entry in entries] == [0, 0]
    assert [entry['area'] for entry in entries] == [12, 2e10]
    assert truth.image(2)['not_exhaustive_category_ids'] == [4]
    assert truth.image(5)['not_exhaustive_category_ids'] == []


def test_select_follows_file_order_and_filters(tmp_path):
    truth = AnnotationFile(write(tmp_path))
    chosen = truth.select(('pan', 'cup'))
    assert [category['id'] for category in chosen] == [9, 4]
    assert [c['id'] for c in truth.select(['pan'])] == [4]
    assert [entry['id'] for entry in truth.annotations(5)] == [8]
    assert len(truth.select(None)) == 2


@pytest.mark.parametrize('lvis_style, classes, text', [
    (False, ('cup', 'mug'), r"has 2 classes, .*val.json' has 2 'categories' "
     r"and lacks 1 of the classes \['mug'\]; give metric and dataset"),
    (False, ('cup', 'pan', 'mug'), 'has 3 classes'),
    (True, ('cup', ), "the dataset has 1 classes, .* has 2 'categories'"),
    (True, ('mug', 'pot'), 'lacks 2 of the classes'),
])
def test_classes_that_do_not_match(tmp_path, lvis_style, classes, text):
    truth = AnnotationFile(write(tmp_path), lvis_style=lvis_style)
    with pytest.raises(ValueError, match=text):
        truth.select(classes)


def test_another_spelling_is_only_a_warning_in_lvis(tmp_path, monkeypatch):
    truth = AnnotationFile(write(tmp_path), lvis_style=True)
    warnings = []
    monkeypatch.setattr(logging.Logger, 'warning',
                        lambda self, text: warnings.append(text))
    assert len(truth.select(('cup', 'PAN'))) == 2
    assert "1 classes such as 'PAN' are not named so in" in warnings[0]


def drop(section, key):
    return lambda truth: truth[section][-1].pop(key)


@pytest.mark.parametrize('change, text', [
    (drop('images', 'neg_category_ids'),
     r"val.json' lacks the key 'neg_category_ids' in 1 of 2 images \(first: "
     r"id 2\); add 'neg_category_ids' to each or give an LVIS v1 file"),
    (drop('images', 'not_exhaustive_category_ids'),
     "'not_exhaustive_category_ids' in 1 of 2 images"),
    (drop('categories', 'frequency'), "'frequency' in 1 of 2 categories"),
    (drop('categories', 'name'), "lacks the key 'name'"),
    (drop('images', 'height'), "lacks the key 'height'"),
    (drop('annotations', 'area'), r"'area' in 1 annotations \(first: id 6\)"),
    (drop('annotations', 'bbox'), "'bbox' in 1 annotations"),
    (drop('annotations', 'segmentation'),
     "add 'segmentation' to each or take 'segm' out of metric"),
    (drop('annotations', 'image_id'), "lacks the key 'image_id' or"),
    (lambda truth: truth.pop('images'), "has no list 'images'"),
    (lambda truth: truth.pop('annotations'), "has no list 'annotations'"),
    (lambda truth: truth['images'][0].update(id='a'),
     "has the id 'a' in images; ids must be whole numbers"),
    (lambda truth: truth['categories'][1].update(id=1.5),
     'has the id 1.5 in categories'),
    (lambda truth: truth['categories'][0].update(frequency='x'),
     "gives category 9 the frequency 'x'"),
    (lambda truth: truth['annotations'][0].update(id=3),
     'uses some annotation ids more than once; number'),
    (lambda truth: truth['annotations'][0].update(bbox='wide'),
     "val.json' has an unusable annotation with id 8"),
])
def test_bad_files(tmp_path, change, text):
    path = write(tmp_path, change)
    with pytest.raises(ValueError, match=text):
        AnnotationFile(path, lvis_style=True, with_masks=True)


def test_files_that_are_none(tmp_path):
    with pytest.raises(
            FileNotFoundError, match="'no.json' does not exist; set ann_file"):
        AnnotationFile('no.json')
    broken = tmp_path / 'broken.json'
    broken.write_text('{"images": [')
    with pytest.raises(ValueError, match="broken.json' is not valid JSON"):
        AnnotationFile(str(broken))
    broken.write_text('[1]')
    with pytest.raises(ValueError, match='is not a JSON object'):
        AnnotationFile(str(broken))


def test_unknown_image(tmp_path):
    truth = AnnotationFile(write(tmp_path))
    with pytest.raises(ValueError, match="image id 7 is not in .*val.json"):
        truth.image(7)
