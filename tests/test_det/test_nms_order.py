"""Tests of the total order of scores against Python's sort."""
from unittest.mock import patch

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip('mmdet')

from apa_mm.det import nms_order  # noqa: E402
from apa_mm.det.nms_order import ScoredPairs, best  # noqa: E402


def make_scores(seed, *shape, levels=None):
    scores = torch.rand(shape, generator=torch.Generator().manual_seed(seed))
    return (scores * levels).round() / levels if levels else scores


def sorted_places(scores, score_thr, factors=None, final_thr=0.0):
    """Return all places in the total order, by Python's sort."""
    num_rois, width = scores.shape
    found = []
    for roi in range(num_rois):
        for label in range(width - 1):
            final = scores[roi, label]
            if final > score_thr:
                final = final * (1 if factors is None else factors[roi])
                if final > final_thr or final_thr <= 0:
                    found.append((-float(final), roi * width + label))
    return [place for _, place in sorted(found)]


@given(seed=st.integers(0, 10**6), size=st.integers(0, 40),
       count=st.integers(1, 50), levels=st.sampled_from([None, 1, 4]))
def test_best_is_a_prefix_of_the_sorted(seed, size, count, levels):
    scores = make_scores(seed, size, levels=levels)
    expected = sorted(range(size), key=lambda i: (-float(scores[i]), i))
    assert best(scores, count).tolist() == expected[:count]


@given(
    seed=st.integers(0, 10**6),
    num_rois=st.sampled_from([0, 1, 2, 7, 12]),
    num_classes=st.integers(1, 6),
    levels=st.sampled_from([None, 1, 3]),
    score_thr=st.sampled_from([-1.0, 0.0, 0.4, 0.99]),
    final_thr=st.sampled_from([0.0, 0.5]),
    with_factors=st.booleans(),
    count=st.sampled_from([0, 1, 3, 9, 30, 100]),
    block=st.sampled_from([1, 3, 16]),
    group=st.sampled_from([1, 2, 4]),
    pairs_per_entry=st.sampled_from([1, 10**6]))
def test_first_is_a_prefix_of_the_sorted(seed, num_rois, num_classes, levels,
                                         score_thr, final_thr, with_factors,
                                         count, block, group,
                                         pairs_per_entry):
    scores = make_scores(seed, num_rois, num_classes + 1, levels=levels)
    factors = torch.linspace(1.5, 0.5, num_rois) if with_factors else None
    expected = sorted_places(scores, score_thr, factors, final_thr)
    with patch.multiple(
            nms_order,
            BLOCK_ROWS=block,
            GROUP_BLOCKS=group,
            PAIRS_PER_ENTRY=pairs_per_entry):
        pairs = ScoredPairs(scores, score_thr, factors, final_thr)
        places, more = pairs.first(count)
    assert places.tolist() == (expected[:count] if count else expected)
    # "more" may be said in vain, for a search stops at the count, but a
    # prefix that is not everything must say so
    if 0 < count < len(expected):
        assert more
    if count == 0 or count > len(expected):
        assert not more


def test_search_looks_into_few_scores():
    scores = make_scores(0, 100, 2001)
    scores[:, -1] = 2.0  # the background has the best scores
    pairs = ScoredPairs(scores, 0.1)
    with patch.object(ScoredPairs, '_above', side_effect=AssertionError):
        places, more = pairs.first(50)
    assert more
    top = scores[:, :-1].flatten().topk(50).values
    assert torch.equal(pairs.at(places), top)
    assert pairs.split(places)[1].max() < 2000


@pytest.mark.parametrize('num_rois', [1, 15, 17, 70])
def test_search_with_fewer_rois_than_a_block_or_group_has(num_rois):
    scores = make_scores(0, num_rois, 4001)
    pairs = ScoredPairs(scores, 0.1)
    with patch.object(ScoredPairs, '_above', side_effect=AssertionError):
        places, _ = pairs.first(30)
    assert places.tolist() == sorted_places(scores, 0.1)[:30]


def test_search_orders_equal_scores_by_place():
    scores = torch.full((20, 6), 0.5)
    with patch.multiple(nms_order, PAIRS_PER_ENTRY=1):
        places, _ = ScoredPairs(scores, 0.1).first(8)
    # five classes per RoI, then the column of the background
    assert places.tolist() == [0, 1, 2, 3, 4, 6, 7, 8]


def test_search_heeds_the_final_threshold():
    scores = torch.linspace(0.9, 0.1, 40)[:, None].repeat(1, 2)
    with patch.multiple(nms_order, PAIRS_PER_ENTRY=1, BLOCK_ROWS=1):
        places, more = ScoredPairs(scores, 0.0, final_thr=0.5).first(30)
    assert not more and len(places) == 20


def test_search_leaves_the_rest_to_the_full_list():
    scores = make_scores(0, 40, 101)
    scores[3, 3] = float('nan')
    expected = sorted_places(scores, 0.1)
    with patch.multiple(nms_order, PAIRS_PER_ENTRY=1):
        places, more = ScoredPairs(scores, 0.1).first(20)
    assert more and places.tolist() == expected[:20]


def test_scores_carry_gradients():
    scores = make_scores(0, 4, 4).requires_grad_()
    factors = torch.tensor([1., 2., 3., 4.], requires_grad=True)
    pairs = ScoredPairs(scores, 0.0, factors)
    pairs.at(torch.tensor([0, 9])).sum().backward()
    assert scores.grad.nonzero().tolist() == [[0, 0], [2, 1]]
    assert scores.grad[2, 1] == 3.0
    assert factors.grad.tolist() == [scores[0, 0].item(), 0.0,
                                     scores[2, 1].item(), 0.0]
