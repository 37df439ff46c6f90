"""Tests of exact NMS against a per-class oracle and against mmdet."""
from fractions import Fraction
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip('mmdet')

from mmcv.ops import batched_nms  # noqa: E402
from mmdet.models.layers import multiclass_nms  # noqa: E402
from support.nms_oracle import assert_same, check, make, oracle  # noqa: E402

from apa_mm.det import nms as nms_module  # noqa: E402
from apa_mm.det import nms_groups, nms_order  # noqa: E402
from apa_mm.det.nms import (  # noqa: E402
    exact_batched_nms, exact_multiclass_nms)

DEVICES = ['cpu'] + ['cuda'] * torch.cuda.is_available()
NMS = dict(type='nms', iou_threshold=0.5)


@settings(max_examples=150)
@given(
    seed=st.integers(0, 10**6),
    num_rois=st.integers(0, 24),
    objects=st.sampled_from([1, 4]),
    num_classes=st.integers(1, 9),
    per_class=st.booleans(),
    grid=st.sampled_from([None, 1.0, 20.0]),
    levels=st.sampled_from([None, 1, 5]),
    thr=st.sampled_from([-1.0, 0.0, 0.05, 0.9]),
    iou_thr=st.sampled_from([0.0, 0.3, 0.5, 0.7, 1.0]),
    max_num=st.sampled_from([-1, 0, 1, 3, 10, 1000]),
    with_factors=st.booleans(),
    offset=st.sampled_from([0, 1]),
    prefix=st.sampled_from([1, 5, 2048]),
    call_size=st.sampled_from([1, 7, 256]),
    block=st.sampled_from([1, 2, 5, 32]),
    group=st.sampled_from([1, 3]))
def test_equals_per_class_oracle(seed, num_rois, objects, num_classes,
                                 per_class, grid, levels, thr, iou_thr,
                                 max_num, with_factors, offset, prefix,
                                 call_size, block, group):
    boxes, scores = make(
        seed, num_rois, num_classes, per_class=per_class, grid=grid,
        levels=levels, objects=objects)
    factors = torch.linspace(1.5, 0.5, num_rois) if with_factors else None
    with patch.multiple(nms_module, MIN_PREFIX=prefix, PREFIX_FACTOR=2), \
            patch.multiple(nms_groups, CPU_CALL_SIZE=call_size), \
            patch.multiple(
                nms_order, BLOCK_ROWS=block, GROUP_BLOCKS=group,
                PAIRS_PER_ENTRY=1):
        result = exact_multiclass_nms(
            boxes, scores, thr,
            dict(type='nms', iou_threshold=iou_thr, offset=offset), max_num,
            factors, return_inds=True)
    expected = oracle(boxes, scores, thr, iou_thr, max_num, factors, offset)
    check(result, expected, boxes, scores, factors)


@settings(max_examples=40)
@given(
    seed=st.integers(0, 10**6),
    num_classes=st.sampled_from([1, 3, 80]),
    per_class=st.booleans(),
    max_num=st.sampled_from([-1, 5, 100]),
    split_thr=st.sampled_from([10, 10000]),
    offset=st.sampled_from([0, 1]),
    score_threshold=st.sampled_from([0, 0.3]))
def test_equals_mmdet_up_to_80_classes(seed, num_classes, per_class, max_num,
                                       split_thr, offset, score_threshold):
    # On a grid of quarter pixels mmdet's class offsets are exact for 80
    # classes (100 * 80 < 2^13, so 10 bits are left); elsewhere they are not.
    boxes, scores = make(
        seed, 30, num_classes, per_class=per_class, grid=0.25)
    cfg = dict(
        type='nms', iou_threshold=0.45, split_thr=split_thr, offset=offset,
        score_threshold=score_threshold)
    args = (boxes, scores, 0.02, cfg, max_num, None, True)
    assert_same(exact_multiclass_nms(*args), multiclass_nms(*args))


def test_mmdet_moves_pixels_at_13204_classes():
    # 13,203 * 1,334 > 2^24: mmdet rounds these coordinates to even numbers,
    # where both boxes become 102..106 by 102..110 and one suppresses the
    # other. Their true IoU is 16 / 64.
    boxes = torch.tensor([[101., 101., 107., 109.], [103., 103., 105., 111.],
                          [0., 0., 1333., 800.]])
    scores = torch.zeros(3, 13205)
    scores[:2, 13203] = torch.tensor([0.9, 0.8])
    scores[2, 0] = 0.7
    expected = oracle(boxes[:2], scores[:2, -3:], 0.05, 0.5)
    assert expected == [1, 3]
    ours = exact_multiclass_nms(boxes, scores, 0.05, NMS, return_inds=True)
    assert ours[1].tolist() == [13203, 13203, 0]
    theirs = multiclass_nms(boxes, scores, 0.05, NMS, return_inds=True)
    assert theirs[1].tolist() == [13203, 0]


def test_many_classes_against_oracle_and_mmdet():
    # 9,000 candidates: below mmdet's split_thr, so mmdet is quick.
    boxes, scores = make(3, 60, 150)
    boxes = boxes * 13
    wide = torch.zeros(60, 13205)
    wide[:, -151:] = scores
    expected = [(i // 150) * 13204 + i % 150 + 13054
                for i in oracle(boxes, scores, 0, 0.5)]
    ours = exact_multiclass_nms(boxes, wide, 0, NMS, return_inds=True)
    check(ours, expected, boxes, wide)
    theirs = multiclass_nms(boxes, wide, 0, NMS, return_inds=True)
    assert set(theirs[2].tolist()) != set(expected)


@pytest.mark.parametrize('device', DEVICES)
def test_equal_scores_follow_the_flat_index(device):
    boxes = torch.tensor([[0., 0., 8., 8.], [20., 0., 28., 8.],
                          [0., 0., 8., 8.]])
    scores = torch.full((3, 3), 0.5)
    _, labels, inds = exact_multiclass_nms(
        boxes.to(device), scores.to(device), 0.05, NMS, 3, return_inds=True)
    # rows 0 and 2 are one box: row 0 wins in both classes
    assert inds.tolist() == [0, 1, 2]
    assert labels.tolist() == [0, 1, 0]


@pytest.mark.parametrize('equal', [False, True])
def test_prefix_grows_until_enough_survive(equal):
    # 40 groups of 10 identical boxes: the first 10 candidates leave 1 box and
    # the next 10 another; with equal scores each prefix ends inside the tie.
    corner = torch.arange(40.).repeat_interleave(10)[:, None] * 4
    boxes = torch.cat([corner, corner, corner + 3, corner + 3], 1)
    scores = torch.full((400, 2), 0.5)
    if not equal:
        scores[:, 0] = torch.linspace(0.9, 0.1, 400)
    with patch.multiple(nms_module, MIN_PREFIX=5, PREFIX_FACTOR=2):
        inds = exact_multiclass_nms(
            boxes, scores, 0, NMS, 5, return_inds=True)[2]
    assert inds.tolist() == [0, 10, 20, 30, 40]


@pytest.mark.parametrize('threshold', [0.3, 0.5, 0.6, 0.7])
def test_iou_equal_to_the_threshold_survives(threshold):
    # IoU of [0, w] and [0, 10] is w / 10 exactly
    part = Fraction(str(threshold)) * 10
    boxes = torch.tensor([[0., 0., 10., 1.], [0., 0., float(part), 1.]])
    scores = torch.tensor([[.9, 0.], [.8, 0.]])
    cfg = dict(type='nms', iou_threshold=threshold)
    assert len(exact_multiclass_nms(boxes, scores, 0.05, cfg)[1]) == 2
    boxes[1, 2] += 1e-5
    assert len(exact_multiclass_nms(boxes, scores, 0.05, cfg)[1]) == 1


def test_tiny_beside_large_coordinates():
    # 1e-20 vanishes when a class is moved by thousands: no shared call then.
    tiny = torch.tensor([[0., 0., 1e-20, 1.], [0., 0., 6e-21, 1.],
                         [0., 0., 4e-21, 1.]])
    boxes = torch.cat([tiny, tiny + 0, torch.tensor([[0., 0., 5e3, 5e3]])])
    scores = torch.zeros(7, 4)
    scores[:3, 0] = torch.tensor([.9, .8, .7])
    scores[3:6, 1] = torch.tensor([.6, .5, .4])
    scores[6, 2] = .3
    move_apart, lanes = nms_groups._move_apart, torch.arange(7)
    assert move_apart(boxes.double(), lanes) is None
    assert move_apart(boxes.round().double(), lanes) is not None
    result = exact_multiclass_nms(boxes, scores, 0, NMS, return_inds=True)
    expected = oracle(boxes, scores, 0, 0.5)
    assert len(expected) == 5
    check(result, expected, boxes, scores)


def test_infinite_coordinates_stay_apart():
    boxes = torch.tensor([[0., 0., 5., 5.], [0., 0., 5., 5.],
                          [0., 0., float('inf'), 5.]])
    scores = torch.tensor([[.9, .8, 0.], [.7, .6, 0.], [.1, 0., 0.]])
    cfg = dict(type='nms', iou_threshold=0.1)
    labels = exact_multiclass_nms(boxes, scores, 0.05, cfg)[1]
    assert labels.tolist() == [0, 1, 0]


def test_only_classes_of_the_prefix_cost_calls():
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(50, 2, generator=generator) * 500
    boxes = torch.cat([corner, corner + 30], 1)
    scores = torch.rand(50, 13205, generator=generator)
    calls = []
    kernel = nms_groups.nms_kernel

    def counted(*args):
        calls.append(len(args[0]))
        return kernel(*args)

    with patch.object(nms_groups, 'nms_kernel', counted):
        dets, _ = exact_multiclass_nms(boxes, scores, 0.1, NMS, 100)
    assert len(dets) == 100
    assert len(calls) <= 10 and sum(calls) <= 2048


@pytest.mark.parametrize('per_class', [False, True])
def test_no_candidates(per_class):
    boxes, scores = make(0, 5, 3, per_class=per_class)
    for rois in (5, 0):
        dets, labels, inds = exact_multiclass_nms(
            boxes[:rois], scores[:rois], 2.0, NMS, 10, return_inds=True)
        assert dets.shape == (0, 5) and dets.dtype == torch.float32
        assert labels.shape == inds.shape == (0, )
        assert labels.dtype == inds.dtype == torch.long
    assert len(exact_multiclass_nms(boxes, scores, 2.0, NMS, 10)) == 2


def test_nan_scores_never_pass():
    boxes, scores = make(1, 8, 3)
    scores[::2] = float('nan')
    result = exact_multiclass_nms(boxes, scores, 0.0, NMS, return_inds=True)
    assert result[2].tolist() == oracle(boxes, scores, 0, 0.5)
    assert set((result[2] // 3).tolist()) <= {1, 3, 5, 7}


def test_factors_count_after_the_threshold():
    boxes = torch.tensor([[0., 0., 8., 8.], [20., 0., 28., 8.]])
    scores = torch.tensor([[.2, 0.], [.1, 0.]])
    factors = torch.tensor([.1, 10.])
    dets, labels = exact_multiclass_nms(
        boxes, scores, 0.15, NMS, score_factors=factors)
    assert dets[:, 4].tolist() == pytest.approx([0.02])
    dets, labels = exact_multiclass_nms(
        boxes, scores, 0.05, NMS, score_factors=factors)
    assert dets[:, 4].tolist() == pytest.approx([1.0, 0.02])


@pytest.mark.parametrize('split_thr', [1, 10000])
def test_class_agnostic_for_any_number_of_candidates(split_thr):
    boxes, scores = make(5, 30, 6)
    # one class whose candidates are those of all six
    flat = torch.stack([scores[:, :-1].reshape(-1), torch.zeros(180)], 1)
    expected = oracle(boxes.repeat_interleave(6, 0), flat, 0.01, 0.5, 20)
    cfg = dict(NMS, class_agnostic=True, split_thr=split_thr)
    result = exact_multiclass_nms(
        boxes, scores, 0.01, cfg, 20, return_inds=True)
    check(result, expected, boxes, scores)
    theirs = multiclass_nms(boxes, scores, 0.01, cfg, 20, return_inds=True)
    assert (theirs[2].tolist() == expected) == (split_thr > 180)


def test_max_num_of_nms_cfg_counts_too():
    boxes, scores = make(6, 20, 4)
    expected = oracle(boxes, scores, 0, 0.5)
    for in_cfg, outside, count in ((3, -1, 3), (-1, 4, 4), (3, 4, 3),
                                   (5, 4, 4)):
        inds = exact_multiclass_nms(
            boxes, scores, 0, dict(NMS, max_num=in_cfg), outside,
            return_inds=True)[2]
        assert inds.tolist() == expected[:count]


def test_iou_thr_is_an_alias():
    boxes, scores = make(6, 20, 4)
    inds = exact_multiclass_nms(
        boxes, scores, 0, dict(type='nms', iou_thr=0.3), return_inds=True)[2]
    assert inds.tolist() == oracle(boxes, scores, 0, 0.3)


@pytest.mark.parametrize('cfg', [
    dict(type='soft_nms', iou_threshold=0.3, min_score=0.05),
    dict(type='nms', iou_threshold=0.5, exact=False),
    dict(type='soft_nms', iou_threshold=0.3, exact=False), None
])
def test_other_kinds_are_left_to_mmdet(cfg):
    boxes, scores = make(7, 20, 4, per_class=True)
    mmdet_cfg = cfg and {k: v for k, v in cfg.items() if k != 'exact'}
    ours = exact_multiclass_nms(boxes, scores, 0.05, cfg, 15, None, True)
    theirs = multiclass_nms(boxes, scores, 0.05, mmdet_cfg, 15, None, True)
    assert_same(ours, theirs)


def test_switch_goes_back_to_mmdets_offsets():
    boxes, scores = make(3, 60, 150)
    wide = torch.zeros(60, 13205)
    wide[:, -151:] = scores
    args = (boxes * 13, wide, 0)
    switched = exact_multiclass_nms(*args, dict(NMS, exact=False))
    assert torch.equal(switched[1], multiclass_nms(*args, NMS)[1])
    assert len(switched[1]) != len(exact_multiclass_nms(*args, NMS)[1])


def test_unknown_keys_are_mmdets_to_refuse():
    boxes, scores = make(7, 20, 4)
    with pytest.raises(TypeError, match='iou_treshold'):
        exact_multiclass_nms(boxes, scores, 0.05, dict(NMS, iou_treshold=0.3))


def test_negative_threshold_keeps_one_box_per_class():
    boxes, scores = make(7, 20, 4)
    cfg = dict(type='nms', iou_threshold=-0.5)
    inds = exact_multiclass_nms(boxes, scores, 0, cfg, return_inds=True)[2]
    best = scores[:, :4].argmax(0) * 4 + torch.arange(4)
    assert sorted(inds.tolist()) == sorted(best.tolist())


def test_rotated_boxes_are_left_to_mmdet():
    boxes, scores = make(8, 12, 2)
    rotated = torch.cat([boxes, torch.rand(12, 1)], 1)
    cfg = dict(type='nms_rotated', iou_threshold=0.1)
    ours = exact_multiclass_nms(rotated, scores, 0.05, cfg, 5, box_dim=5)
    theirs = multiclass_nms(rotated, scores, 0.05, cfg, 5, box_dim=5)
    assert ours[0].shape[1] == 6 and torch.equal(ours[0], theirs[0])


def test_onnx_export_is_left_to_mmdet():
    boxes, scores = make(8, 12, 2)
    args = (boxes, scores, 0.5, NMS, 50)
    with patch('torch.onnx.is_in_onnx_export', return_value=True):
        exported = exact_multiclass_nms(*args)
        assert torch.equal(exported[0], multiclass_nms(*args)[0])
    # mmdet exports without the threshold, so the two differ
    assert len(exported[0]) > len(exact_multiclass_nms(*args)[0])


def test_gradients_are_mmdets():
    boxes, scores = make(9, 20, 3, per_class=True, grid=0.25)
    boxes.requires_grad_()
    scores.requires_grad_()
    grads = []
    for function in (exact_multiclass_nms, multiclass_nms):
        dets, _ = function(boxes, scores, 0.05, NMS, 10)
        weight = torch.arange(dets.numel()).view_as(dets)
        grads.append(torch.autograd.grad((dets * weight).sum(),
                                         (boxes, scores)))
    assert grads[0][0].any() and grads[0][1].any()
    assert torch.equal(grads[0][0], grads[1][0])
    assert torch.equal(grads[0][1], grads[1][1])


@pytest.mark.parametrize('dtype', [torch.float16, torch.float64])
def test_other_dtypes(dtype):
    boxes, scores = make(10, 40, 60)
    boxes, scores = boxes.to(dtype), scores.to(dtype)
    with patch.multiple(nms_module, MIN_PREFIX=5):
        result = exact_multiclass_nms(
            boxes, scores, 0.5, NMS, 30, return_inds=True)
    assert result[0].dtype == dtype
    check(result, oracle(boxes, scores, 0.5, 0.5, 30), boxes, scores)


def test_non_contiguous_input():
    boxes, scores = make(11, 20, 5, per_class=True)
    expected = oracle(boxes, scores, 0.01, 0.5)
    result = exact_multiclass_nms(
        boxes.t().contiguous().t(), scores.t().contiguous().t(), 0.01, NMS,
        return_inds=True)
    check(result, expected, boxes, scores)


@pytest.mark.parametrize('boxes, scores, cfg, error, match', [
    ((5, 8), (5, 4), NMS, ValueError, r'\(5, 4\) or \(5, 12\).*\(5, 8\)'),
    ((4, 4), (5, 4), NMS, ValueError, r'but got \(4, 4\)'),
    ((5, 4), (5, 4), dict(type='nms'), KeyError, 'lacks iou_threshold'),
    ((5, 4), (5, 4), dict(NMS, offset=2), ValueError, 'offset must be 0 or 1'),
])
def test_mistakes(boxes, scores, cfg, error, match):
    with pytest.raises(error, match=match):
        exact_multiclass_nms(
            torch.rand(boxes), torch.rand(scores), 0.05, cfg)


@settings(max_examples=40)
@given(
    seed=st.integers(0, 10**6),
    max_num=st.sampled_from([-1, 7]),
    score_threshold=st.sampled_from([0, 0.2]),
    prefix=st.sampled_from([4, 2048]))
def test_batched_equals_mmcv(seed, max_num, score_threshold, prefix):
    boxes, scores = make(seed, 60, 1, grid=0.25)
    scores = scores[:, 0]
    groups = torch.from_numpy(
        np.random.default_rng(seed).integers(0, 5, 60))
    cfg = dict(NMS, score_threshold=score_threshold)
    with patch.multiple(nms_module, MIN_PREFIX=prefix):
        dets, keep = exact_batched_nms(boxes, scores, groups, cfg, max_num)
    expected, inds = batched_nms(boxes, scores, groups, cfg)
    if max_num > 0:
        expected, inds = expected[:max_num], inds[:max_num]
    assert torch.equal(dets, expected) and torch.equal(keep, inds)


def test_batched_refuses_other_kinds():
    with pytest.raises(ValueError, match='hard NMS of xyxy boxes only'):
        exact_batched_nms(
            torch.rand(3, 4), torch.rand(3), torch.zeros(3),
            dict(type='soft_nms', iou_threshold=0.5))
