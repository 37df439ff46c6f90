"""EQLv2 on the contract of box heads, against mmdet's class and a loop."""
import copy

import pytest
import torch

pytest.importorskip('mmdet')

from mmdet.models.losses import EQLV2Loss as Theirs  # noqa: E402

from apa_mm.det.bbox_head import LargeVocabBBoxHead  # noqa: E402
from apa_mm.registry import MODELS  # noqa: E402

C = 4


def make(**kwargs):
    return MODELS.build(
        dict(type='apa_mm.EQLV2Loss', num_classes=C, **kwargs))


def batch():
    return (torch.randn(6, C + 1, requires_grad=True),
            torch.tensor([0, 3, C, C, 2, 0]))


def test_without_weights_it_is_mmdets():
    ours, theirs = make(), Theirs(num_classes=C)
    for _ in range(3):
        scores, labels = batch()
        value, want = (loss(scores, labels) for loss in (ours, theirs))
        torch.testing.assert_close(value, want)
        torch.testing.assert_close(torch.autograd.grad(value, scores),
                                   torch.autograd.grad(want, scores))
    assert (ours.pos_neg != 100).any()
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict())


def test_a_roi_of_weight_zero_is_not_there():
    scores, labels = batch()
    ours, theirs = make(), make()
    for _ in range(2):
        value = ours(scores, labels, torch.tensor([1., 1, 0, 1, 0, 1]), 4.)
        kept = [0, 1, 3, 5]
        want = theirs(scores[kept], labels[kept])
        torch.testing.assert_close(value, want)
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict())


def test_scores_are_sigmoids_times_foreground():
    scores = torch.randn(3, C + 1)
    got = make().get_activation(scores)
    for row, values in zip(got, scores.double().sigmoid(), strict=True):
        for c in range(C):
            assert row[c] == pytest.approx(
                float(values[c] * (1 - values[C])), rel=1e-5)
    assert make().get_cls_channels(C) == C + 1


def test_accuracy_is_that_of_the_foreground():
    scores = torch.eye(C + 1)[[0, 1, C, 2]]
    labels = torch.tensor([0, 2, 1, C])
    acc = make().get_accuracy(scores, labels)['acc_classes']
    assert float(acc) == pytest.approx(100 / 3)
    assert make().get_accuracy(scores, torch.full((4, ), C))[
        'acc_classes'] == 0


def test_other_reductions_are_refused():
    with pytest.raises(ValueError, match="must be None or 'mean'.*'none'"):
        make()(*batch(), reduction_override='none')


def test_a_box_head_trains_with_it_and_can_be_copied():
    head = LargeVocabBBoxHead(
        in_channels=4, roi_feat_size=2, fc_out_channels=8, num_classes=C,
        loss_cls=dict(type='apa_mm.EQLV2Loss', num_classes=C))
    assert head.fc_cls.out_features == C + 1
    cls_score, bbox_pred = head(torch.randn(6, 4, 2, 2))
    losses = head.loss(cls_score, bbox_pred, torch.rand(6, 5), batch()[1],
                       torch.ones(6), torch.zeros(6, 4), torch.zeros(6, 4))
    assert {'loss_cls', 'acc_classes'} <= losses.keys()
    losses['loss_cls'].backward()
    assert head.fc_cls.weight.grad.abs().sum() > 0
    copy.deepcopy(head)
