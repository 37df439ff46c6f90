"""Digits-LVIS: the LVIS v1 format, the long tail, reuse and repair."""
import dataclasses
import doctest
import json
import runpy
import shutil
from collections import Counter, defaultdict

import cv2
import numpy as np
import pytest
from pycocotools import mask as mask_utils
from sklearn.datasets import load_digits
from support.configs import ROOT

from demo import (CLASSES, DigitsLVISSettings, canvas, digits_lvis,
                  draw_splits, make_digits_lvis, report)
from demo.canvas import MASK_THRESHOLD
from demo.digits_lvis import class_quotas
from demo.folder import SETTINGS_FILE

SMALL = DigitsLVISSettings(num_train=60, num_val=30, seed=1, exhaustive=True)
TINY = DigitsLVISSettings(num_train=30, num_val=30, image_size=64,
                          min_digit=8, max_digit=20, exhaustive=True)


@pytest.fixture(scope='module')
def splits():
    return draw_splits(SMALL)


@pytest.fixture(scope='module')
def full():
    """The demo's set with every label, as its files would hold it."""
    settings = DigitsLVISSettings(exhaustive=True)
    return {name: split.annotations
            for name, split in draw_splits(settings).items()}


@pytest.fixture(scope='module')
def federated():
    """The set of the demo, as its annotation files hold it."""
    return {name: split.annotations
            for name, split in draw_splits(DigitsLVISSettings()).items()}


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
    """A small set on disk; read only."""
    folder = tmp_path_factory.mktemp('digits') / 'set'
    assert make_digits_lvis(str(folder), TINY)
    return folder


def images_per_category(annotations):
    seen = defaultdict(set)
    for annotation in annotations['annotations']:
        seen[annotation['category_id']].add(annotation['image_id'])
    return {key: len(value) for key, value in seen.items()}


def rasterize(annotation, size):
    parts = mask_utils.frPyObjects(annotation['segmentation'], size, size)
    return mask_utils.decode(mask_utils.merge(parts)).astype(bool)


def crop(mask, values):
    rows, cols = np.nonzero(mask)
    return values[rows.min():rows.max() + 1, cols.min():cols.max() + 1]


def test_lvis_v1_keys_and_ids(splits):
    for name, split in splits.items():
        data = split.annotations
        assert [image['id'] for image in data['images']] == list(
            range(1, len(split.images) + 1))
        assert [ann['id'] for ann in data['annotations']] == list(
            range(1, len(data['annotations']) + 1))
        assert [cat['id'] for cat in data['categories']] == list(range(1, 31))
        assert tuple(cat['name'] for cat in data['categories']) == CLASSES
        for image in data['images']:
            assert image['coco_url'] == f'{name}/{image["id"]:06d}.png'
            assert image['not_exhaustive_category_ids'] == []


def test_negative_categories_are_all_absent_ones(splits):
    for split in splits.values():
        present = defaultdict(set)
        for annotation in split.annotations['annotations']:
            present[annotation['image_id']].add(annotation['category_id'])
        for image in split.annotations['images']:
            negative = set(image['neg_category_ids'])
            assert negative == set(range(1, 31)) - present[image['id']]


def test_boxes_masks_and_areas_agree(splits):
    size = SMALL.image_size
    for annotation in splits['train'].annotations['annotations']:
        x, y, width, height = annotation['bbox']
        assert x >= 0 and y >= 0
        assert x + width <= size and y + height <= size
        longer = max(width, height)
        # The outline runs an eighth of a pixel inside the digit's edge.
        assert SMALL.min_digit - 2 < longer < SMALL.max_digit
        mask = rasterize(annotation, size)
        rows, cols = np.nonzero(mask)
        assert x - 1 < cols.min() and cols.max() < x + width + 1
        assert y - 1 < rows.min() and rows.max() < y + height + 1
        assert abs(np.ptp(cols) + 1 - width) < 2
        assert annotation['area'] == pytest.approx(mask.sum(), rel=0.1)


def test_mask_covers_the_coloured_digit(splits):
    """The mask must lie where the image shows the class's colour."""
    split = splits['val']
    channel = dict(red=0, green=1, blue=2)
    for annotation in split.annotations['annotations']:
        image = split.images[annotation['image_id'] - 1].astype(float)
        mask = rasterize(annotation, SMALL.image_size)
        colour = CLASSES[annotation['category_id'] - 1].split('_')[0]
        assert image[mask].mean(axis=0).argmax() == channel[colour]


def test_mask_is_the_handwritten_digit(splits):
    """Enlarged to the box, the source digit covers the mask."""
    digits = load_digits()
    overlaps = []
    for annotation in splits['val'].annotations['annotations']:
        index = annotation['digit_index']
        name = CLASSES[annotation['category_id'] - 1]
        assert name.endswith(f'_{digits.target[index]}')
        source = crop(digits.images[index] > MASK_THRESHOLD * 16,
                      digits.images[index] / 16)
        mask = rasterize(annotation, SMALL.image_size)
        mask = crop(mask, mask)
        source = cv2.resize(source, mask.shape[::-1]) > MASK_THRESHOLD
        overlaps.append((source & mask).sum() / (source | mask).sum())
    # The outline fills the holes of 0, 6, 8 and 9, so not nearer to 1.
    assert min(overlaps) > 0.45
    assert np.mean(overlaps) > 0.75


def test_digits_do_not_overlap(splits):
    for split in splits.values():
        covered = defaultdict(lambda: np.zeros((128, 128), int))
        for annotation in split.annotations['annotations']:
            covered[annotation['image_id']] += rasterize(annotation, 128)
        assert max(layer.max() for layer in covered.values()) == 1


def test_train_and_val_show_different_handwriting(full):
    train, val = ({
        ann['digit_index']
        for ann in full[name]['annotations']
    } for name in ('train', 'val'))
    assert len(train) > 1000 and len(val) > 300
    assert not train & val


def test_long_tailed_train(full):
    counts = images_per_category(full['train'])
    assert len(counts) == 30
    assert max(counts.values()) > 300
    assert sum(count < 10 for count in counts.values()) >= 3
    groups = Counter(cat['frequency'] for cat in full['train']['categories'])
    assert all(groups[group] >= 8 for group in 'rcf')


def test_balanced_val(full):
    counts = Counter(ann['category_id'] for ann in full['val']['annotations'])
    assert len(counts) == 30
    assert max(counts.values()) - min(counts.values()) <= 1
    assert min(counts.values()) >= 15


def test_frequencies_agree_with_a_recount(full):
    train_images = images_per_category(full['train'])
    for data in full.values():
        images = images_per_category(data)
        instances = Counter(a['category_id'] for a in data['annotations'])
        for category in data['categories']:
            key = category['id']
            assert category['image_count'] == images[key]
            assert category['instance_count'] == instances[key]
            expected = ('r' if train_images[key] <= 20 else
                        'c' if train_images[key] <= 100 else 'f')
            assert category['frequency'] == expected


# --- federated annotation ---
def labels_of(data):
    """(image, category) -> number of labelled objects."""
    return Counter((a['image_id'], a['category_id'])
                   for a in data['annotations'])


def test_half_of_the_images_of_a_class_are_not_labelled(full, federated):
    there, labelled = (images_per_category(data['train'])
                       for data in (full, federated))
    assert labelled == {key: number - number // 2
                        for key, number in there.items()}
    assert labels_of(full['val']) == labels_of(federated['val'])
    # The boxes that are left are those of the same objects.
    boxes = {(a['image_id'], a['category_id'], *a['bbox'])
             for a in full['train']['annotations']}
    kept = federated['train']['annotations']
    assert {(a['image_id'], a['category_id'], *a['bbox'])
            for a in kept} < boxes
    assert [a['id'] for a in kept] == list(range(1, len(kept) + 1))


@pytest.mark.parametrize('name, number', [('train', 40), ('val', 10)])
def test_negatives_are_few_and_true(full, federated, name, number):
    there = labels_of(full[name])
    counts = Counter()
    for image in federated[name]['images']:
        for key in image['neg_category_ids']:
            assert (image['id'], key) not in there
            counts[key] += 1
    assert set(counts.values()) == {number} and len(counts) == 30


def test_the_exhaustive_val_file_is_val_with_every_absent_class(tmp_path):
    folder = tmp_path / 'set'
    make_digits_lvis(str(folder), dataclasses.replace(TINY, exhaustive=False))
    val, exhaustive = (json.loads(
        (folder / f'annotations/digits_lvis_{name}.json').read_text())
        for name in ('val', 'val_exhaustive'))
    shown = labels_of(val)
    for few, every in zip(val['images'], exhaustive['images'], strict=True):
        assert set(few['neg_category_ids']) < set(every['neg_category_ids'])
        assert set(every.pop('neg_category_ids')) == {
            key for key in range(1, 31) if (few['id'], key) not in shown}
        few.pop('neg_category_ids')
    assert val == exhaustive


def test_not_exhaustive_images_lack_an_object(full, federated):
    there, labelled = (labels_of(data['train']) for data in (full, federated))
    listed = {(image['id'], key) for image in federated['train']['images']
              for key in image['not_exhaustive_category_ids']}
    assert listed == {pair for pair, number in labelled.items()
                      if number < there[pair]}
    assert 20 < len(listed) < 200
    assert not any(image['not_exhaustive_category_ids']
                   for image in federated['val']['images'])


def test_letters_and_counts_are_those_of_the_labels(federated):
    labelled = images_per_category(federated['train'])
    for category in federated['train']['categories']:
        number = labelled[category['id']]
        assert category['image_count'] == number
        assert category['frequency'] == ('r' if number <= 10 else
                                         'c' if number <= 50 else 'f')
    groups = Counter(c['frequency'] for c in federated['val']['categories'])
    assert all(groups[group] >= 8 for group in 'rcf')


def test_the_images_are_the_same(splits):
    again = draw_splits(dataclasses.replace(SMALL, exhaustive=False))
    for name, split in again.items():
        assert all(map(np.array_equal, split.images, splits[name].images))


def test_quotas():
    quotas = class_quotas(3000, 0.86)
    assert quotas.sum() == 3000 and quotas.min() >= 1
    assert (np.diff(quotas) <= 0).all()
    ratios = quotas[1:10] / quotas[:9]
    np.testing.assert_allclose(ratios, 0.86, atol=0.01)
    assert class_quotas(30, 0.5).tolist() == [1] * 30
    assert sorted(set(class_quotas(100, 1.0).tolist())) == [3, 4]


def test_same_seed_same_set_other_seed_other_set(splits):
    again = draw_splits(SMALL)
    other = draw_splits(dataclasses.replace(SMALL, seed=2))
    for name in ('train', 'val'):
        assert again[name].annotations == splits[name].annotations
        assert all(
            np.array_equal(a, b)
            for a, b in zip(
                again[name].images, splits[name].images, strict=True))
        assert other[name].annotations != splits[name].annotations
        assert not np.array_equal(other[name].images[0],
                                  splits[name].images[0])


def test_opens_with_lvis_and_coco_readers(finished):
    from lvis import LVIS
    from pycocotools.coco import COCO
    path = str(finished / 'annotations' / 'digits_lvis_train.json')
    lvis, coco = LVIS(path), COCO(path)
    assert lvis.get_cat_ids() == coco.getCatIds() == list(range(1, 31))
    annotation = lvis.load_anns([1])[0]
    assert lvis.ann_to_mask(annotation).sum() == coco.annToMask(
        annotation).sum() > 0
    image = cv2.imread(str(finished / lvis.load_imgs([1])[0]['coco_url']))
    assert image.shape == (64, 64, 3)


def test_mmdet_reads_it(finished):
    pytest.importorskip('mmdet', reason='needs mmdet')
    from mmdet.datasets import LVISV1Dataset
    dataset = LVISV1Dataset(
        data_root=str(finished),
        ann_file='annotations/digits_lvis_train.json',
        metainfo=dict(classes=CLASSES),
        data_prefix=dict(img=''),
        pipeline=[])
    assert len(dataset) == 30
    info = dataset.get_data_info(0)
    assert info['img_path'].endswith('set/train/000001.png')
    assert cv2.imread(info['img_path']) is not None
    assert all(0 <= item['bbox_label'] < 30 for item in info['instances'])


def snapshot(folder):
    return {
        path.relative_to(folder): path.stat().st_mtime_ns
        for path in folder.rglob('*') if path.is_file()
    }


def test_finished_data_is_reused_and_other_settings_are_not(
        tmp_path, finished):
    folder = tmp_path / 'set'
    shutil.copytree(finished, folder)
    before = snapshot(folder)
    assert not make_digits_lvis(str(folder), TINY)
    assert snapshot(folder) == before
    other = dataclasses.replace(TINY, num_train=40)
    assert make_digits_lvis(str(folder), other)
    assert len(list((folder / 'train').iterdir())) == 40
    assert [path.name for path in tmp_path.iterdir()] == ['set']


@pytest.mark.parametrize('name', [
    'train/000007.png', 'val/000003.png',
    'annotations/digits_lvis_val.json'
])
@pytest.mark.parametrize('damage', ['missing', 'truncated'])
def test_damaged_data_is_repaired(tmp_path, finished, name, damage):
    folder = tmp_path / 'set'
    shutil.copytree(finished, folder)
    whole = (folder / name).read_bytes()
    if damage == 'missing':
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(whole[:-10])
    assert make_digits_lvis(str(folder), TINY)
    assert (folder / name).read_bytes() == whole


def test_killed_run_leaves_nothing_behind(tmp_path, monkeypatch):
    """A full disk in the middle: no folder; the next run succeeds."""
    folder = tmp_path / 'set'
    with monkeypatch.context() as patch:
        patch.setattr(cv2, 'imwrite', lambda *_: False)
        with pytest.raises(OSError, match='could not be written'):
            make_digits_lvis(str(folder), TINY)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / '.set-partial-x').mkdir()  # what a killed process leaves
    assert make_digits_lvis(str(folder), TINY)
    assert [path.name for path in tmp_path.iterdir()] == ['set']


def test_foreign_folder_is_left_alone(tmp_path):
    (tmp_path / 'annotations').mkdir()
    (tmp_path / 'annotations' / 'mine.json').write_text('{}')
    with pytest.raises(ValueError, match='is no Digits-LVIS folder'):
        make_digits_lvis(str(tmp_path), SMALL)
    assert (tmp_path / 'annotations' / 'mine.json').read_text() == '{}'


def test_unreadable_settings_file_counts_as_unfinished(tmp_path, finished):
    folder = tmp_path / 'set'
    shutil.copytree(finished, folder)
    (folder / SETTINGS_FILE).write_text('{"settings": ')
    assert make_digits_lvis(str(folder), TINY)
    kept = json.loads((folder / SETTINGS_FILE).read_text())
    assert kept['settings']['num_train'] == 30


@pytest.mark.parametrize('changes, message', [
    (dict(num_train=29), 'num_train must be at least 30'),
    (dict(num_val=0), 'num_val must be at least 30'),
    (dict(min_digit=50), 'min_digit=50, max_digit=48'),
    (dict(max_digit=200), 'max_digit=200, image_size=128'),
    (dict(decay=1.2), r'decay must be in \(0, 1\], but got 1.2'),
    (dict(unlabelled=1.0), r'unlabelled must be in \[0, 1\), but got 1.0'),
    (dict(val_negatives=-1), 'fewer than 0.* val_negatives=-1'),
    (dict(seed=-1), 'seed must not be negative, but got -1'),
])
def test_bad_settings(changes, message):
    with pytest.raises(ValueError, match=message):
        DigitsLVISSettings(**changes)


@pytest.mark.parametrize('words, changes', [
    ([], {}),
    (['--exhaustive'], dict(exhaustive=True)),
    (['--unlabelled', '0.25', '--train-negatives', '7', '--seed', '3'],
     dict(unlabelled=0.25, train_negatives=7, seed=3)),
])
def test_options_of_the_tool_are_the_settings(words, changes, monkeypatch):
    made = []
    monkeypatch.setattr('demo.make_digits_lvis', lambda *args: made.append(
        args))
    monkeypatch.setattr('sys.argv', ['tool', '--out', 'here', *words])
    runpy.run_path(str(ROOT / 'tools/make_digits_lvis.py'),
                   run_name='__main__')
    assert made == [('here', DigitsLVISSettings(**changes))]
    assert made[0][1].unlabelled == changes.get('unlabelled', 0.5)


def test_digits_that_do_not_fit(tmp_path):
    crowded = DigitsLVISSettings(
        num_train=60, num_val=30, image_size=48, min_digit=40, max_digit=48)
    with pytest.raises(ValueError, match='found no free place'):
        make_digits_lvis(str(tmp_path / 'set'), crowded)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('module', [canvas, digits_lvis, report])
def test_examples(module):
    found = doctest.testmod(module)
    assert found.attempted and not found.failed
