"""Long-tailed CIFAR: profiles, the common subset, the parent's files."""
import pickle

import numpy as np
import pytest
from mmpretrain.datasets import CIFAR10, CIFAR100
from support.long_tail_sets import write_cifar

from apa_mm.cls.datasets import CIFAR10LT, CIFAR100LT
from apa_mm.cls.datasets.long_tail import draw_subset, long_tail_counts


def counts_of(dataset):
    return np.bincount(dataset.get_gt_labels()).tolist()


@pytest.mark.parametrize('classes, top, factor, profile, total', [
    (100, 500, 100, 'exp', 10847),
    (100, 500, 10, 'exp', 19573),
    (10, 5000, 100, 'exp', 12406),
    (10, 5000, 10, 'exp', 20431),
    (10, 5000, 100, 'step', 5 * 5000 + 5 * 50),
    (100, 500, 10, 'step', 50 * 500 + 50 * 50),
    (10, 5000, 1, 'exp', 50000),
])
def test_sizes_of_long_tailed_cifar(classes, top, factor, profile, total):
    counts = long_tail_counts(top, classes, factor, profile)
    assert sum(counts) == total
    assert counts[0] == top and counts[-1] == top // factor
    assert counts == sorted(counts, reverse=True)


def test_wrong_profiles():
    with pytest.raises(ValueError, match='use the inverse, such as 100 for'):
        long_tail_counts(500, 100, .01)
    with pytest.raises(ValueError, match='profile must be one of'):
        long_tail_counts(500, 100, 100, 'linear')
    with pytest.raises(ValueError, match='leaves class.*without training'):
        long_tail_counts(50, 100, 100)
    with pytest.raises(ValueError, match='class 1 has 2 images.*needs 3'):
        draw_subset(np.array([0, 0, 1, 1]), [1, 3], np.random.RandomState(0))


@pytest.fixture(scope='module')
def cifar(tmp_path_factory):
    root = tmp_path_factory.mktemp('cifar')
    write_cifar(root, 10, 200)
    write_cifar(root, 100, 20)
    return root


def common_subset(labels, counts):
    """The subset that long-tailed CIFAR is trained on: numpy's seed 0."""
    np.random.seed(0)
    kept = []
    for label, count in enumerate(counts):
        indices = np.where(labels == label)[0]
        np.random.shuffle(indices)
        kept += indices[:count].tolist()
    return kept


@pytest.mark.parametrize('profile', ['exp', 'step'])
@pytest.mark.parametrize('cls, num_classes, top', [(CIFAR10LT, 10, 200),
                                                   (CIFAR100LT, 100, 20)])
def test_cifar_from_its_own_files(cifar, cls, num_classes, top, profile):
    dataset = cls(
        data_root=str(cifar),
        imbalance_factor=10,
        profile=profile,
        check_md5=False)
    expected = long_tail_counts(top, num_classes, 10, profile)
    assert counts_of(dataset) == expected
    assert dataset.metainfo['train_class_counts'] == tuple(expected)
    assert len(dataset.metainfo['classes']) == num_classes
    for index in (0, len(dataset) - 1):
        info = dataset.get_data_info(index)
        image, label = info['img'], info['gt_label']
        assert image.shape == (32, 32, 3) and image.dtype == np.uint8
        assert (image == [label, 0, 200]).all()
    test = cls(
        data_root=str(cifar),
        split='test',
        imbalance_factor=10,
        profile=profile,
        check_md5=False,
        test_mode=True)
    assert counts_of(test) == [2] * num_classes
    assert test.metainfo['train_class_counts'] == tuple(expected)


def test_the_subset_of_cifar_is_the_common_one(tmp_path, monkeypatch):
    labels = np.random.RandomState(3).permutation(np.repeat(range(10), 20))
    pixels = np.zeros((200, 3072), np.uint8)
    pixels[:, 0] = range(200)
    folder = tmp_path / 'cifar-10-batches-py'
    folder.mkdir()
    (folder / 'data_batch_1').write_bytes(
        pickle.dumps(dict(data=pixels, labels=labels.tolist())))
    monkeypatch.setattr(CIFAR10LT, 'train_list', [['data_batch_1', '']])
    monkeypatch.setattr(CIFAR10LT, 'test_list', [])
    dataset = CIFAR10LT(
        data_root=str(tmp_path), imbalance_factor=10, check_md5=False)
    got = [int(dataset.get_data_info(i)['img'][0, 0, 0])
           for i in range(len(dataset))]
    assert got == common_subset(labels, long_tail_counts(20, 10, 10))
    other = CIFAR10LT(
        data_root=str(tmp_path), imbalance_factor=10, seed=1, check_md5=False)
    assert got != [int(other.get_data_info(i)['img'][0, 0, 0])
                   for i in range(len(other))]


def test_checksums_are_the_published_ones_and_are_compared(
        cifar, tmp_path, monkeypatch):
    for cls in (CIFAR10LT, CIFAR100LT):
        with pytest.raises(RuntimeError, match='Cannot find CIFAR10+LT data'):
            cls(data_root=str(cifar), download=False)
    md5 = write_cifar(tmp_path, 10, 200)
    for name in ('train_list', 'test_list'):
        monkeypatch.setattr(CIFAR10LT, name, [
            [file, md5[file]] for file, _ in getattr(CIFAR10LT, name)
        ])
    assert len(CIFAR10LT(data_root=str(tmp_path), imbalance_factor=10))
    damaged = tmp_path / 'cifar-10-batches-py/data_batch_4'
    damaged.write_bytes(damaged.read_bytes()[:-1] + b'!')
    with pytest.raises(RuntimeError, match='Cannot find CIFAR10LT dataset'):
        CIFAR10LT(data_root=str(tmp_path), imbalance_factor=10, download=False)


@pytest.mark.parametrize('cls, parent', [(CIFAR10LT, CIFAR10),
                                         (CIFAR100LT, CIFAR100)])
def test_files_are_the_parents(cls, parent):
    for name in ('base_folder', 'url', 'filename', 'tgz_md5', 'train_list',
                 'test_list', 'meta', 'METAINFO'):
        assert getattr(cls, name) == getattr(parent, name)


def test_missing_files_are_downloaded_as_the_parent_does(
        tmp_path, monkeypatch):
    asked = []

    def download(url, root, **kwargs):
        asked.append((url, root))
        write_cifar(tmp_path, 100, 20)

    monkeypatch.setattr('mmpretrain.datasets.cifar.'
                        'download_and_extract_archive', download)
    with pytest.raises(RuntimeError, match='specify `download=True`'):
        CIFAR100LT(data_root=str(tmp_path), download=False, check_md5=False)
    assert asked == []
    dataset = CIFAR100LT(
        data_root=str(tmp_path), imbalance_factor=10, check_md5=False)
    assert asked == [(CIFAR100.url, f'{tmp_path}/')]
    assert len(dataset) == sum(long_tail_counts(20, 100, 10))
