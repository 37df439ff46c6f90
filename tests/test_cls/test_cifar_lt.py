"""Long-tailed CIFAR: profiles, the common subset, checksums, safe pickles."""
import codecs
import pickle

import numpy as np
import pytest
from support.long_tail_sets import write_cifar

from apa_mm.cls.datasets import CIFAR10LT, CIFAR100LT
from apa_mm.cls.datasets.long_tail import draw_subset, long_tail_counts
from apa_mm.cls.datasets.safe_pickle import load_arrays


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
    with pytest.raises(
            ValueError,
            match='data_batch_1 has the md5 .*c99cafc152244af753f735de768cd7'):
        CIFAR10LT(data_root=str(cifar))
    with pytest.raises(
            ValueError, match='train has.*16019d7e3df5f24257cddd939b257f8d'):
        CIFAR100LT(data_root=str(cifar))
    md5 = write_cifar(tmp_path, 10, 200)
    for name in ('train_list', 'test_list'):
        monkeypatch.setattr(CIFAR10LT, name, [
            [file, md5[file]] for file, _ in getattr(CIFAR10LT, name)
        ])
    assert len(CIFAR10LT(data_root=str(tmp_path), imbalance_factor=10))
    damaged = tmp_path / 'cifar-10-batches-py/data_batch_4'
    damaged.write_bytes(damaged.read_bytes()[:-1] + b'!')
    with pytest.raises(ValueError, match='data_batch_4 has the md5 checksum'):
        CIFAR10LT(data_root=str(tmp_path), imbalance_factor=10)


def test_missing_cifar_files(tmp_path):
    with pytest.raises(
            ValueError, match='no folder .*cifar-100-python; unpack cifar-1'):
        CIFAR100LT(data_root=str(tmp_path))
    write_cifar(tmp_path, 10, 200)
    (tmp_path / 'cifar-10-batches-py/data_batch_3').unlink()
    with pytest.raises(ValueError, match='data_batch_3 is missing; unpack'):
        CIFAR10LT(data_root=str(tmp_path), check_md5=False)


@pytest.mark.parametrize('entry, message', [
    (dict(data=np.zeros((2, 3072), np.uint8), labels=[0]), r'as many "labels'),
    (dict(data=np.zeros((1, 10), np.uint8), labels=[0]), r'3072 values'),
    (dict(data=np.zeros((1, 3072)), labels=[0]), 'uint8'),
    (dict(labels=[0]), r"has \['labels'\] with shapes \(0,\) and \(1,\)"),
    (dict(data=np.zeros((1, 3072), np.uint8), labels=[10]),
     r'labels from 10 to 10.*in \[0, 10\)'),
    ([1, 2], r'has \[\]'),
])
def test_batches_with_something_else_inside(tmp_path, entry, message):
    write_cifar(tmp_path, 10, 200)
    batch = tmp_path / 'cifar-10-batches-py/data_batch_2'
    batch.write_bytes(pickle.dumps(entry))
    with pytest.raises(ValueError, match=message):
        CIFAR10LT(data_root=str(tmp_path), check_md5=False)


class Attack:
    """What a pickle can do to whoever loads it."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


def test_a_pickle_that_runs_code_is_refused(tmp_path):
    write_cifar(tmp_path, 10, 200)
    batch = tmp_path / 'cifar-10-batches-py/data_batch_2'
    target = tmp_path / 'written'
    batch.write_bytes(pickle.dumps(dict(data=Attack(open, str(target), 'w'))))
    with pytest.raises(ValueError, match='open is not allowed'):
        CIFAR10LT(data_root=str(tmp_path), check_md5=False)
    assert not target.exists()


def test_what_the_unpickler_takes():
    value = dict(a=np.arange(6).reshape(2, 3), b=b'x\xff', c=['y', 1, None])
    for protocol in range(pickle.HIGHEST_PROTOCOL):
        got = load_arrays(pickle.dumps(value, protocol=protocol), 'x')
        assert (got.pop('a') == value['a']).all()
        assert got == dict(b=b'x\xff', c=['y', 1, None])
    # Written by Python 2: a str of bytes beyond ASCII.
    assert load_arrays(b"\x80\x02U\x02a\xe9q\x00.", 'x') == 'a\xe9'
    for data in (b'', b'nonsense', pickle.dumps(value)[:-20]):
        with pytest.raises(ValueError, match='x cannot be read: it must be'):
            load_arrays(data, 'x')
    with pytest.raises(ValueError, match='codec rot13 is not allowed'):
        load_arrays(pickle.dumps(Attack(codecs.encode, 'a', 'rot13')), 'x')
    with pytest.raises(ValueError, match='eval is not allowed'):
        load_arrays(pickle.dumps(Attack(eval, '1')), 'x')
