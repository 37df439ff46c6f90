"""Calibration of groups; the bins themselves are tested in functional."""
import math

import numpy as np
import pytest
import torch

from apa_mm.analysis.calibration import (group_calibration,
                                         match_detections)


def test_the_reference_vector_and_its_parts():
    confidences = torch.tensor([0., 0.1, 0.55, 1.])
    correct = torch.tensor([True, True, False, True])
    few = torch.tensor([False, True, True, False])
    found = group_calibration(
        confidences, correct, dict(few=few, many=~few, medium=few & ~few))
    assert list(found) == ['all', 'few', 'many', 'medium']
    assert found['all'].ece == pytest.approx(0.483333, abs=1e-6)
    assert found['all'].mce == pytest.approx(0.9, abs=1e-6)
    assert found['few'].ece == pytest.approx((0.9 + 0.55) / 2)
    assert found['few'].accuracy == 0.5
    assert found['few'].confidence == pytest.approx(0.325)
    assert found['many'].ece == 0 and found['many'].count == 2
    assert math.isnan(found['medium'].ece) and found['medium'].count == 0
    assert found['medium'].bins.counts.sum() == 0


def boxes(*corners):
    return np.array([[x, 0, x + 10, 10] for x in corners], dtype=float)


def test_every_object_is_found_once_by_its_best_detection():
    hits = match_detections(
        boxes(0, 1, 30, 60), np.array([0, 0, 1, 1]),
        np.array([0.3, 0.8, 0.9, 0.7]), boxes(0, 30, 60),
        np.array([0, 0, 1]))
    # 0: its object is taken; 1: takes it; 2: another class; 3: right.
    assert hits.tolist() == [False, True, False, True]


def test_a_second_object_is_taken_by_the_second_detection():
    hits = match_detections(
        boxes(0, 1), np.array([0, 0]), np.array([0.9, 0.8]), boxes(0, 2),
        np.array([0, 0]))
    assert hits.tolist() == [True, True]


@pytest.mark.parametrize('x, hit', [(3.3, True), (3.4, False)])
def test_overlap_of_one_half(x, hit):
    # Shifted by a third of its width, a box overlaps by one half.
    assert match_detections(boxes(x), np.zeros(1), np.ones(1), boxes(0),
                            np.zeros(1)).tolist() == [hit]


def test_nothing_to_match():
    none = np.zeros((0, 4))
    empty = np.zeros(0)
    assert match_detections(none, empty, empty, boxes(0), np.zeros(1)
                            ).tolist() == []
    assert match_detections(boxes(0), np.zeros(1), np.ones(1), none, empty
                            ).tolist() == [False]
