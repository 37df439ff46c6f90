"""Sigmoids over sampled classes, against loops over every element."""
from itertools import permutations

import pytest
import torch

from apa_mm.losses import SampledSigmoidLoss
from apa_mm.registry import MODELS

COUNTS = [400, 1, 100, 25, 0, 9]
C = len(COUNTS)


def make(**kwargs):
    loss = SampledSigmoidLoss(C, **kwargs)
    loss.set_class_frequency(COUNTS, 1000)
    return loss


def drawn(loss, labels, weight=None):
    """Return the classes that any negative counted for, and the loss."""
    scores = torch.randn(len(labels), C, dtype=torch.float64,
                         requires_grad=True)
    value = loss(scores, labels, weight)
    grad, = torch.autograd.grad(value, scores)
    return grad.abs().sum(0).nonzero().flatten().tolist(), value, scores, grad


def slow(scores, labels, classes, weight):
    total = 0.
    for i, label in enumerate(labels.tolist()):
        for j in classes:
            if label != -100:
                p = torch.sigmoid(scores[i, j])
                bce = -(p if label == j else 1 - p).log()
                total = total + weight[i] * bce
    return total / len(labels)


@pytest.mark.parametrize('labels, num', [
    ([2, C, 0, 2, -100], 4), ([C, C], 3), ([0, 1, 2, 5, C], 2),
    ([4, C], 3),  # shown here, though not in the counts
    ([2, -100], 50)  # only five classes have images
])
def test_value_and_gradient_are_those_of_the_slow_form(labels, num):
    labels = torch.tensor(labels)
    weight = torch.rand(len(labels), dtype=torch.float64) + 0.5
    shown = set(labels.tolist()) - {C, -100}
    for _ in range(8):
        classes, value, scores, grad = drawn(make(num_sampled=num), labels,
                                             weight)
        assert shown <= set(classes)
        assert len(classes) == max(min(num, 5), len(shown))
        assert 4 in shown or 4 not in classes
        expected = slow(scores, labels, classes, weight)
        torch.testing.assert_close(value, expected)
        torch.testing.assert_close(
            grad, torch.autograd.grad(expected, scores)[0])


@pytest.mark.parametrize('power', [0.5, 1, 0])
def test_others_are_drawn_by_a_power_of_their_images(power):
    """Two beside class 0, one after the other; a share of 1,000 draws."""
    chances = {j: 0. for j in range(1, C)}
    weights = {j: float(COUNTS[j])**power for j in chances}
    whole = sum(weights.values())
    for first, second in permutations(chances, 2):
        chance = weights[first] / whole * weights[second] / (
            whole - weights[first])
        chances[first] += chance
        chances[second] += chance
    loss, labels, times = make(num_sampled=3, power=power), [0, C], 1000
    counted = [j for _ in range(times)
               for j in drawn(loss, torch.tensor(labels))[0]]
    for j, chance in chances.items():
        spread = (chance * (1 - chance) / times)**0.5
        assert abs(counted.count(j) / times - chance) <= 4.5 * spread, j


def test_an_ignored_roi_shows_no_class():
    classes = [drawn(make(num_sampled=1, ignore_index=0),
                     torch.tensor([0, 2]))[0] for _ in range(8)]
    assert classes == [[2]] * 8


def test_verified_negatives_count_beside_the_sample():
    scores = torch.randn(3, C, dtype=torch.float64, requires_grad=True)
    loss = make(num_sampled=1, unverified_only=True)
    loss.set_verified([[0, 1, 3], [0]], [2, 1])
    grad, = torch.autograd.grad(loss(scores, torch.tensor([0, C, 0])), scores)
    assert [row.nonzero().flatten().tolist() for row in grad] == [
        [0, 1, 3], [0, 1, 3], [0]]


def test_contract_of_box_heads():
    scores, labels = torch.randn(3, C), torch.tensor([0, C, 2])
    loss = make(num_sampled=2, loss_weight=3.)
    each = loss(scores, labels, reduction_override='none')
    assert each.shape == (3, )
    for kwargs, expected in ((dict(avg_factor=5.), each.sum() / 5),
                             (dict(), each.mean()),
                             (dict(reduction_override='sum'), each.sum())):
        torch.testing.assert_close(loss(scores, labels, **kwargs), expected)
    assert loss.get_cls_channels(C) == C
    torch.testing.assert_close(
        loss.get_activation(scores),
        torch.cat([scores.sigmoid(), torch.zeros(3, 1)], 1))


def test_out_of_training_mode_all_classes_count():
    labels = torch.tensor([0, C])
    loss = MODELS.build(dict(type='apa_mm.SampledSigmoidLoss', num_classes=C))
    with pytest.raises(RuntimeError, match='needs the class counts'):
        loss(torch.zeros(2, C), labels)
    classes, value, scores, _ = drawn(loss.eval(), labels)
    assert classes == list(range(C))
    torch.testing.assert_close(
        value, slow(scores, labels, range(C), torch.ones(2)))
    even = SampledSigmoidLoss(C, num_sampled=2, power=0)
    assert len(drawn(even, labels)[0]) == 2


@pytest.mark.parametrize('kwargs', [
    dict(num_sampled=0), dict(power=-0.5), dict(power=float('nan'))])
def test_bad_arguments(kwargs):
    with pytest.raises(ValueError, match='num_sampled must be at least 1'):
        SampledSigmoidLoss(C, **kwargs)
