"""NorCal and IIF against one box and one class at a time."""
import math

import pytest
import torch

from apa_mm.functional import calibrate_scores, logit_offset

COUNTS = torch.tensor([900, 0, 40, 1])
SCORES = torch.randn(7, 5, dtype=torch.float64).softmax(-1)


def slow(weights):
    """Apply the formula of the paper, class by class."""
    rows = []
    for row in SCORES.tolist():
        kept = [p * w for p, w in zip(row[:-1], weights, strict=True)]
        rows.append([p / (sum(kept) + row[-1]) for p in (*kept, row[-1])])
    return torch.tensor(rows, dtype=torch.float64)


@pytest.mark.parametrize('gamma', [0.6, 1.])
def test_norcal_is_the_papers(gamma):
    want = slow([1 / max(n, 1)**gamma for n in COUNTS.tolist()])
    got = calibrate_scores(SCORES, COUNTS, gamma=gamma)
    torch.testing.assert_close(got, want, rtol=1e-6, atol=0)


@pytest.mark.parametrize('method', ['raw', 'smooth', 'rel'])
def test_iif_adds_offsets_to_the_logits_of_classes(method):
    offset = logit_offset(COUNTS.clamp(min=1).double(), method)
    want = slow([math.exp(0.5 * o) for o in offset.tolist()])
    got = calibrate_scores(SCORES, COUNTS.double(), method, gamma=0.5)
    torch.testing.assert_close(got, want)


@pytest.mark.parametrize('method', ['norcal', 'raw'])
def test_no_strength_and_equal_counts_keep_the_order(method):
    torch.testing.assert_close(
        calibrate_scores(SCORES, COUNTS, method, gamma=0.), SCORES)
    got = calibrate_scores(SCORES, torch.full((4, ), 9), method)
    assert torch.equal(got[:, :4].argsort(), SCORES[:, :4].argsort())


def test_scores_of_another_width_are_refused():
    with pytest.raises(ValueError, match=r'C \+ 1 = 5 columns.*\(7, 4\)'):
        calibrate_scores(SCORES[:, 1:], COUNTS)
