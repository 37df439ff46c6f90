"""Cached data sets are mmdet's, element by element."""
import json
import logging
import os

import numpy as np
import pytest
from mmengine.dataset import ClassBalancedDataset
from support.tiny_annotations import CLASSES, build, write

from apa_mm.data.class_frequency import class_frequency

pytest.importorskip('mmdet')
KINDS = ['CocoDataset', 'LVISV1Dataset']
POLYGON = [[1, 2.5, 3, 4, 5.25, 6]]
RLE = dict(size=[64, 64], counts=[0, 4096])


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))


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
    del content['annotations'][3]['segmentation']
    content['images'].reverse()
    content['images'][0]['height'] = 60.5
    path.write_text(json.dumps(content))
    return str(path)


def parents(kind, ann_file, **kwargs):
    if kind == 'LVISV1Dataset':
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
    dict(filter_cfg=dict(min_size=61)), dict(indices=2),
    dict(indices=[2, 0, 1]), dict(data_root='data', data_prefix=dict(
        img='images', seg='maps'))
]


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('settings', SETTINGS, ids=str)
def test_elements_equal_the_parents(kind, settings, ann_file):
    theirs = parents(kind, ann_file, **settings)
    for _ in range(2):  # made, then mapped
        ours = build(f'apa_mm.{kind}', ann_file, **settings)
        same(ours, theirs)


def test_subset_of_classes(ann_file):
    for classes in (('dog', 'ant'), ('dog', )):
        ours = build('apa_mm.CocoDataset', ann_file, classes=classes)
        same(ours, build('CocoDataset', ann_file, classes=classes))


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


def test_repeat_factors_and_class_counts(ann_file):
    ours, theirs = (build(f'{scope}CocoDataset', ann_file)
                    for scope in ('apa_mm.', ''))
    assert [ClassBalancedDataset(d, 0.7).repeat_indices for d in (ours,)] == [
        ClassBalancedDataset(theirs, 0.7).repeat_indices]
    np.testing.assert_array_equal(
        class_frequency(ours).counts, class_frequency(theirs).counts)
    subset = ours.get_subset([1, 0])
    assert subset.get_cat_ids(0) == theirs.get_cat_ids(1)


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


def test_what_our_reader_refuses_is_read_as_the_parent(tmp_path, said):
    path = tmp_path / 'set.json'
    content = json.loads(open(write(path)).read())
    content['annotations'][0]['bbox'][2] = -1
    path.write_text(json.dumps(content))
    same(build('apa_mm.CocoDataset', str(path)),
         build('CocoDataset', str(path)))
    assert not list((tmp_path / 'cache').rglob('*.arrays'))
    warned(said, str(path), 'without a negative size')


@pytest.mark.parametrize('number', [2**63 - 1, -2**63, 2**63])
def test_ids_at_the_end_of_64_bits(ann_file, said, number):
    with open(ann_file) as file:
        content = json.load(file)
    for entry in content['images'] + content['annotations']:
        key = 'image_id' if 'image_id' in entry else 'id'
        entry[key] = number if entry[key] == 1 else entry[key]
    with open(ann_file, 'w') as file:
        json.dump(content, file)
    same(build('apa_mm.CocoDataset', ann_file),
         build('CocoDataset', ann_file))
    if number == 2**63:
        warned(said, ann_file, 'write a whole number of 64 bits')
    else:
        assert not said


def test_what_is_read_in_another_way_is_left_to_the_parent(
        ann_file, tmp_path, monkeypatch, said):
    def marked(self, raw):
        return dict(parse(self, raw), marked=True)

    from apa_mm.det.datasets import CocoDataset
    parse = CocoDataset.parse_data_info
    monkeypatch.setattr(CocoDataset, 'parse_data_info', marked)
    ours = build('apa_mm.CocoDataset', ann_file)
    assert ours.get_data_info(0)['marked'] and not said


def test_class_texts_are_left_to_the_parent(ann_file, said):
    settings = dict(return_classes=True)
    same(build('apa_mm.CocoDataset', ann_file, **settings),
         build('CocoDataset', ann_file, **settings))
    assert not said
