"""Sets given by lists, and Digits-LT: formats, orders, and bad input."""
import numpy as np
import pytest
from support.long_tail_sets import image_list, write_list, write_listed_images
from mmpretrain.registry import DATASETS

from apa_mm.cls.datasets import (DigitsLT, ImageListDataset, ImageNetLT,
                                 INaturalist2018, PlacesLT)
from apa_mm.cls.datasets.long_tail import frequency_ranks

LISTS = {
    'ImageNetLT':
    (1000, 'train/n{c:08d}/n{c:08d}_{i}.JPEG', 'val/n{c:08d}/{i}.JPEG'),
    'PlacesLT': (365, 'train/place{c}/{i}.jpg', 'val/place{c}/{i}.jpg'),
    'INaturalist2018': (8142, 'train_val2018/Aves/{c}/{i}.jpg',
                        'train_val2018/Aves/{c}/val{i}.jpg'),
}
# Class counts of a four-class list; native labels 1 and 3 are tied.
COUNTS = (2, 4, 7, 4)


@pytest.fixture
def lists(tmp_path):
    """Four classes: a training list, a test list and their images."""
    train = image_list(4, COUNTS, 'train/class {c}/{i}.jpg')
    test = image_list(4, [1], 'val/class {c}/{i}.jpg')
    write_list(tmp_path / 'lists/train.txt', train)
    write_list(tmp_path / 'lists/test.txt', test)
    write_listed_images(tmp_path / 'images', train + test)
    return tmp_path


def build(root, **kwargs):
    settings = dict(
        ann_file='lists/train.txt',
        num_classes=4,
        data_root=str(root),
        data_prefix='images')
    return ImageListDataset(**{**settings, **kwargs})


def counts_of(dataset):
    return np.bincount(dataset.get_gt_labels()).tolist()


# List files


@pytest.mark.parametrize('name', LISTS)
def test_the_published_sets_with_all_their_classes(name, tmp_path):
    num_classes, train, test = LISTS[name]
    train = image_list(num_classes, [2, 1], train)
    test = image_list(num_classes, [1], test)
    write_list(tmp_path / 'train.txt', train)
    write_list(tmp_path / 'test.txt', test)
    dataset = DATASETS.build(
        dict(
            type=f'apa_mm.{name}',
            ann_file='train.txt',
            data_root=str(tmp_path),
            num_images=len(train),
            check_images=False))
    assert counts_of(dataset) == [2, 1] * (num_classes // 2) + [2] * (
        num_classes % 2)
    assert dataset.get_data_info(0)['img_path'] == str(
        tmp_path / train[0][0])
    tested = DATASETS.build(
        dict(
            type=f'apa_mm.{name}',
            ann_file='test.txt',
            train_ann_file='train.txt',
            data_root=str(tmp_path),
            test_mode=True,
            check_images=False))
    assert tested.metainfo['classes'] == dataset.metainfo['classes']
    assert list(tested.metainfo['train_class_counts']) == counts_of(dataset)


def test_true_numbers_of_classes():
    assert [cls.NUM_CLASSES for cls in (ImageNetLT, PlacesLT, INaturalist2018)
            ] == [1000, 365, 8142]


def test_a_list_is_read_through_the_pipeline(lists):
    dataset = build(
        lists,
        pipeline=[dict(type='LoadImageFromFile'), dict(type='PackInputs')])
    sample = dataset[2]
    assert tuple(sample['inputs'].shape) == (3, 16, 16)
    assert sample['data_samples'].gt_label.tolist() == [1]
    assert counts_of(dataset) == list(COUNTS)
    assert dataset.metainfo['train_class_counts'] == COUNTS
    assert dataset.metainfo['label_order'] == 'native'
    assert dataset.metainfo['classes'] == tuple(
        f'class {c}' for c in range(4))


def test_white_space_and_blank_lines(lists):
    (lists / 'lists/train.txt').write_text(
        'train/class 0/0.jpg\t0\r\n\n  train/class 1/0.jpg    1 \n')
    dataset = build(lists, num_classes=2)
    assert dataset.get_gt_labels().tolist() == [0, 1]


def test_frequency_order_is_stable_and_shared_with_the_test_list(lists):
    # By hand: class 2 (7 images), then 1 and 3 (4 each), then 0 (2).
    train = build(lists, label_order='frequency')
    assert counts_of(train) == [7, 4, 4, 2]
    names = tuple(f'class {c}' for c in (2, 1, 3, 0))
    assert train.metainfo['classes'] == names
    assert train.metainfo['train_class_counts'] == (7, 4, 4, 2)
    test = build(
        lists,
        ann_file='lists/test.txt',
        train_ann_file='lists/train.txt',
        label_order='frequency',
        test_mode=True)
    assert test.get_gt_labels().tolist() == [3, 1, 0, 2]
    assert test.metainfo['classes'] == names
    assert test.metainfo['train_class_counts'] == (7, 4, 4, 2)


def test_given_names_are_in_native_order(lists):
    dataset = build(
        lists,
        label_order='frequency',
        metainfo=dict(classes=('a', 'b', 'c', 'd')))
    assert dataset.metainfo['classes'] == ('c', 'b', 'd', 'a')
    with pytest.raises(ValueError, match='names 2 classes, but.*has 4'):
        build(lists, metainfo=dict(classes=('a', 'b')))


def test_ranks_of_ties_keep_their_order():
    counts = [3, 9, 3, 9, 3]
    assert frequency_ranks(counts).tolist() == [2, 0, 3, 1, 4]
    many = np.random.default_rng(0).integers(0, 5, 500)
    order = np.argsort(frequency_ranks(many))
    expected = sorted(range(500), key=lambda c: (-many[c], c))
    assert order.tolist() == expected


def test_folders_that_do_not_name_a_class_are_not_used(lists):
    write_list(lists / 'lists/flat.txt', [('val/a.jpg', 0), ('val/b.jpg', 1)])
    dataset = build(
        lists, ann_file='lists/flat.txt', num_classes=2, check_images=False)
    assert dataset.metainfo['classes'] == ('0', '1')


def test_without_a_training_list_a_test_set_knows_no_counts(lists):
    test = build(lists, ann_file='lists/test.txt', test_mode=True)
    assert 'train_class_counts' not in test.metainfo


@pytest.mark.parametrize('line, message', [
    ('train/a.jpg 4', r'line 2 of .* has label 4.*in \[0, 4\)'),
    ('train/a.jpg -1', r'line 2 of .* has label -1'),
    ('train/a.jpg', r"line 2 of .* is 'train/a.jpg'.*\"path label\""),
    ('train/a.jpg cat', 'line 2 of .* whole number'),
    ('train/a.jpg 1.0', 'line 2 of .* whole number'),
])
def test_wrong_lines_are_named(lists, line, message):
    (lists / 'lists/train.txt').write_text(f'train/class 0/0.jpg 0\n{line}\n')
    with pytest.raises(ValueError, match=message):
        build(lists)


def test_missing_images_are_counted_and_the_first_is_named(lists):
    (lists / 'images/train/class 1/3.jpg').unlink()
    (lists / 'images/train/class 2/0.jpg').unlink()
    with pytest.raises(
            ValueError, match=r'2 of 17 images.*class 1/3.jpg \(line 6\)'):
        build(lists)
    assert len(build(lists, check_images=False)) == 17
    with pytest.raises(ValueError, match='17 of 17 images.*set data_root'):
        build(lists, data_prefix='elsewhere')


def test_missing_empty_and_foreign_lists(lists):
    with pytest.raises(ValueError, match='none.txt does not exist; set ann_f'):
        build(lists, ann_file='none.txt')
    with pytest.raises(ValueError, match='none.txt does not exist'):
        build(lists, train_ann_file='none.txt')
    (lists / 'lists/train.txt').write_text('\n')
    with pytest.raises(ValueError, match='train.txt has no samples'):
        build(lists)
    (lists / 'lists/train.txt').write_bytes(b'\xff\xd8\xff\xe0 1')
    with pytest.raises(ValueError, match='train.txt is no text file'):
        build(lists)


def test_a_class_without_training_images_is_an_error(lists):
    write_list(lists / 'lists/few.txt',
               [('train/class 0/0.jpg', 0), ('train/class 3/0.jpg', 3)])
    with pytest.raises(
            ValueError, match='2 of 4 classes have no.*few.txt: 1, 2;'):
        build(lists, ann_file='lists/few.txt')
    dataset = build(
        lists, ann_file='lists/few.txt', allow_empty_classes=True)
    assert dataset.metainfo['train_class_counts'] == (1, 0, 0, 1)
    assert len(build(lists, ann_file='lists/few.txt', test_mode=True)) == 2
    with pytest.raises(ValueError, match='2 of 4 classes have no'):
        build(
            lists,
            ann_file='lists/test.txt',
            train_ann_file='lists/few.txt',
            test_mode=True)


def test_a_list_of_another_length_is_an_error(lists):
    with pytest.raises(ValueError, match='lists 17 images, but 16 were'):
        build(lists, num_images=16)
    assert len(build(lists, num_images=17)) == 17


def test_wrong_arguments(lists):
    with pytest.raises(ValueError, match='ImageListDataset needs num_classes'):
        build(lists, num_classes=None)
    with pytest.raises(ValueError, match='label_order must be one of'):
        build(lists, label_order='rank')
    with pytest.raises(ValueError, match='set train_ann_file on the eval'):
        build(lists, label_order='frequency', test_mode=True)


# Digits


def test_digits_lt_with_its_splits():
    train, test = DigitsLT(), DigitsLT(split='test', test_mode=True)
    assert counts_of(train) == [134, 86, 56, 36, 23, 15, 9, 6, 4, 2]
    assert counts_of(test) == [40] * 10
    assert DigitsLT(imbalance_factor=10).metainfo == dict(
        classes=tuple('0123456789'),
        train_class_counts=(134, 103, 80, 62, 48, 37, 28, 22, 17, 13))
    assert test.metainfo == train.metainfo
    assert counts_of(DigitsLT(profile='step')) == [134] * 5 + [2] * 5


def pixels_of(dataset):
    return [dataset.get_data_info(i)['img'].tobytes()
            for i in range(len(dataset))]


def test_splits_of_digits_are_disjoint_real_and_repeatable():
    from sklearn.datasets import load_digits
    digits = load_digits()
    # 16 is white; no two of the 1,797 images are equal.
    known = {
        np.repeat(
            np.round(image * 255 / 16).astype(np.uint8)[..., None], 3,
            2).tobytes(): label
        for image, label in zip(digits.images, digits.target, strict=True)
    }
    assert len(known) == 1797
    train = DigitsLT(imbalance_factor=1)
    test = DigitsLT('test', imbalance_factor=1)
    train_pixels, test_pixels = pixels_of(train), pixels_of(test)
    assert not set(train_pixels) & set(test_pixels)
    assert [known[p] for p in train_pixels] == train.get_gt_labels().tolist()
    assert [known[p] for p in test_pixels] == test.get_gt_labels().tolist()
    assert pixels_of(DigitsLT('test', imbalance_factor=50)) == test_pixels
    assert pixels_of(DigitsLT('test', seed=1)) != test_pixels


def test_size_of_digits():
    assert DigitsLT().get_data_info(0)['img'].shape == (8, 8, 3)
    image = DigitsLT(image_size=20).get_data_info(0)['img']
    assert image.shape == (20, 20, 3) and image.dtype == np.uint8


@pytest.mark.parametrize('kwargs, message', [
    (dict(split='val'), 'split must be one of'),
    (dict(imbalance_factor=500), 'class .* without training images'),
    (dict(test_per_class=174), r'in \[1, 174\)'),
    (dict(image_size=0), 'image_size must be 1 pixel'),
])
def test_wrong_arguments_of_digits(kwargs, message):
    with pytest.raises(ValueError, match=message):
        DigitsLT(**kwargs)
