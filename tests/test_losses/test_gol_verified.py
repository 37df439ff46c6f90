"""GOL that drops negatives only where a class was not looked for."""
import pytest
import torch

from apa_mm.losses import GOLLoss

C = 4
RARE = (1, 3)


def make(**kwargs):
    loss = GOLLoss(C, **kwargs)
    loss.set_class_frequency([500, 1, 40, 1], 1000)
    return loss


def slow(scores, labels, images, keep_rare):
    """Sum the kept elements one by one; half of it is the definition."""
    total, row = 0., 0
    for verified, size in images:
        for _ in range(size):
            for j in range(C):
                p = torch.exp(-torch.exp(-scores[row, j]))
                if labels[row] == j:
                    total = total - p.log()
                elif not (j in RARE and j not in verified
                          and not (labels[row] == C and keep_rare)):
                    total = total - (1 - p).log()
            row += 1
    return total / row


@pytest.mark.parametrize('labels, keep_rare', [
    ([0, 2, C, C, 0], False),  # no foreground is rare: ratio 0
    ([1, 3, C, C, 3], True),  # all of it is: ratio 1, of the batch
])
def test_value_and_gradient_are_those_of_the_slow_form(labels, keep_rare):
    scores = torch.randn(5, C, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor(labels)
    images = [([0, 1], 2), ([], 0), ([3, 2], 3)]
    loss = make(unverified_only=True)
    loss.set_verified(*zip(*images, strict=True))
    value = loss(scores, labels)
    expected = slow(scores, labels, images, keep_rare)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(torch.autograd.grad(value, scores),
                               torch.autograd.grad(expected, scores))


def test_everything_verified_drops_nothing_and_nothing_verified_is_gol():
    scores, labels = torch.randn(6, C), torch.tensor([0, 2, C, 2, C, 0])
    loss = make(unverified_only=True)
    loss.set_verified([range(C), range(C)], [4, 2])
    torch.testing.assert_close(loss(scores, labels),
                               make(rare_threshold=0)(scores, labels))
    loss.set_verified([[], []], [4, 2])
    torch.testing.assert_close(loss(scores, labels), make()(scores, labels))


def test_it_has_to_be_told_of_every_batch():
    scores, labels = torch.randn(2, C), torch.tensor([0, C])
    loss = make(unverified_only=True)
    loss.set_verified([[0]], [2])
    loss(scores, labels)
    with pytest.raises(RuntimeError, match="told of 0 RoIs, but got 2; set "
                       "roi_head.type='apa_mm.FederatedRoIHead'"):
        loss(scores, labels)
    assert loss.eval()(scores, labels) > 0
