"""Tests of suppression inside groups."""
from unittest.mock import patch

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip('mmdet')

from torchvision.ops import box_iou  # noqa: E402

from apa_mm.det import nms_groups  # noqa: E402
from apa_mm.det.nms_groups import grouped_nms  # noqa: E402


def greedy(boxes, groups, iou_threshold):
    """Suppress box by box with the full matrix of overlaps."""
    overlaps = box_iou(boxes, boxes)
    kept = []
    for i in range(len(boxes)):
        if all(groups[i] != groups[j] or overlaps[i, j] <= iou_threshold
               for j in kept):
            kept.append(i)
    return kept


@given(
    seed=st.integers(0, 10**6),
    count=st.integers(0, 40),
    num_groups=st.integers(1, 12),
    iou_threshold=st.sampled_from([-0.5, 0.0, 0.2, 0.6]),
    call_size=st.sampled_from([1, 4, 256]))
def test_equals_greedy_loop(seed, count, num_groups, iou_threshold,
                            call_size):
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator) * 20
    size = torch.rand(count, 2, generator=generator) * 20 + 1
    # float32 coordinates in float64, some of them negative
    boxes = torch.cat([corner - 9, corner + size - 9], 1).double()
    groups = torch.randint(
        -5, num_groups - 5, (count, ), generator=generator)
    with patch.multiple(nms_groups, CPU_CALL_SIZE=call_size):
        kept = grouped_nms(boxes, groups, iou_threshold)
    assert kept.tolist() == greedy(boxes, groups, iou_threshold)


@pytest.mark.parametrize('counts, size, spans, lanes', [
    ([3, 2, 4], 0, [(0, 3), (3, 5), (5, 9)], [0, 0, 0]),
    ([3, 2, 4], 4, [(0, 5), (5, 9)], [0, 1, 0]),
    ([3, 2, 4], 99, [(0, 9)], [0, 1, 2]),
    ([9, 1, 1], 4, [(0, 9), (9, 11)], [0, 0, 1]),
    ([5], 4, [(0, 5)], [0])])
def test_groups_share_calls_and_are_never_split(counts, size, spans, lanes):
    found = nms_groups._share_calls(torch.tensor(counts), size)
    assert (found[0], found[1].tolist()) == (spans, lanes)


def test_moving_apart_changes_no_bit_or_is_refused():
    boxes = torch.tensor([[0.1, 0.2, 1333.3, 800.7], [5., 6., 7., 8.]])
    boxes = boxes.repeat(50, 1).double()
    lanes = torch.arange(100)
    moved = nms_groups._move_apart(boxes, lanes)
    assert torch.equal(moved[:, 2] - moved[:, 0], boxes[:, 2] - boxes[:, 0])
    assert torch.equal(moved[:, 1::2], boxes[:, 1::2])
    right = moved[:, 2].view(50, 2).amax(1)
    left = moved[:, 0].view(50, 2).amin(1)
    assert (left[1:] > right[:-1]).all()
    boxes[7, 0] = 1e-20
    assert nms_groups._move_apart(boxes, lanes) is None
    boxes[7, 0] = float('inf')
    assert nms_groups._move_apart(boxes, lanes) is None


def test_many_groups_share_few_calls():
    boxes = torch.rand(1000, 4).double()
    boxes[:, 2:] += boxes[:, :2]
    calls = []

    def kernel(boxes, scores, iou_threshold):
        calls.append(len(boxes))
        return torch.arange(len(boxes))

    with patch.object(nms_groups, 'nms_kernel', kernel):
        kept = grouped_nms(boxes, torch.arange(1000), 0.5)
    assert kept.tolist() == list(range(1000))
    assert len(calls) == 4 and sum(calls) == 1000
