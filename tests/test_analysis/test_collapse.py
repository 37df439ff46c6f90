"""Neural collapse: constructed cases, and numpy on the whole data."""
import pickle

import numpy as np
import pytest
import torch

from apa_mm.analysis import AnalysisError, CollapseSums


def direct(x, labels):
    """NC1 as its formulas read, with numpy's pseudo-inverse."""
    classes = np.unique(labels)
    mean = x.mean(0)
    within = np.zeros((x.shape[1], x.shape[1]))
    between = np.zeros_like(within)
    for c in classes:
        mine = x[labels == c]
        centred = mine - mine.mean(0)
        within += centred.T @ centred / len(x)
        shift = mine.mean(0) - mean
        between += np.outer(shift, shift) / len(classes)
    return np.trace(within @ np.linalg.pinv(
        between, rcond=1e-10, hermitian=True)) / len(classes)


def streamed(x, labels, num_classes, size=7):
    sums = CollapseSums(num_classes)
    for part in torch.arange(len(x)).split(size):
        sums.update(torch.as_tensor(x)[part], torch.as_tensor(labels)[part])
    return sums


def cross(a=2.0, s=1.0):
    """Two crosses around (a, 0) and (-a, 0): NC1 = s^2 / (4 a^2)."""
    arms = s * np.array([[1, 0], [-1, 0], [0, 1], [0, -1.]])
    x = np.concatenate([arms + [a, 0], arms - [a, 0]])
    return x, np.repeat([0, 1], 4)


@pytest.mark.parametrize('a, s', [(2.0, 1.0), (5.0, 0.1), (1.0, 3.0)])
def test_known_value(a, s):
    # Sigma_W = s^2 / 2 in both directions, Sigma_B = a^2 along the first
    # one alone, and K = 2.
    x, labels = cross(a, s)
    assert streamed(x, labels, 2).result().nc1 == pytest.approx(
        s * s / (4 * a * a), rel=1e-12)


def test_collapsed_classes_have_zero():
    means = np.eye(3, 5)
    x, labels = np.repeat(means, 4, axis=0), np.repeat(np.arange(3), 4)
    assert streamed(x, labels, 3).result().nc1 == pytest.approx(0, abs=1e-20)


@pytest.mark.parametrize('num_classes, width', [(5, 12), (20, 6), (3, 3)])
def test_equals_numpy_on_unbalanced_classes(num_classes, width):
    rng = np.random.default_rng(0)
    labels = np.concatenate([np.arange(num_classes), rng.integers(
        num_classes, size=150) // rng.integers(1, 4, size=150)])
    x = rng.normal(size=(len(labels), width)) + 3 * rng.normal(
        size=(num_classes, width))[labels]
    found = streamed(x, labels, num_classes).result()
    assert found.nc1 == pytest.approx(direct(x, labels), rel=1e-9)
    assert (found.num_samples, found.num_classes) == (len(x), num_classes)


@pytest.mark.parametrize('size', [1, 3, 64, 1000])
def test_neither_batches_nor_their_order_matter(size):
    rng = np.random.default_rng(1)
    labels = rng.integers(4, size=200)
    x = rng.normal(size=(200, 6)) + labels[:, None]
    order = rng.permutation(200)
    assert streamed(x[order], labels[order], 4, size).result().nc1 == (
        pytest.approx(direct(x, labels), rel=1e-9))


def test_a_large_offset_does_not_cancel():
    x, labels = cross()
    assert streamed(x + 1e6, labels, 2, 3).result().nc1 == pytest.approx(
        1 / 16, rel=1e-8)


def test_rare_classes_are_counted_and_reported():
    x, labels = cross()
    x = np.concatenate([x, [[0., 9.]]])
    labels = np.append(labels, 3)
    found = streamed(x, labels, 5).result()
    assert found.empty_classes == [2, 4]
    assert found.single_classes == [3]
    assert found.num_classes == 3
    assert found.nc1 == pytest.approx(direct(x, labels), rel=1e-9)


def test_memory_does_not_grow_with_the_data():
    sums, sizes = CollapseSums(3), []
    for batch in range(100):
        sums.update(torch.rand(8, 5), torch.arange(8) % 3)
        if batch in (9, 99):
            sizes.append(len(pickle.dumps(sums)))
    assert sums.result().num_samples == 800
    assert sizes[0] == sizes[1]


def test_one_class_only():
    with pytest.raises(AnalysisError, match='at least 2, but got 1; analyse '
                       'a split with more'):
        streamed(np.ones((4, 2)), np.zeros(4, int), 3).result()


def test_no_samples_at_all():
    with pytest.raises(AnalysisError, match='but got 0'):
        CollapseSums(3).result()


def test_single_samples_only():
    with pytest.raises(AnalysisError, match='each of the 3 classes has one'):
        streamed(np.eye(3), np.arange(3), 3).result()


def test_features_that_ignore_the_image():
    with pytest.raises(AnalysisError, match='class means are all equal'):
        streamed(np.full((6, 4), 0.3), np.arange(6) % 3, 3).result()


@pytest.mark.parametrize('x, labels, message', [
    ([[float('nan')]], [0], 'NaN or infinite.*inspect_checkpoint'),
    ([[1.0]], [2], r'labels must be in \[0, 2\), but span \[2, 2\]'),
    ([[1.0]], [-1], r'span \[-1, -1\]'),
    ([[1.0]], [0, 1], r'shapes \(1, 1\) and \(2,\)'),
])
def test_bad_input(x, labels, message):
    with pytest.raises(AnalysisError, match=message):
        CollapseSums(2).update(torch.tensor(x), torch.tensor(labels))
