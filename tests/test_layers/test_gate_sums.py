"""Attention measures against closed forms and a direct evaluation."""
import pickle

import numpy as np
import pytest
import torch

from apa_mm.functional.attention import binary_entropy
from apa_mm.layers.gates import GateSums


def stats(values, **kwargs):
    sums = GateSums(**kwargs)
    sums.update('gate', values)
    return sums.result()['gate'][0]


@pytest.mark.parametrize('p, bits', [
    (0.0, 0.0),
    (0.5, 1.0),
    (1.0, 0.0),
    (0.25, 0.8112781244591328),
    (0.75, 0.8112781244591328),
    (2**-10, 0.011173818721219527),
])
def test_entropy_is_that_of_a_switch(p, bits):
    assert binary_entropy(torch.tensor(p)).item() == pytest.approx(
        bits, abs=1e-12)


def test_entropy_stays_in_its_range_down_to_the_smallest_value():
    values = torch.tensor([1e-45, 1e-30, 1e-8, 1 - 6e-8])
    entropy = binary_entropy(values)
    assert (entropy > 0).all() and (entropy < 1e-5).all()


def test_gates_that_stand_at_one_half():
    found = stats(torch.full((3, 7), 0.5))
    assert (found.entropy, found.variance, found.mean) == (1.0, 0.0, 0.5)
    assert (found.images, found.values) == (3, 21)


def test_gates_that_are_open_or_shut():
    found = stats(torch.tensor([[0.0, 1.0, 1.0, 0.0]] * 3))
    assert (found.entropy, found.variance, found.mean) == (0.0, 0.25, 0.5)


@pytest.mark.parametrize('shape', [(57, 8), (57, 4, 3, 5), (57, 1, 3, 5)])
def test_streaming_equals_a_direct_evaluation(shape):
    values = torch.rand(shape, dtype=torch.float64)
    members = torch.rand(57, 3) > 0.5
    members[:, 2] = False
    sums = GateSums(3)
    for part in torch.arange(57).split(10):
        sums.update('gate', values[part], members[part])
    found, signals = sums.result()['gate'], sums.signals('gate')
    for group, mask in enumerate((np.ones(57, bool), *members.numpy().T)):
        if group == 3:
            assert np.isnan(found[group].mean) and found[group].images == 0
            assert np.isnan(signals[group]).all()
            continue
        g = values.numpy()[mask].reshape(mask.sum(), shape[1], -1)
        entropy = -(g * np.log2(g) + (1 - g) * np.log2(1 - g))
        signal = g.mean(axis=(0, 2))
        variance = g.var(axis=2).mean() if shape[1] == 1 else signal.var()
        assert found[group].images == mask.sum()
        assert found[group].mean == pytest.approx(g.mean(), abs=1e-12)
        assert found[group].variance == pytest.approx(variance, abs=1e-12)
        assert found[group].entropy == pytest.approx(
            entropy.mean(), abs=1e-12)
        assert signals[group] == pytest.approx(signal.tolist(), abs=1e-12)


def test_variance_is_that_of_the_averaged_signal():
    # Every channel is 1/2 on average: the signal is flat, however much the
    # values differ between images.
    found = stats(torch.tensor([[0.0, 1.0], [1.0, 0.0]]))
    assert (found.variance, found.mean, found.entropy) == (0.0, 0.5, 0.0)


def test_two_processes_add_up_to_one():
    values = torch.rand(7, 4)
    whole, first, second = (GateSums() for _ in range(3))
    whole.update('gate', values)
    first.update('gate', values[:5])
    second.update('gate', values[5:])
    first.merge(second.sums)
    first.merge({})
    assert first.result()['gate'][0] == pytest.approx(
        whole.result()['gate'][0])


def test_small_variance_does_not_cancel():
    values = 0.5 + 1e-6 * torch.randn(64, 512, dtype=torch.float64)
    assert stats(values).variance == pytest.approx(
        values.mean(0).var(correction=0).item(), rel=1e-6)


def test_half_precision_and_gradients_are_taken():
    values = torch.full((2, 4), 0.25, dtype=torch.bfloat16,
                        requires_grad=True)
    assert stats(values).entropy == pytest.approx(0.8112781244591328)


def test_memory_does_not_grow_with_the_data():
    sizes = []
    sums = GateSums(3)
    for batch in range(100):
        for name in ('first', 'second'):
            sums.update(name, torch.rand(4, 16), torch.rand(4, 3) > 0.5)
        if batch in (9, 99):
            sizes.append(len(pickle.dumps(sums)))
    assert sums.result()['first'][0].images == 400
    assert sizes[0] == sizes[1] < 4000


@pytest.mark.parametrize('bad', [float('nan'), 1.01, -0.01, float('inf')])
def test_values_that_are_no_gates(bad):
    with pytest.raises(ValueError, match=r'layer3.gate gives values in .*'
                       r'gates in \[0, 1\]; take'):
        GateSums().update('layer3.gate', torch.tensor([[0.5, bad]]))


def test_members_must_fit():
    with pytest.raises(ValueError, match=r'shape \(2, 3\) .* \(2, 2\)'):
        GateSums(3).update('gate', torch.rand(2, 4), torch.ones(2, 2) > 0)


def test_images_without_members_are_in_no_group():
    sums = GateSums(2)
    sums.update('gate', torch.rand(3, 4))
    assert [found.images for found in sums.result()['gate']] == [3, 0, 0]


def test_an_empty_batch_changes_nothing():
    sums = GateSums()
    sums.update('gate', torch.zeros(0, 4))
    assert sums.result()['gate'][0].images == 0
