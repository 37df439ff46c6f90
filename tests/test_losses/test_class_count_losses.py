"""Tests of balanced softmax, logit adjustment and deferred re-weighting."""
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmpretrain.models.losses import CrossEntropyLoss, LabelSmoothLoss

from apa_mm.losses import (BalancedSoftmaxLoss, DeferredReweightedLoss,
                           LogitAdjustedLoss)
from apa_mm.registry import MODELS

COUNTS = (100, 10, 5)
LOSSES = (BalancedSoftmaxLoss, LogitAdjustedLoss, DeferredReweightedLoss)
# (1 - beta) / (1 - beta^n) scaled to mean 1, beta = 0.9999, in decimals.
EFFECTIVE = (.09721182, .96775732, 1.93503086)


def build(cls, active=True, **kwargs):
    loss = cls(num_classes=3, **kwargs)
    loss.set_class_frequency(COUNTS, sum(COUNTS))
    if cls is DeferredReweightedLoss:
        loss.set_reweighting(active)
    return loss


@pytest.fixture
def score():
    return torch.randn(6, 3, dtype=torch.float64)


@pytest.fixture
def hard():
    return torch.tensor([0, 1, 2, 2, 0, 0])


@pytest.fixture
def soft():
    return torch.rand(6, 3, dtype=torch.float64).softmax(1)


# --- formulas ---
def test_balanced_softmax_is_a_softmax_with_counts(score, hard):
    terms = score.exp().numpy() * np.array(COUNTS)
    want = -np.log(terms / terms.sum(1, keepdims=True))
    got = build(BalancedSoftmaxLoss)(score, hard, reduction_override='none')
    np.testing.assert_allclose(got, want[range(6), hard])


def test_balanced_softmax_with_soft_targets(score, soft):
    terms = score.exp().numpy() * np.array(COUNTS)
    want = -np.log(terms / terms.sum(1, keepdims=True)) * soft.numpy()
    got = build(BalancedSoftmaxLoss)(score, soft)
    assert got.item() == pytest.approx(want.sum(1).mean())


@pytest.mark.parametrize('tau', [0., .5, 1., 2.])
def test_logit_adjustment(score, hard, tau):
    prior = np.array(COUNTS) / 115
    terms = score.exp().numpy() * prior**tau
    want = -np.log(terms / terms.sum(1, keepdims=True))[range(6), hard]
    got = build(LogitAdjustedLoss, tau=tau)(score, hard)
    assert got.item() == pytest.approx(want.mean())


@pytest.mark.parametrize('weighting, weights', [
    ('effective', EFFECTIVE),
    ('inverse', (1.15, 11.5, 23.)),
])
def test_deferred_weights(score, hard, weighting, weights):
    loss = build(DeferredReweightedLoss, weighting=weighting)
    np.testing.assert_allclose(loss.class_weights(), weights, rtol=1e-6)
    # PyTorch's own weighted mean is what LDAM-DRW trains with.
    want = F.cross_entropy(score, hard, torch.tensor(weights).double())
    torch.testing.assert_close(loss(score, hard), want, rtol=1e-6, atol=0)
    got = loss(score, hard, avg_factor=6)
    torch.testing.assert_close(got, want, rtol=1e-6, atol=0)


def test_deferred_loss_is_plain_before_the_switch(score, hard, soft):
    for target in (hard, soft):
        loss = build(DeferredReweightedLoss, active=False)
        want = F.cross_entropy(score, target)
        torch.testing.assert_close(loss(score, target), want)
        loss.set_reweighting(True)
        assert abs(loss(score, target) - want) > .01
        loss.set_reweighting(False)
        torch.testing.assert_close(loss(score, target), want)


def test_one_hot_targets_equal_labels(score, hard):
    one_hot = F.one_hot(hard, 3)
    for cls in LOSSES:
        for target in (one_hot, one_hot.double()):
            torch.testing.assert_close(
                build(cls)(score, target),
                build(cls)(score, hard))


def test_scale_with_soft_targets(score, soft):
    weights = torch.tensor([1.15, 11.5, 23.]).double()
    per_class = -score.log_softmax(1) * soft * weights
    kwargs = dict(weighting='inverse')
    loss = build(DeferredReweightedLoss, normalize=False, **kwargs)
    torch.testing.assert_close(
        loss(score, soft), per_class.sum() / 6, rtol=1e-6, atol=0)
    # The authors' form: PyTorch does not divide for soft targets.
    torch.testing.assert_close(
        loss(score, soft), F.cross_entropy(score, soft, weights))
    loss = build(DeferredReweightedLoss, **kwargs)
    torch.testing.assert_close(
        loss(score, soft), per_class.sum() / (soft * weights).sum())
    # Equal counts: the switch changes nothing, whatever the weights' scale.
    loss = DeferredReweightedLoss(3, **kwargs)
    loss.set_class_frequency([7, 7, 7], 21)
    loss.set_reweighting(True)
    torch.testing.assert_close(
        loss(score, soft), F.cross_entropy(score, soft))


# --- the contract of mmpretrain's losses ---
def plain(cls, **kwargs):
    """A loss of ours whose counts make it a plain cross entropy."""
    loss = cls(num_classes=3, **kwargs)
    loss.set_class_frequency([4, 4, 4], 12)
    if cls is DeferredReweightedLoss:
        loss.set_reweighting(True)
    return loss


@pytest.mark.parametrize('cls', LOSSES)
def test_balanced_counts_give_mmpretrains_losses(cls, score, hard, soft):
    for target, use_soft in ((hard, False), (soft, True)):
        stock = CrossEntropyLoss(use_soft=use_soft, loss_weight=.5)
        ours = plain(cls, loss_weight=.5)
        sample_weight = torch.rand(6)
        for kwargs in (dict(), dict(avg_factor=4), dict(weight=sample_weight),
                       dict(weight=sample_weight, avg_factor=2.5),
                       dict(reduction_override='none'),
                       dict(reduction_override='sum')):
            torch.testing.assert_close(
                ours(score, target, **kwargs),
                stock(score, target, **kwargs))


@pytest.mark.parametrize('cls', LOSSES)
def test_label_smoothing_equals_mmpretrains(cls, score, hard, soft):
    stock = LabelSmoothLoss(.1, num_classes=3)
    for target in (hard, soft):
        torch.testing.assert_close(
            plain(cls, label_smoothing=.1)(score, target, avg_factor=6),
            stock(score, target, avg_factor=6))


@pytest.mark.parametrize('cls', LOSSES)
@pytest.mark.parametrize('reduction', ['none', 'mean', 'sum'])
def test_reduction(cls, reduction, score, hard):
    each = build(cls)(score, hard, reduction_override='none')
    want = dict(none=each, mean=each.mean(), sum=each.sum())[reduction]
    got = build(cls, reduction=reduction)(score, hard)
    torch.testing.assert_close(got, want)


@pytest.mark.parametrize('cls', LOSSES)
def test_gradcheck(cls, score, soft):
    loss = build(cls, label_smoothing=.1)
    assert torch.autograd.gradcheck(
        lambda s: loss(s, soft), score.requires_grad_())


@pytest.mark.parametrize('cls', LOSSES)
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_logits_are_computed_in_float32(cls, dtype, score, hard):
    half = score.to(dtype)
    got = build(cls)(half, hard)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, build(cls)(half.float(), hard))


@pytest.mark.parametrize('cls', LOSSES)
def test_state_holds_the_counts_alone(cls):
    assert list(build(cls).state_dict()) == ['class_counts']
    built = MODELS.build(dict(type=f'apa_mm.{cls.__name__}', num_classes=3))
    built.load_state_dict(build(cls).state_dict())
    assert built.require_class_counts().tolist() == list(COUNTS)


# --- errors ---
@pytest.mark.parametrize('cls', LOSSES)
def test_forgotten_counts(cls, score, hard):
    loss = cls(num_classes=3)
    if cls is DeferredReweightedLoss:
        loss.set_reweighting(True)
    with pytest.raises(RuntimeError, match='ClassFrequencyHook'):
        loss(score, hard)


def test_forgotten_switch(score, hard):
    loss = DeferredReweightedLoss(3)
    with pytest.raises(RuntimeError, match='DeferredReweightingHook'):
        loss(score, hard)


@pytest.mark.parametrize('call, match', [
    (lambda: BalancedSoftmaxLoss(3, label_smoothing=1.),
     r'label_smoothing must be in \[0, 1\), but got 1.0'),
    (lambda: LogitAdjustedLoss(3, reduction='avg'),
     "reduction must be one of.*'avg'"),
    (lambda: DeferredReweightedLoss(3, weighting='log'),
     "weighting must be one of.*'log'"),
    (lambda: DeferredReweightedLoss(3, beta=1.), r'beta must be in \[0, 1\)'),
    (lambda: build(BalancedSoftmaxLoss)
     (torch.zeros(2, 4), torch.tensor([0, 1])),
     r'num_classes=3, but got logits of shape \(2, 4\)'),
    (lambda: build(BalancedSoftmaxLoss)
     (torch.zeros(2, 3), torch.tensor([0, 1]), avg_factor=2,
      reduction_override='sum'), "avg_factor goes with reduction 'mean'"),
    (lambda: build(BalancedSoftmaxLoss)
     (torch.zeros(2, 3), torch.tensor([0, 1]), reduction_override='max'),
     "reduction_override must be one of.*'max'"),
])
def test_bad_arguments(call, match):
    with pytest.raises(ValueError, match=match):
        call()


def test_logits_of_a_balanced_net_stay_correct():
    # At equal logits the loss of a rare class is the larger one.
    loss = build(BalancedSoftmaxLoss)
    each = loss(torch.zeros(3, 3), torch.arange(3), reduction_override='none')
    want = [math.log(115 / n) for n in COUNTS]
    np.testing.assert_allclose(each, want, rtol=1e-6)
