"""Tests of the classifier heads: formulas, offsets, state, errors."""
import numpy as np
import pytest
import torch
from mmengine.runner import load_checkpoint
from mmpretrain.models.heads import LinearClsHead
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from support.tiny_classifier import COUNTS as TINY_COUNTS
from support.tiny_classifier import build as build_classifier
from support.tiny_classifier import classifier, runner

from apa_mm.cls.heads import (CosineClsHead, LongTailLinearClsHead,
                              NormalizedLinearClsHead)
from apa_mm.functional.long_tail import LOGIT_OFFSETS
from apa_mm.weights import read_checkpoint

COUNTS = (100, 10, 5)
HEADS = (LongTailLinearClsHead, CosineClsHead, NormalizedLinearClsHead)
RAW = dict(type='raw')
# Adding these to equal logits and taking the softmax gives 1/n, normalised.
RAW_PROBABILITIES = np.array([1, 10, 20]) / 31


def samples(labels):
    return [DataSample().set_gt_label(label) for label in labels]


def with_counts(cls, **kwargs):
    head = cls(3, 8, **kwargs)
    head.set_class_frequency(COUNTS, sum(COUNTS))
    return head


# --- formulas ---
@pytest.fixture
def x():
    return torch.randn(4, 8, dtype=torch.float64)


def cosine(x, weight, squash):
    logits = np.empty((len(x), len(weight)))
    for i, row in enumerate(x.numpy()):
        for k, w in enumerate(weight.detach().numpy()):
            norm = np.sqrt((row**2).sum())
            logits[i, k] = row @ w / ((squash + norm) * np.sqrt((w**2).sum()))
    return logits


@pytest.mark.parametrize('kwargs, scale', [
    ({}, 16), (dict(scale=7.), 7), (dict(learnable_scale=True), 25),
    (dict(learnable_scale=True, scale=9.), 9)])
def test_cosine_head(x, kwargs, scale):
    head = CosineClsHead(3, 8, eps=0., **kwargs).double()
    want = scale * cosine(x, head.fc.weight, squash=1)
    np.testing.assert_allclose(head((x, )).detach(), want)


@pytest.mark.parametrize('kwargs, scale', [
    ({}, 1), (dict(scale=4.), 4), (dict(learnable_scale=True, scale=4.), 4)])
def test_normalized_head(x, kwargs, scale):
    head = NormalizedLinearClsHead(3, 8, eps=0., **kwargs).double()
    want = scale * cosine(x, head.fc.weight, squash=0)
    np.testing.assert_allclose(head((x, )).detach(), want)


@pytest.mark.parametrize('cls, kwargs, numbers, names', [
    (LongTailLinearClsHead, {}, 2_049_000, {'fc.weight', 'fc.bias'}),
    (CosineClsHead, {}, 2_048_000, {'fc.weight'}),
    (CosineClsHead, dict(learnable_scale=True), 2_048_001,
     {'fc.weight', 'fc.temperature'}),
    (NormalizedLinearClsHead, {}, 2_048_000, {'fc.weight'}),
])
def test_counts_of_the_authors_heads(cls, kwargs, numbers, names):
    head = cls(1000, 2048, **kwargs)
    assert set(head.state_dict()) == names
    assert sum(p.numel() for p in head.parameters()) == numbers


def test_the_learnable_scale_is_squared(x):
    head = CosineClsHead(3, 8, learnable_scale=True).double()
    assert head.fc.temperature.item() == 5
    before = head((x, ))
    head.fc.temperature.data.fill_(-10)
    torch.testing.assert_close(head((x, )), before * 4)


@pytest.mark.parametrize('cls', [CosineClsHead, NormalizedLinearClsHead])
def test_zero_vectors_are_finite(cls):
    head = cls(3, 8, learnable_scale=True)
    head.fc.weight.data[1] = 0
    x = torch.rand(2, 8)
    x[0] = 0
    x.requires_grad_()
    out = head((x, ))
    assert (out[0] == 0).all() and (out[:, 1] == 0).all()
    out.sum().backward()
    for grad in (x.grad, head.fc.weight.grad, head.fc.temperature.grad):
        assert torch.isfinite(grad).all()


def test_initial_weights():
    cosine_head = CosineClsHead(1000, 64)
    linear = LongTailLinearClsHead(1000, 64)
    for head in (cosine_head, linear):
        head.init_weights()
    weight = cosine_head.fc.weight
    assert weight.abs().max() <= 1 / 8
    assert weight.std().item() == pytest.approx(1 / 8 / 3**.5, rel=.02)
    # mmpretrain's default for a linear head.
    assert linear.fc.weight.std().item() == pytest.approx(.01, rel=.02)
    head = CosineClsHead(
        1000,
        64,
        init_cfg=dict(type='Normal', layer='CosineClassifier', std=.5))
    head.init_weights()
    assert head.fc.weight.std().item() == pytest.approx(.5, rel=.02)


# --- offsets ---
VECTOR = dict(
    raw=(.139762, 2.442347, 3.135494),
    smooth=(1.138470, 3.355695, 3.961831),
    rel=(-1.897120, 2.351375, 3.091043),
    normit=(-1.124338, 1.359737, 1.711675),
    gombit=(-.711420, 2.397206, 3.113351),
    base2=(.201633, 3.523562, 4.523562),
    base10=(.060698, 1.060698, 1.361728))


@pytest.mark.parametrize('cls', HEADS)
@pytest.mark.parametrize('variant', LOGIT_OFFSETS)
def test_every_variant_reaches_the_prediction(cls, variant):
    head = with_counts(cls, logit_offset=dict(type=variant))
    x = torch.randn(5, 8)
    want = (head((x, )) + torch.tensor(VECTOR[variant])).softmax(1)
    got = torch.stack([s.pred_score for s in head.predict((x, ))])
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)
    labels = [s.pred_label.item() for s in head.predict((x, ))]
    assert labels == want.argmax(1).tolist()


def test_the_default_variant_divides_the_prior_out():
    for logit_offset in (RAW, dict(), dict(tau=1.0)):
        head = with_counts(CosineClsHead, logit_offset=logit_offset)
        score = head.predict((torch.zeros(1, 8), ))[0].pred_score
        np.testing.assert_allclose(score.detach(), RAW_PROBABILITIES, 1e-6)


def test_tau_scales_the_offset():
    head = with_counts(
        CosineClsHead, logit_offset=dict(type='raw', tau=2.))
    score = head.predict((torch.zeros(1, 8), ))[0].pred_score
    want = RAW_PROBABILITIES**2
    np.testing.assert_allclose(score.detach(), want / want.sum(), 1e-6)


def test_training_and_tensor_mode_see_plain_logits():
    plain = LinearClsHead(3, 8)
    head = with_counts(LongTailLinearClsHead, logit_offset=RAW)
    head.fc.load_state_dict(plain.fc.state_dict())
    x = torch.randn(4, 8)
    torch.testing.assert_close(head((x, )), plain((x, )))
    labels = samples([0, 1, 2, 0])
    torch.testing.assert_close(
        head.loss((x, ), labels), plain.loss((x, ), labels))


def test_without_offsets_it_is_mmpretrains_head():
    plain = LinearClsHead(3, 8)
    head = LongTailLinearClsHead(3, 8)
    head.load_state_dict(plain.state_dict())
    head.set_class_frequency([1], 7)  # ignored: it keeps no counts
    assert set(head.state_dict()) == set(plain.state_dict())
    x = torch.randn(4, 8)
    for ours, theirs in zip(
            head.predict((x, )), plain.predict((x, )), strict=True):
        assert torch.equal(ours.pred_score, theirs.pred_score)


def test_counts_travel_in_the_checkpoint():
    source = with_counts(CosineClsHead, logit_offset=RAW)
    target = CosineClsHead(3, 8, logit_offset=RAW)
    target.load_state_dict(source.state_dict())
    torch.testing.assert_close(target.offsets(), source.offsets())


def test_half_logits_are_corrected_in_float32():
    head = with_counts(CosineClsHead, logit_offset=RAW).to(torch.bfloat16)
    x = torch.zeros(1, 8, dtype=torch.bfloat16)
    score = head.predict((x, ))[0].pred_score
    assert score.dtype == torch.float32
    np.testing.assert_allclose(score.detach(), RAW_PROBABILITIES, 1e-6)


@pytest.mark.parametrize('mode', ['loss', 'predict'])
def test_forgotten_counts_end_the_first_use(mode):
    head = CosineClsHead(3, 8, logit_offset=RAW)
    with pytest.raises(
            RuntimeError,
            match="CosineClsHead needs the class counts.*custom_hooks="
            r"\[dict\(type='apa_mm.ClassFrequencyHook'\)\]"):
        getattr(head, mode)((torch.rand(2, 8), ), samples([0, 1]))


def test_a_class_without_images():
    counts = [100, 10, 0]
    head = CosineClsHead(3, 8, logit_offset=RAW)
    with pytest.raises(ValueError, match=r'1 of 3 have none \(classes \[2\]'):
        head.set_class_frequency(counts, 110)
    head = CosineClsHead(3, 8, logit_offset=dict(type='smooth'))
    head.set_class_frequency(counts, 110)
    assert head.offsets()[2].item() == pytest.approx(np.log(111) + 1)


# --- inside a classifier ---
MIXUP = dict(augments=[dict(type='Mixup', alpha=.2)])
LOSSES = [
    dict(type='CrossEntropyLoss'),
    dict(type='LabelSmoothLoss', label_smooth_val=.1, num_classes=3),
    dict(type='apa_mm.BalancedSoftmaxLoss', num_classes=3),
    dict(type='apa_mm.DeferredReweightedLoss', num_classes=3),
]


@pytest.mark.parametrize('train_cfg', [None, MIXUP], ids=['hard', 'mixup'])
@pytest.mark.parametrize('loss', LOSSES, ids=lambda cfg: cfg['type'])
def test_a_training_step_leaves_no_parameter_unused(loss, train_cfg):
    model = build_classifier(
        dict(
            type='apa_mm.CosineClsHead',
            learnable_scale=True,
            loss=loss),
        train_cfg=train_cfg)
    for module in model.modules():
        if hasattr(module, 'set_reweighting'):
            module.set_reweighting(True)
        if hasattr(module, 'set_class_frequency'):
            module.set_class_frequency(COUNTS, 115)
    data = dict(
        inputs=torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8),
        data_samples=samples([0, 1, 2, 0]))
    data = model.data_preprocessor(data, training=True)
    assert ('gt_score' in data['data_samples'][0]) == (train_cfg is not None)
    losses = model(**data, mode='loss')
    assert set(losses) == {'loss'} and losses['loss'].isfinite()
    losses['loss'].backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name


def test_accuracy_and_topk_take_effect():
    head = CosineClsHead(3, 8, cal_acc=True, topk=(1, 2))
    losses = head.loss((torch.rand(4, 8), ), samples([0, 1, 2, 0]))
    assert set(losses) == {'loss', 'accuracy_top-1', 'accuracy_top-2'}


def test_the_hook_gives_the_counts_and_the_checkpoint_keeps_them(tmp_path):
    head = dict(
        type='apa_mm.CosineClsHead',
        logit_offset=RAW,
        loss=dict(type='apa_mm.DeferredReweightedLoss', num_classes=3))
    job = runner(
        tmp_path,
        classifier(head),
        custom_hooks=[
            dict(type='apa_mm.ClassFrequencyHook'),
            dict(type='apa_mm.DeferredReweightingHook', start_epoch=0),
            dict(type='mmengine.EMAHook')
        ])
    job.train()
    saved = read_checkpoint(tmp_path / 'epoch_1.pth').content['state_dict']
    for name in ('head.class_counts', 'head.loss_module.class_counts'):
        assert saved[name].tolist() == list(TINY_COUNTS)
    model = build_classifier(head)
    load_checkpoint(model, str(tmp_path / 'epoch_1.pth'), strict=True)
    want = torch.tensor([8 / 5, 8 / 2, 8 / 1]).log()
    torch.testing.assert_close(model.head.offsets(), want)


def test_forgetting_the_hook_ends_the_first_iteration(tmp_path):
    head = dict(type='apa_mm.CosineClsHead', logit_offset=RAW)
    with pytest.raises(RuntimeError, match='ClassFrequencyHook'):
        runner(tmp_path, classifier(head)).train()


# --- errors ---
@pytest.mark.parametrize('kwargs, error, match', [
    (dict(logit_offset=dict(type='log')), ValueError,
     r"logit_offset\['type'\] must be one of.*'log'"),
    (dict(logit_offset=dict(type='raw', tua=1.)), KeyError,
     r"unknown keys \['tua'\]"),
    (dict(
        logit_offset=RAW,
        loss=dict(type='apa_mm.BalancedSoftmaxLoss', num_classes=3)),
     ValueError, 'the loss is BalancedSoftmaxLoss, which corrects while '
     'training; remove one'),
    (dict(scale=0.), ValueError, 'temperature must be positive'),
])
def test_bad_arguments(kwargs, error, match):
    with pytest.raises(error, match=match):
        MODELS.build(
            dict(
                type='apa_mm.CosineClsHead',
                num_classes=3,
                in_channels=8,
                **kwargs))
