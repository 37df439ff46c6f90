import copy
import json
import logging

import pytest

from apa_mm.data.ground_truth import GroundTruth

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
    truth = GroundTruth(write(tmp_path))
    assert [entry['area'] for entry in truth.annotations(5)] == [12, 0, 6]
    assert [entry['id'] for entry in truth.annotations(5)] == [0, 1, 2]
    assert truth.annotations(2) == []
    assert list(truth.images) == [5, 2]
    assert truth.annotations(5)[0]['iscrowd'] == 1


def test_lvis_rules(tmp_path):
    truth = GroundTruth(write(tmp_path), lvis_style=True, with_masks=True)
    entries = truth.annotations(5)
    assert [entry['id'] for entry in entries] == [0, 2]
    # Numbers of labels and, in the order of the ids, of images.
    assert [entry['category_id'] for entry in entries] == [1, 0]
    assert [truth.image(i)['id'] for i in (5, 2)] == [1, 0]
    assert entries[0]['segmentation'] == [[1, 2, 4, 2, 4, 6]]
    assert entries[1]['segmentation'] == dict(
        size=[20, 30], counts=[0, 6, 594])
    assert [entry['iscrowd'] for entry in entries] == [0, 0]
    assert [entry['area'] for entry in entries] == [12, 2e10]
    assert truth.image(2)['not_exhaustive_category_ids'] == [1]
    assert truth.image(5)['neg_category_ids'] == [0]
    assert truth.image(5)['not_exhaustive_category_ids'] == []


def test_select_follows_file_order_and_filters(tmp_path):
    truth = GroundTruth(write(tmp_path))
    chosen = truth.select(('pan', 'cup'))
    assert [category.id for category in chosen] == [9, 4]
    assert [c.id for c in truth.select(['pan'])] == [4]
    assert [entry['area'] for entry in truth.annotations(5)] == [12]
    assert len(truth.select(None)) == 2


@pytest.mark.parametrize('lvis_style, classes, text', [
    (False, ('cup', 'mug'), r"has 2 classes, .*val.json' has 2 'categories' "
     r"and lacks 1 of the classes \['mug'\]; give metric and dataset"),
    (False, ('cup', 'pan', 'mug'), 'has 3 classes'),
    (True, ('cup', ), "the dataset has 1 classes, .* has 2 'categories'"),
    (True, ('mug', 'pot'), 'lacks 2 of the classes'),
])
def test_classes_that_do_not_match(tmp_path, lvis_style, classes, text):
    truth = GroundTruth(write(tmp_path), lvis_style=lvis_style)
    with pytest.raises(ValueError, match=text):
        truth.select(classes)


def test_another_spelling_is_only_a_warning_in_lvis(tmp_path, monkeypatch):
    truth = GroundTruth(write(tmp_path), lvis_style=True)
    warnings = []
    monkeypatch.setattr(logging.Logger, 'warning',
                        lambda self, text: warnings.append(text))
    assert len(truth.select(('cup', 'PAN'))) == 2
    assert "1 classes such as 'PAN' are not named so in" in warnings[0]


def drop(section, key):
    return lambda truth: truth[section][-1].pop(key)


@pytest.mark.parametrize('change, text', [
    (drop('images', 'neg_category_ids'),
     r"val.json': 1 of 2 entries of 'images' lack 'neg_category_ids' \(the "
     r'first is entry 1 with id 2\); add it to the file'),
    (drop('images', 'not_exhaustive_category_ids'),
     "lack 'not_exhaustive_category_ids'"),
    (drop('categories', 'frequency'), "'categories' lack 'frequency'"),
    (drop('categories', 'name'), "lack 'name'"),
    (drop('images', 'height'), "lack 'height'"),
    (drop('annotations', 'area'), "lack 'area' .*entry 2 with id 6"),
    (drop('annotations', 'segmentation'), "unusable 'segmentation'"),
    (drop('annotations', 'image_id'), "lack 'image_id'"),
    (lambda truth: truth.pop('images'), "it lacks 'images'"),
    (lambda truth: truth.pop('annotations'), "it lacks 'annotations'"),
    (lambda truth: truth['images'][0].update(id='a'),
     "unusable 'id' .*'a'\\); write a whole number"),
    (lambda truth: truth['annotations'][0].update(id=3),
     "1 ids of 'annotations' occur more than once"),
])
def test_bad_files(tmp_path, change, text):
    path = write(tmp_path, change)
    with pytest.raises(ValueError, match=text):
        GroundTruth(path, lvis_style=True, with_masks=True)


def test_files_that_are_none(tmp_path):
    with pytest.raises(
            FileNotFoundError, match="'no.json' does not exist; set ann_file"):
        GroundTruth('no.json')
    broken = tmp_path / 'broken.json'
    broken.write_text('{"images": [')
    with pytest.raises(ValueError, match="broken.json': it is not JSON"):
        GroundTruth(str(broken))
    broken.write_text('[1]')
    with pytest.raises(ValueError, match='it holds a list; a COCO-style'):
        GroundTruth(str(broken))


def test_unknown_image(tmp_path):
    truth = GroundTruth(write(tmp_path))
    with pytest.raises(ValueError, match="image id 7 is not in .*val.json"):
        truth.image(7)
