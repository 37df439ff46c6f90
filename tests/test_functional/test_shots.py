"""Groups of classes by train images, and accuracies of the groups."""
import math

import pytest
import torch

from apa_mm.functional import per_class_accuracy, shot_accuracy, shot_groups

# CIFAR100-LT's profile and the group sizes that the literature gives.
CIFAR100 = {
    10: ([int(500 * .1**(c / 99)) for c in range(100)], (69, 31, 0)),
    100: ([int(500 * .01**(c / 99)) for c in range(100)], (35, 35, 30)),
}


def test_borders_belong_to_the_medium_group():
    groups = shot_groups([101, 100, 20, 19, 0])
    assert groups['many'].tolist() == [True, False, False, False, False]
    assert groups['medium'].tolist() == [False, True, True, False, False]
    assert groups['few'].tolist() == [False, False, False, True, True]


@pytest.mark.parametrize('factor', [10, 100])
def test_group_sizes_of_cifar100_lt(factor):
    counts, sizes = CIFAR100[factor]
    groups = shot_groups(counts)
    assert tuple(int(mask.sum()) for mask in groups.values()) == sizes


def test_a_group_is_the_plain_mean_of_its_classes():
    # Class 0: 3 of 4, class 1: 0 of 1, class 2: 1 of 2; all many-shot.
    gt = torch.tensor([0, 0, 0, 0, 1, 2, 2])
    pred = torch.tensor([0, 0, 0, 2, 0, 2, 1])
    shots = shot_accuracy(pred, gt, [200, 200, 200])
    assert float(shots['many']) == pytest.approx((.75 + 0 + .5) / 3)
    assert math.isnan(shots['medium']) and math.isnan(shots['few'])


def test_a_class_without_test_samples_does_not_count_as_wrong():
    gt = torch.tensor([0, 0])
    shots = shot_accuracy(torch.tensor([0, 1]), gt, [200, 200, 5])
    assert float(shots['many']) == .5
    assert math.isnan(shots['few'])
    assert math.isnan(per_class_accuracy(gt, gt, 3)[2])


def test_thresholds_are_arguments():
    shots = shot_accuracy(
        torch.tensor([0, 1, 2]), torch.tensor([0, 1, 1]), [9, 6, 2],
        many=8, few=3)
    assert float(shots['many']) == 1 and float(shots['medium']) == .5


def test_wrong_input_is_named():
    one = torch.zeros(1, dtype=torch.int64)
    with pytest.raises(ValueError, match=r'in \[0, 2\), but they span \[3, 3'):
        shot_accuracy(one, one + 3, [5, 5])
    with pytest.raises(ValueError, match=r'one length.*\(1,\) and \(2,\)'):
        per_class_accuracy(one, torch.zeros(2).long(), 2)
    with pytest.raises(ValueError, match='not negative.*minimum -1'):
        shot_groups([3, -1])
    with pytest.raises(ValueError, match='few=30 and many=10'):
        shot_groups([3, 1], many=10, few=30)
