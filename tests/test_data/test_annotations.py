"""Files that no reader of COCO, LVIS or V3Det data can use."""
import json

import pytest
from support.tiny_jobs import coco_annotations

from apa_mm.data.annotation_checks import check_annotations
from apa_mm.data.annotations import (AnnotationError, parse_annotations,
                                     read_annotations, read_categories)


def problems(data, **kwargs):
    """Return what the reader or the checks find in bytes or a dict."""
    if not isinstance(data, bytes):
        data = json.dumps(data).encode()
    try:
        return check_annotations(parse_annotations(data), **kwargs).problems
    except AnnotationError as error:
        return error.problems


SECTIONS = ('images', 'annotations', 'categories')
#: Values that no reader takes, by key.
NUMBERS = (float('nan'), float('inf'), -1, 'wide', [1], {})
BAD = [(section, 'id', value) for section in SECTIONS
       for value in ('a', 1.5, [1], {}, True)]
BAD += [(section, 'id', value) for section in ('images', 'categories')
        for value in (2**63, -2**63 - 1, 2**64, 2**70)]
BAD += [('images', key, value) for key in ('height', 'width')
        for value in (*NUMBERS, 0)]
BAD += [('images', key, value) for key in ('file_name', 'coco_url')
        for value in (5, ['a'])]
BAD += [('images', key, value)
        for key in ('neg_category_ids', 'not_exhaustive_category_ids')
        for value in (3, ['a'], [1.5], [2**63])]
BAD += [('annotations', key, value) for key in ('image_id', 'category_id')
        for value in ('a', 1.5, [1], 2**63, -2**63 - 1)]
BAD += [('annotations', 'area', value) for value in NUMBERS]
BAD += [('annotations', key, value) for key in ('iscrowd', 'ignore')
        for value in ('no', [0])]
BAD += [('annotations', 'bbox', value)
        for value in ([], [1, 2, 3], [1, 2, 3, 4, 5], 'box', 7, {},
                      [1, 2, -3, 4], [1, 2, 3, -4], ['1', 2, 3, 4],
                      [None, 2, 3, 4], [[1, 2, 3, 4]],
                      [float('nan'), 2, 3, 4], [1, 2, float('inf'), 4],
                      [1, -float('inf'), 3, 4])]
BAD += [('categories', 'name', value) for value in (3, ['a'])]
BAD += [('categories', 'frequency', value) for value in ('x', 5)]
BAD += [('categories', 'image_count', value)
        for value in (-1, 'a', 1.5, 2**63)]


@pytest.mark.parametrize('section, key, value', BAD)
def test_unusable_values_are_named_with_entry_and_mend(section, key, value):
    content = coco_annotations()
    named = content[section][1]['id']
    content[section][1][key] = value
    found, = problems(content)
    total = len(content[section])
    first = found.split(' entries of')[0]
    assert first == f'1 of {total}'
    assert f'{section!r} have an unusable {key!r} (the first is entry 1' in \
        found
    assert '; write ' in found
    if key != 'id':
        assert f'with id {named}: ' in found


@pytest.mark.parametrize('entry', [1, 'x', None, [1], [[]]])
@pytest.mark.parametrize('section', SECTIONS)
def test_entries_that_are_no_objects(section, entry):
    content = coco_annotations()
    content[section].append(entry)
    found, = problems(content)
    assert f"1 of {len(content[section])} entries of '{section}' are no " \
        'objects' in found and found.endswith('an object with its keys')


RLE = dict(size=[64, 64], counts=[4000, 96])
SHAPES = [
    None, [], [[]], 5, 'mask', {}, [1, 2, 3, 4, 5, 6], [[1, 2, 3, 4]],
    [[1, 2, 3, 4, 5, 6, 7]], [[1, 2, 3, 4, 5, 6], [1]], [['1'] * 6],
    [[float('nan')] * 6], [[1, 2, 3, 4, 5, float('inf')]], [[[1, 2]] * 3],
    dict(size=[64, 64]), dict(counts=[4096]), dict(RLE, size=[64, 65]),
    dict(RLE, size=[64]), dict(RLE, counts=[4000]),
    dict(RLE, counts=[5000, -904]), dict(RLE, counts='P3'),
    dict(RLE, counts='\x01'), dict(RLE, counts=''), dict(RLE, counts=[]),
    # 4095 and 4098 pixels, and 4099 - 3, as text.
    dict(RLE, counts='oo3'), dict(RLE, counts='RP4'),
    dict(RLE, counts='SP4M'), dict(size=[32, 128], counts='PP4')
]


@pytest.mark.parametrize('shape', SHAPES)
def test_unusable_masks_are_named(shape):
    content = coco_annotations()
    content['annotations'][2]['segmentation'] = shape
    found, = problems(content, masks=True)
    assert "1 of 4 entries of 'annotations' have an unusable " \
        "'segmentation' (the first is entry 2 with id 3" in found
    if 'NaN' not in json.dumps(shape) and 'Infinity' not in json.dumps(shape):
        assert problems(content) == []  # who reads boxes alone


@pytest.mark.parametrize('shape', [
    [[1, 2, 3, 4, 5, 6]], [[1.5] * 8, [2] * 6], RLE,
    dict(RLE, counts='PP400')])
def test_usable_masks(shape):
    content = coco_annotations()
    if shape is not RLE and isinstance(shape, dict):
        mask = pytest.importorskip('pycocotools.mask')
        code = mask.frPyObjects([[1, 2, 9, 2, 9, 9]], 64, 64)[0]
        shape = dict(code, counts=code['counts'].decode())
    content['annotations'][0]['segmentation'] = shape
    assert problems(content, masks=True) == []


def test_crowds_and_optional_keys_may_be_null():
    content = coco_annotations()
    content['annotations'][0].update(iscrowd=True, ignore=None)
    content['images'][0].update(coco_url=None, license=None)
    content['images'][1].update(height=64.0, id=-7)
    content['annotations'][1].update(image_id=-7, id=2**70)
    content['licenses'] = None
    assert problems(content) == []


@pytest.mark.parametrize('data, text', [
    (b'', 'not JSON in UTF-8'),
    (b'\x00\x01', 'not JSON in UTF-8'),
    (b'<html>', 'not JSON in UTF-8'),
    (b'{"images": [', 'not JSON in UTF-8'),
    (b'{"images": []} x', 'not JSON in UTF-8'),
    (b'\xef\xbb\xbf{"images": []}', 'not JSON in UTF-8'),
    ('{"images": []}'.encode('utf-16'), 'not JSON in UTF-8'),
    ('{"info": "gr\xfcn"}'.encode('latin-1'), 'not JSON in UTF-8'),
    (b'{"info": NaN}', 'not JSON in UTF-8'),
    (b'{"info": ' + b'[' * 99999 + b']' * 99999 + b'}', 'too deeply nested'),
    (b'[' * 99999, 'too deeply nested'),
    (b'{"images": [' + b'[' * 99999, 'too deeply nested'),
    (b'7', 'it holds a int'),
    (b'"images"', 'it holds a str'),
    (b'null', 'it holds a NoneType'),
    (b'{"images": {"id": 1}}', "'images' must be a list, but is {'id': 1}"),
    (b'{"images": [{"id": 1, "width": 1e999}]}', 'not JSON|unusable'),
])
def test_files_that_cannot_be_read(data, text):
    found, = problems(data)
    assert any(word in found for word in text.split('|'))
    assert ';' in found


def test_every_problem_is_counted_once():
    content = coco_annotations(9)
    for item in content['annotations'][3:]:
        item['bbox'] = [0, 0, -1, 5]
    content['images'][0]['height'] = 'x'
    images, boxes = problems(content)
    assert images.startswith("1 of 9 entries of 'images'")
    assert boxes == (
        "6 of 9 entries of 'annotations' have an unusable 'bbox' (the first "
        'is entry 3 with id 4: [0, 0, -1, 5]); write 4 finite numbers [x, y, '
        'width, height] without a negative size')


def test_escape_sequences_do_not_reach_the_terminal():
    content = coco_annotations()
    content['images'][0]['id'] = '\x1b[2J'
    assert '\x1b' not in problems(content)[0]


def test_the_categories_alone(tmp_path):
    path = tmp_path / 'ann.json'
    path.write_text(json.dumps(coco_annotations()))
    alone = read_categories(str(path))
    assert alone == read_annotations(str(path)).categories
    assert [item.name for item in alone] == ['cube', 'ball', 'ring']
    path.write_text('')
    with pytest.raises(AnnotationError, match='not JSON'):
        read_categories(str(path))
