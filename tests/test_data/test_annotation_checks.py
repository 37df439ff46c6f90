import json

import msgspec
import pytest
from support.tiny_jobs import CLASSES, coco_annotations, write_images

from apa_mm.data.annotation_checks import check_annotations
from apa_mm.data.annotations import (AnnotationError, Image,
                                     parse_annotations)
from apa_mm.data.image_files import (image_name, missing_files,
                                     missing_problems)
from apa_mm.data.segmentation import is_usable


def report_of(annotation, *args, **kwargs):
    content = parse_annotations(json.dumps(annotation).encode())
    return check_annotations(content, *args, **kwargs)


def problems(annotation, **kwargs):
    """Return what the reader or the checks find."""
    try:
        return report_of(annotation, **kwargs).problems
    except AnnotationError as error:
        return error.problems


def drop(annotation, section, key, count=1):
    for item in annotation[section][:count]:
        del item[key]
    return annotation


def test_a_sound_file_has_counts_and_no_problem():
    annotation = coco_annotations(4)
    for layout in ('coco', 'lvis_v0.5', 'lvis_v1'):
        report = report_of(
            annotation,
            layout=layout,
            classes=CLASSES,
            lvis_metric=True,
            masks=True)
        assert report.problems == []
        assert report.counts == dict(
            images=4,
            annotations=4,
            unlearned_annotations=0,
            categories=3,
            images_without_annotations=0,
            unused_categories=0,
            rare=1,
            common=1,
            frequent=1)


def test_unused_categories_and_empty_images_are_counted_not_refused():
    annotation = coco_annotations(4)
    annotation['annotations'] = annotation['annotations'][:2]
    report = report_of(annotation)
    assert report.problems == []
    assert report.counts['images_without_annotations'] == 2
    assert report.unused_categories == ['ring']
    assert report.counts['unused_categories'] == 1


@pytest.mark.parametrize('section', ['images', 'annotations', 'categories'])
def test_a_missing_section(section):
    annotation = coco_annotations()
    del annotation[section]
    assert problems(annotation) == [
        f"it lacks '{section}'; a COCO-style file has 'images', "
        "'annotations' and 'categories'"
    ]


@pytest.mark.parametrize('section', ['images', 'annotations', 'categories'])
def test_an_empty_section(section):
    annotation = dict(coco_annotations(), **{section: []})
    assert problems(annotation) == [
        f"'{section}' is empty; nothing could be read from it, so check that "
        'it is the right file'
    ]


def test_a_test_set_needs_no_annotations():
    annotation = coco_annotations()
    del annotation['annotations']
    assert problems(annotation, need_annotations=False) == []
    assert problems(annotation) != []


@pytest.mark.parametrize('content', [[1, 2], 'text'])
def test_another_kind_of_json(content):
    assert 'it holds a' in problems(content)[0]
    wrong = dict(coco_annotations(), images='0.png')
    assert problems(wrong) == [
        "'images' must be a list, but is '0.png'; rewrite the file"
    ]


@pytest.mark.parametrize('section, key, kwargs', [
    ('images', 'id', {}),
    ('images', 'width', {}),
    ('images', 'file_name', {}),
    ('images', 'coco_url', dict(layout='lvis_v1')),
    ('images', 'neg_category_ids', dict(lvis_metric=True)),
    ('images', 'not_exhaustive_category_ids', dict(lvis_metric=True)),
    ('annotations', 'bbox', {}),
    ('annotations', 'area', {}),
    ('categories', 'name', {}),
    ('categories', 'frequency', dict(lvis_metric=True)),
])
def test_a_missing_key_is_named_once_with_its_number(section, key, kwargs):
    annotation = drop(coco_annotations(4), section, key, count=2)
    total = len(annotation[section])
    found = problems(annotation, **kwargs)
    assert len(found) == 1
    assert found[0].startswith(
        f"2 of {total} entries of '{section}' lack '{key}' (the first is "
        'entry 0')


@pytest.mark.parametrize('section, key', [
    ('images', 'coco_url'),
    ('images', 'neg_category_ids'),
    ('annotations', 'segmentation'),
    ('categories', 'frequency'),
])
def test_keys_that_the_reader_does_not_use_may_be_absent(section, key):
    assert problems(drop(coco_annotations(), section, key)) == []


def test_annotations_of_unknown_images_and_categories():
    annotation = coco_annotations(4)
    annotation['annotations'][0]['image_id'] = 77
    annotation['annotations'][1]['category_id'] = 88
    annotation['annotations'][2]['category_id'] = 99
    images, categories = problems(annotation)
    assert images.startswith('the image_id of 1 annotations is not among the '
                             "ids of 'images' (77)")
    assert categories.startswith('the category_id of 2 annotations is not '
                                 "among the ids of 'categories' (88, 99)")


@pytest.mark.parametrize('section', ['images', 'annotations', 'categories'])
def test_ids_that_occur_twice(section):
    annotation = coco_annotations(4)
    annotation[section][1]['id'] = annotation[section][0]['id']
    assert problems(annotation)[0].startswith(
        f"1 ids of '{section}' occur more than once (1)")


def test_classes_are_looked_up_by_name_for_coco():
    assert problems(coco_annotations(), classes=('ball', 'cube')) == []
    found = problems(coco_annotations(), classes=('ball', 'Cube'))
    assert found[0].startswith(
        "1 of 2 classes of the dataset's metainfo are not among its 3 "
        'categories (classes: Cube; categories: cube, ball, ring)')


def test_every_category_is_a_class_for_lvis():
    found = problems(
        coco_annotations(), layout='lvis_v1', classes=('ball', 'cube'))
    assert found[0].startswith("it has 3 categories, but the dataset's "
                               'metainfo names 2 classes')
    # LVIS datasets go by the place, so that a spelling does no harm.
    assert problems(
        coco_annotations(), layout='lvis_v1',
        classes=('Cube', 'ball', 'ring')) == []
    found = problems(
        coco_annotations(), layout='lvis_v1', classes=('a', 'b', 'c'))
    assert found[0].startswith("3 of 3 classes of the dataset's metainfo are "
                               'not among its 3 categories')


def test_missing_images_are_counted_and_three_are_named(tmp_path):
    write_images(tmp_path, ['2.png'], size=4)
    names = [f'{i}.png' for i in range(6)]
    assert missing_problems(str(tmp_path), names) == (5, [
        f'5 of its 6 images are not in {tmp_path} (first: 0.png, 1.png, '
        '3.png, ...); complete the images or correct data_prefix'
    ])
    assert missing_problems(str(tmp_path), ['2.png']) == (0, [])


def test_a_missing_image_folder(tmp_path):
    folder = str(tmp_path / 'no')
    assert missing_problems(folder, ['0.png']) == (1, [
        f'its image folder {folder} does not exist; set data_root and '
        'data_prefix to where the images are'
    ])


def test_missing_files_looks_into_subfolders(tmp_path):
    write_images(tmp_path / 'a', ['0.png'], size=4)
    write_images(tmp_path / 'b', ['1.png'], size=4)
    names = ['a/0.png', 'a/1.png', 'b/1.png', 'c/1.png']
    assert missing_files(str(tmp_path), names) == ['a/1.png', 'c/1.png']


@pytest.mark.parametrize('layout, image, expected', [
    ('coco', dict(file_name='COCO_val2014_000000000042.jpg'),
     'COCO_val2014_000000000042.jpg'),
    ('lvis_v0.5', dict(file_name='COCO_val2014_000000000042.jpg'),
     '000000000042.jpg'),
    ('lvis_v0.5', dict(file_name='7.jpg'), '7.jpg'),
    ('lvis_v1',
     dict(coco_url='http://images.cocodataset.org/train2017/'
          '000000000042.jpg'), 'train2017/000000000042.jpg'),
])
def test_image_names_are_those_that_mmdet_reads(layout, image, expected):
    assert image_name(Image(**image), layout) == expected


def test_an_unknown_layout():
    with pytest.raises(ValueError, match="layout must be one of .*'voc'"):
        report_of(coco_annotations(), layout='voc')


@pytest.mark.parametrize('raw', [
    '[]', '[[]]', '[[1,2,3,4,5,6]]', '[[1, 2, 3, 4, 5, 6]]',
    '[[1,2,3,4,5,6,7]]', '[[1,2,3,4]]', '[[1,2,3,4,5,-6.5]]',
    '[[1,2,3,4,5,6],[1,2,3,4,5,6]]', '[[1,2,3,4,5,6],[1,2,3,4]]',
    '[[1,2,3,4,5,6],[1,2,3,4,5,6,7]]',
    '[[1,2,3,4,5,[6]]]', '[[1,2,3,4,5,1e400]]', '[[1,2,3,4,5,1e2]]',
    '[["1",2,3,4,5,6]]', '[[1,2,3,4,5,null]]', '{}', 'null', '[1,2,3,4,5,6]',
    '[[[1,2,3,4,5,6]]]', '[{"1":2}]', '{"size":[4,4],"counts":[16]}'
])
def test_a_mask_is_usable_if_its_full_reading_says_so(raw):
    """One plain polygon is judged without reading its numbers."""
    polygons = json.loads(raw)
    good = isinstance(polygons, dict) and len(polygons) == 2 or isinstance(
        polygons, list) and polygons != [] and all(
            isinstance(p, list) and len(p) >= 6 and len(p) % 2 == 0 and all(
                isinstance(n, (int, float)) and abs(n) < 1e300 for n in p)
            for p in polygons)
    assert is_usable(msgspec.Raw(raw.encode()), (4, 4)) == good


def test_a_run_length_code_has_height_and_width_of_its_image():
    annotation = coco_annotations()
    annotation['images'][0].update(height=32, width=128)
    code = dict(size=[32, 128], counts=[4096])
    annotation['annotations'][0]['segmentation'] = code
    assert not problems(annotation, masks=True)
    code['size'] = [128, 32]
    assert len(problems(annotation, masks=True)) == 1


def test_shares_are_of_the_classes_and_of_annotated_images():
    annotation = coco_annotations()
    annotation['annotations'].pop()
    found = report_of(annotation, classes=('cube', 'ring'))
    assert found.shares == [1 / 3, 1 / 3]


@pytest.mark.parametrize('classes, trains, number', [
    (('cube', ), True, 0), (('ball', ), True, 1), (('cube', ), False, 1)])
def test_training_needs_the_masks_of_its_classes_and_crowds(
        classes, trains, number):
    annotation = coco_annotations()
    assert CLASSES[:2] == ('cube', 'ball')
    annotation['annotations'][1].update(segmentation=[], iscrowd=1)
    assert len(problems(annotation, masks=True, trains=trains,
                        classes=classes)) == number


@pytest.mark.parametrize('negatives, federated', [
    ([[1, 2, 3]] * 4, False), ([[1, 2, 3]] * 3 + [[]], True),
    ([[1, 1, 1]] * 4, True), ([None] * 4, False)
])
def test_a_set_is_federated_if_an_image_leaves_a_class_open(
        negatives, federated):
    annotation = coco_annotations(4)
    for image, ids in zip(annotation['images'], negatives, strict=True):
        image['neg_category_ids'] = ids
    assert report_of(annotation).federated == federated
