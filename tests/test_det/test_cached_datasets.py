"""Cached data sets are mmdet's, element by element."""
import json
import logging
import os
from urllib.error import URLError

import numpy as np
import pytest
from mmengine.dataset import ClassBalancedDataset
from support.tiny_annotations import CLASSES, build, write

from apa_mm.data.class_frequency import class_frequency

pytest.importorskip('mmdet')
KINDS = ['CocoDataset', 'LVISV05Dataset', 'LVISV1Dataset']
POLYGON = [[1, 2.5, 3, 4, 5.25, 6]]
#: Just too thin or outside, and just not.
EDGES = [[0, 0, .99, 9], [0, 0, 9, .99], [0, 0, 1, 9], [0, 0, 9, 1],
         [64, 0, 9, 9], [63, 0, 9, 9], [-9, 0, 9, 9], [-9, 0, 10, 9],
         [0, 64, 9, 9], [0, 63, 9, 9], [0, -9, 9, 9], [0, -9, 9, 10]]
RLE = dict(size=[64, 64], counts=[0, 4096])


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    return tmp_path / 'cache'


@pytest.fixture
def ann_file(tmp_path):
    """Masks, a crowd, an ignored object, mixed order and an odd size."""
    path = tmp_path / 'set.json'
    write(path)
    content = json.loads(path.read_text())
    for n, item in enumerate(content['annotations']):
        item['segmentation'] = POLYGON if n % 2 else RLE
    content['annotations'][0]['iscrowd'] = 1
    content['annotations'][1]['ignore'] = 1
    content['annotations'][2]['bbox'] = [-3.5, 60, 20, 20.25]
    content['annotations'] += [
        dict(content['annotations'][1], id=100 + n, ignore=0, bbox=box)
        for n, box in enumerate(EDGES)]
    del content['annotations'][3]['segmentation']
    content['images'].reverse()
    content['images'][0]['height'] = 60.5
    content['images'][3]['file_name'] = 'COCO_val2014_0000000000.3.jpg'
    path.write_text(json.dumps(content))
    return str(path)


def change(ann_file, function):
    with open(ann_file) as file:
        content = json.load(file)
    function(content)
    with open(ann_file, 'w') as file:
        json.dump(content, file)


def parents(kind, ann_file, **kwargs):
    if 'LVIS' in kind:
        pytest.importorskip('lvis')
    return build(kind, ann_file, **kwargs)


def same(ours, theirs):
    assert ours.cat_ids == theirs.cat_ids
    assert ours.cat2label == theirs.cat2label
    assert ours.metainfo == theirs.metainfo
    for key in [*ours.cat_ids, 999]:
        assert list(ours.cat_img_map[key]) == theirs.cat_img_map[key]
    assert len(ours) == len(theirs) > 0
    for i in range(-(len(ours) > 1), len(ours)):
        info = ours.get_data_info(i)
        assert info == theirs.get_data_info(i)
        assert list(info) == list(theirs.get_data_info(i))
        assert type(info['height']) is type(theirs.get_data_info(i)['height'])
        assert ours.get_cat_ids(i) == theirs.get_cat_ids(i)


SETTINGS = [
    {}, dict(filter_cfg=None), dict(test_mode=True),
    dict(filter_cfg=dict(min_size=60.5)), dict(indices=2), dict(indices=-3),
    dict(indices=4), dict(indices=-4), dict(indices=99), dict(indices=-99),
    dict(filter_cfg=dict(filter_empty_gt=True)),
    dict(indices=[2, 0, 1]), dict(data_root='data', data_prefix=dict(
        img='images', seg='maps')),
    dict(data_prefix=dict(img='', seg='m'), seg_map_suffix='.tif'),
    dict(data_prefix=dict(img='', seg='m'))
]


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('settings', SETTINGS, ids=str)
def test_elements_equal_the_parents(kind, settings, ann_file, cache):
    lacks = 'file_name' if kind == 'LVISV1Dataset' else 'coco_url'
    change(ann_file, lambda content: [
        item.pop(lacks) for item in content['images']])
    theirs = parents(kind, ann_file, **settings)
    for _ in range(2):  # made, then mapped
        ours = build(f'apa_mm.{kind}', ann_file, **settings)
        same(ours, theirs)
        counts, *others = class_frequency(ours)
        np.testing.assert_array_equal(counts, class_frequency(theirs).counts)
        assert others == list(class_frequency(theirs)[1:])
    assert list(cache.rglob('*.arrays'))


def test_each_setting_has_its_own(ann_file):
    for settings in SETTINGS:
        build('apa_mm.CocoDataset', ann_file, **settings)
    for settings in SETTINGS:
        same(build('apa_mm.CocoDataset', ann_file, **settings),
             build('CocoDataset', ann_file, **settings))


def test_subset_of_classes(ann_file, said):
    for classes in (('dog', 'ant'), ('dog', ), ()):
        ours = build('apa_mm.CocoDataset', ann_file, classes=classes)
        same(ours, build('CocoDataset', ann_file, classes=classes))
    assert not said


@pytest.mark.parametrize('classes', ['ant', np.array(['dog', 'ant'])],
                         ids=str)
def test_other_types_of_classes(ann_file, classes):
    ours, theirs = (build(f'{scope}CocoDataset', ann_file, classes=classes,
                          filter_cfg=None) for scope in ('apa_mm.', ''))
    assert ours.cat_ids == theirs.cat_ids != []
    assert [*map(ours.get_data_info, range(len(theirs)))] == [
        *map(theirs.get_data_info, range(len(theirs)))]


def test_lvis_takes_classes_by_their_place(ann_file, said):
    classes = ('Ant', 'bee', 'cat', 'dog')
    same(build('apa_mm.LVISV1Dataset', ann_file, classes=classes),
         parents('LVISV1Dataset', ann_file, classes=classes))
    assert not said


@pytest.mark.parametrize('empty', [True, False])
def test_a_test_set_needs_no_annotations(ann_file, said, empty):
    change(ann_file, lambda content: content.pop('annotations'))
    if empty:
        change(ann_file, lambda content: content.update(annotations=[]))
    same(build('apa_mm.CocoDataset', ann_file, test_mode=True),
         build('CocoDataset', ann_file, test_mode=True))
    assert not said


@pytest.mark.parametrize('settings', [
    dict(filter_cfg=dict(min_size=99)), dict(indices=0), dict(indices=[])
], ids=str)
def test_no_image_left_is_an_error(ann_file, settings):
    with pytest.raises(ValueError, match=f'no image of {ann_file} is left; '
                       'correct filter_cfg, indices'):
        build('apa_mm.CocoDataset', ann_file, **settings)


def test_v3det(ann_file, tmp_path):
    (tmp_path / 'names.txt').write_text('\n'.join(CLASSES))
    settings = dict(data_root=str(tmp_path), label_file='names.txt')
    same(build('apa_mm.V3DetDataset', ann_file, **settings),
         build('V3DetDataset', ann_file, **settings))


def test_data_are_mapped_and_parsed_once(ann_file, monkeypatch):
    build('apa_mm.CocoDataset', ann_file)
    monkeypatch.setattr('apa_mm.det.datasets.read_annotations', None)
    monkeypatch.setattr('mmdet.datasets.CocoDataset.load_data_list', None)
    ours = build('apa_mm.CocoDataset', ann_file)
    assert not ours.data_bytes.flags.owndata and not ours.data_list
    with pytest.raises(TypeError):
        build('apa_mm.CocoDataset', ann_file, filter_cfg=None)


def test_a_changed_file_is_read_again(ann_file):
    build('apa_mm.CocoDataset', ann_file)
    info = os.stat(ann_file)
    with open(ann_file) as file:
        text = file.read().replace('-3.5', '-2.5')
    with open(ann_file, 'w') as file:
        file.write(text)
    os.utime(ann_file, ns=(info.st_atime_ns, info.st_mtime_ns))
    same(build('apa_mm.CocoDataset', ann_file),
         build('CocoDataset', ann_file))


def test_repeat_factors_and_class_counts(ann_file, monkeypatch):
    ours, theirs = (build(f'{scope}CocoDataset', ann_file)
                    for scope in ('apa_mm.', ''))
    subset = ours.get_subset([1, 0])
    assert subset.get_cat_ids(0) == theirs.get_cat_ids(1)
    held = sum(array.nbytes for array in subset._index.values())
    assert held < ours.data_bytes.nbytes  # a subset copies no annotations
    repeats = ClassBalancedDataset(theirs, 0.7).repeat_indices
    counts = class_frequency(theirs).counts
    # Nothing is unpickled for either.
    monkeypatch.setattr(type(ours), 'get_data_info', None)
    assert ClassBalancedDataset(ours, 0.7).repeat_indices == repeats
    np.testing.assert_array_equal(class_frequency(ours).counts, counts)
    with pytest.raises(IndexError):
        ours.get_cat_ids(len(ours))


@pytest.fixture
def said(monkeypatch):
    texts = []
    monkeypatch.setattr('apa_mm.det.datasets.print_log',
                        lambda text, *args: texts.append((text, *args)))
    return texts


def warned(said, ann_file, reason):
    (text, logger, level), = said
    assert ann_file in text and reason in text
    assert (logger, level) == ('current', logging.WARNING)


def test_without_a_cache_it_reads_as_the_parent(ann_file, tmp_path,
                                                monkeypatch, said):
    (tmp_path / 'file').write_text('')
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'file'))
    same(build('apa_mm.CocoDataset', ann_file),
         build('CocoDataset', ann_file))
    warned(said, ann_file, 'a file lies where the folder')


@pytest.mark.parametrize('section, values, reason', [
    ('annotations', dict(bbox=[0, 0, -1, 9]), 'without a negative size'),
    ('images', dict(id=1), 'occur more than once')
])
def test_what_our_reader_refuses_is_read_as_the_parent(
        ann_file, cache, said, section, values, reason):
    change(ann_file, lambda content: content[section][0].update(values))
    same(build('apa_mm.CocoDataset', ann_file),
         build('CocoDataset', ann_file))
    assert not list(cache.rglob('*.arrays'))
    warned(said, ann_file, reason)


@pytest.mark.parametrize('number', [2**63 - 1, -2**63, 2**63])
def test_ids_at_the_end_of_64_bits(ann_file, said, number):
    def renumber(content):
        for entry in content['images'] + content['annotations']:
            key = 'image_id' if 'image_id' in entry else 'id'
            entry[key] = number if entry[key] == 1 else entry[key]

    change(ann_file, renumber)
    same(build('apa_mm.CocoDataset', ann_file),
         build('CocoDataset', ann_file))
    if number == 2**63:
        warned(said, ann_file, 'write a whole number of 64 bits')
    else:
        assert not said


@pytest.mark.parametrize('name', ['load_data_list', 'parse_data_info',
                                  'filter_data'])
def test_what_is_read_in_another_way_is_left_to_the_parent(
        ann_file, monkeypatch, said, name):
    def noted(self, *args):
        calls.append(args)
        return parent(self, *args)

    from apa_mm.det.datasets import CocoDataset
    calls, parent = [], getattr(CocoDataset, name)
    monkeypatch.setattr(CocoDataset, name, noted)
    build('apa_mm.CocoDataset', ann_file)
    assert calls and not said


@pytest.mark.parametrize('settings', [
    dict(return_classes=True), dict(backend_args=dict(backend='local')),
    dict(serialize_data=False), dict(proposal_file='proposals.json')
], ids=str)
def test_what_the_cache_does_not_hold_is_left_to_the_parent(
        ann_file, tmp_path, cache, said, settings):
    every = build('CocoDataset', ann_file, filter_cfg=None)
    (tmp_path / 'proposals.json').write_text(json.dumps({
        f'{tmp_path.name}/{every.get_data_info(i)["img_path"]}': [i]
        for i in range(len(every))}))
    settings = dict(settings, data_root=str(tmp_path))
    same(build('apa_mm.CocoDataset', ann_file, **settings),
         build('CocoDataset', ann_file, **settings))
    assert not said and not list(cache.rglob('*.arrays'))


def test_remote_files_are_left_to_the_parent(said):
    with pytest.raises(URLError):
        build('apa_mm.CocoDataset', 'http://127.0.0.1:9/set.json')
    assert not said
