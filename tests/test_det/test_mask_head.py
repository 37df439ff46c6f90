"""Tests of ClasswiseFCNMaskHead against mmdet's FCNMaskHead."""
import copy
import inspect
import logging
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

pytest.importorskip('mmdet')

from mmdet.models.layers import NormedConv2d  # noqa: E402
from mmdet.models.roi_heads.mask_heads import FCNMaskHead  # noqa: E402
from mmdet.registry import MODELS as MMDET_MODELS  # noqa: E402
from mmdet.structures.mask import BitmapMasks  # noqa: E402
from mmdet.testing import demo_mm_inputs  # noqa: E402
from mmengine.config import ConfigDict  # noqa: E402
from mmengine.logging import MMLogger  # noqa: E402
from mmengine.structures import InstanceData  # noqa: E402
from support.tiny_detectors import box_heads, build, predict, tiny_cfg  # noqa: E402

from apa_mm.det.mask_head import ClasswiseFCNMaskHead  # noqa: E402

#: The task: the same to 1e-10 in float64.
TOL = dict(rtol=0, atol=1e-10)
#: mmdet 3.3 misspells it, its successor does not.
TEMPERATURE = next(
    name for name in ('temperature', 'tempearture')
    if name in inspect.signature(NormedConv2d.__init__).parameters)


class SquaredTemperature(NormedConv2d):
    """A cosine predictor of a third party, learnable as in the paper."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        setattr(self, TEMPERATURE, nn.Parameter(torch.tensor(4.5)))

    def forward(self, x):
        weight = self.weight / (self.weight.norm(dim=1, keepdim=True) + 1e-6)
        x = x / (x.norm(dim=1, keepdim=True) + 1e-6)
        scale = getattr(self, TEMPERATURE)**2
        return self._conv_forward(x * scale, weight, self.bias)


class Competing(nn.Module):
    """A predictor whose channels depend on each other."""

    def __init__(self, in_channels, out_channels, kernel_size):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size)

    def forward(self, x):
        x = self.conv(x)
        return x - x.mean(1, keepdim=True)


PREDICTORS = dict(
    plain=dict(type='Conv'),
    normed=dict(type='mmdet.NormedConv2d', power=0.9, **{TEMPERATURE: 15}),
    cosine=dict(type='apa_mm.CosineConv2d', temperature=15.0),
    learned=dict(type='apa_mm.CosineConv2d', learnable_temperature=True),
    third_party=dict(type=SquaredTemperature),
    unknown=dict(type=Competing))


def make_heads(num_classes=13, **kwargs):
    """Return our head and mmdet's in float64 with the same weights."""
    kwargs = dict(
        num_convs=1, in_channels=6, conv_out_channels=6,
        num_classes=num_classes) | kwargs
    ours, theirs = ClasswiseFCNMaskHead(**kwargs), FCNMaskHead(**kwargs)
    theirs.double().init_weights()
    ours.double().load_state_dict(theirs.state_dict())
    return ours, theirs


def make_boxes(count):
    corner = torch.rand(count, 2) * 20
    return torch.cat([corner, corner + 4 + torch.rand(count, 2) * 15], 1)


def training_batch(*counts, num_classes=13):
    """Return sampling results, ground truth and train_cfg of some images."""
    sampling, truth = [], []
    rng = np.random.default_rng(0)
    for count in counts:
        sampling.append(SimpleNamespace(
            pos_priors=make_boxes(count),
            pos_assigned_gt_inds=torch.randint(2, (count, )),
            pos_gt_labels=torch.randint(num_classes, (count, ))))
        masks = rng.integers(0, 2, (2, 40, 40), dtype=np.uint8)
        truth.append(InstanceData(masks=BitmapMasks(masks, 40, 40)))
    return sampling, truth


def mask_loss(head, x, sampling, truth):
    """Return the loss as StandardRoIHead computes it."""
    out = head.loss_and_target(
        head(x), sampling, truth, ConfigDict(mask_size=2 * x.size(-1)
                                             if head.upsample else x.size(-1)))
    return out['loss_mask']['loss_mask'], out['mask_targets']


@pytest.mark.parametrize('predictor', PREDICTORS)
def test_loss_and_gradients_are_mmdets(predictor):
    ours, theirs = make_heads(predictor_cfg=PREDICTORS[predictor])
    check_training(ours, theirs)


@pytest.mark.parametrize('kwargs', [
    dict(upsample_cfg=dict(type='nearest', scale_factor=2)),
    dict(upsample_cfg=dict(type='bilinear', scale_factor=2)),
    dict(upsample_cfg=dict(type=None)),
    dict(class_agnostic=True),
    dict(num_convs=0),
    dict(loss_mask=dict(
        type='CrossEntropyLoss', use_mask=True, loss_weight=0.3)),
])
def test_variants_train_like_mmdets(kwargs):
    check_training(*make_heads(**kwargs))


def check_training(ours, theirs):
    batch = training_batch(5, 3)
    x = torch.randn(8, 6, 5, 5, dtype=torch.float64)
    results = []
    for head in (ours, theirs):
        feed = x.clone().requires_grad_()
        loss, targets = mask_loss(head, feed, *batch)
        loss.backward()
        grads = {n: p.grad for n, p in head.named_parameters()}
        results.append((loss, targets, feed.grad, grads))
    (loss, targets, grad, grads), (loss0, targets0, grad0, grads0) = results
    assert loss0 > 0 and grad0.any() and targets0.any()
    torch.testing.assert_close(loss, loss0, **TOL)
    torch.testing.assert_close(targets, targets0, **TOL)
    torch.testing.assert_close(grad, grad0, **TOL)
    assert grads.keys() == grads0.keys()
    for name in grads0:
        torch.testing.assert_close(grads[name], grads0[name], **TOL)


@pytest.mark.parametrize('predictor', PREDICTORS)
@pytest.mark.parametrize('threshold', [0.5, -1])
def test_masks_are_mmdets(predictor, threshold):
    check_masks(
        *make_heads(predictor_cfg=PREDICTORS[predictor]), threshold, True)


@pytest.mark.parametrize('rescale', [False, True])
@pytest.mark.parametrize('kwargs', [
    dict(upsample_cfg=dict(type='bilinear', scale_factor=2)),
    dict(class_agnostic=True)])
def test_variants_predict_like_mmdets(kwargs, rescale):
    check_masks(*make_heads(**kwargs), -1, rescale)


def check_masks(ours, theirs, threshold, rescale):
    counts = (4, 0, 3)
    x = torch.randn(7, 6, 5, 5, dtype=torch.float64)
    results = [
        InstanceData(
            bboxes=make_boxes(n), labels=torch.randint(13, (n, )),
            scores=torch.rand(n)) for n in counts
    ]
    metas = [dict(ori_shape=(30, 50), scale_factor=(1.25, 0.8))] * 3
    masks = []
    for head in (ours, theirs):
        with torch.no_grad():
            out = head.predict_by_feat(
                head(x).split(counts), copy.deepcopy(results), metas,
                ConfigDict(mask_thr_binary=threshold), rescale)
        masks.append([o.masks for o in out])
    size = (30, 50) if rescale else (24, 62)
    assert masks[1][0].shape == (4, *size) and masks[1][0].any()
    for a, b in zip(*masks, strict=True):
        assert a.dtype == b.dtype
        assert torch.equal(a, b)


def test_no_positive_rois_reach_every_parameter():
    for predictor in PREDICTORS.values():
        head, _ = make_heads(predictor_cfg=predictor)
        loss, _ = mask_loss(
            head, torch.zeros(0, 6, 5, 5, dtype=torch.float64),
            *training_batch(0, 0))
        loss.backward()
        assert loss == 0
        # distributed training fails on parameters without a gradient
        assert all(p.grad is not None for p in head.parameters())


@pytest.mark.parametrize('kwargs', [
    dict(), dict(predictor_cfg=PREDICTORS['learned']),
    dict(upsample_cfg=dict(type='bilinear', scale_factor=2)),
    # mmcv has no CPU kernel for CARAFE: its forward is not run here
    dict(upsample_cfg=dict(
        type='carafe', scale_factor=2, up_kernel=5, up_group=1,
        encoder_kernel=3, encoder_dilation=1, compressed_channels=4))])
def test_state_dicts_interchange(kwargs):
    ours, theirs = make_heads(**kwargs)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for value in theirs.state_dict().values():
        value.add_(1.0)
    ours.load_state_dict(theirs.state_dict())
    theirs.load_state_dict(ours.state_dict())
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(a, b)


class Warnings(logging.Handler):
    """Collects the warnings of mmengine's logger."""

    def __init__(self):
        super().__init__(logging.WARNING)
        self.messages = []

    def emit(self, record):
        self.messages.append(record.getMessage())

    def __enter__(self):
        MMLogger.get_current_instance().addHandler(self)
        return self.messages

    def __exit__(self, *exc_info):
        MMLogger.get_current_instance().removeHandler(self)


def test_unknown_predictor_warns_once():
    with Warnings() as messages:
        head, _ = make_heads(predictor_cfg=PREDICTORS['unknown'])
        x = torch.randn(2, 6, 5, 5, dtype=torch.float64)
        for _ in range(3):
            head.logits_of(head(x), torch.tensor([0, 1]))
        for name in PREDICTORS.keys() - {'unknown'}:
            make_heads(predictor_cfg=PREDICTORS[name])
        for quiet in (dict(class_agnostic=True), dict(classwise=False)):
            ClasswiseFCNMaskHead(
                predictor_cfg=PREDICTORS['unknown'], **quiet)
    assert len(messages) == 1
    assert 'cannot compute single channels of Competing' in messages[0]


class Largest(TorchDispatchMode):
    """Counts the numbers of the largest tensor made."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for t in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(t, torch.Tensor):
                self.numel = max(self.numel, t.numel())
        return out


@pytest.mark.parametrize('predictor', sorted(PREDICTORS.keys() - {'unknown'}))
def test_no_tensor_grows_with_the_classes(predictor):
    sizes = {}
    for num_classes in (80, 1203):
        head, _ = make_heads(
            num_classes, predictor_cfg=PREDICTORS[predictor])
        batch = training_batch(8, num_classes=num_classes)
        x = torch.randn(8, 6, 7, 7, dtype=torch.float64)
        with Largest() as largest:
            loss, _ = mask_loss(head, x, *batch)
            loss.backward()
        sizes[num_classes] = largest.numel
    # 80 classes: 8 x 80 x 14 x 14 = 125,440 numbers if all are computed;
    # 1,203: the weight has 7,218
    assert sizes[80] == sizes[1203] < 8 * 80 * 14 * 14 / 5


def test_saved_bytes_at_1203_are_those_at_80():
    saved = {}
    for num_classes in (80, 1203):
        head, theirs = make_heads(num_classes)
        batch = training_batch(30, num_classes=num_classes)
        x = torch.randn(30, 6, 7, 7, dtype=torch.float64)
        for name, h in (('ours', head), ('mmdet', theirs)):
            storages = {}

            def pack(tensor, storages=storages):
                storage = tensor.untyped_storage()
                storages[storage.data_ptr()] = storage.nbytes()
                return tensor

            with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
                mask_loss(h, x, *batch)
            saved[name, num_classes] = sum(storages.values())
    assert saved['ours', 1203] <= 1.2 * saved['ours', 80]
    assert saved['ours', 1203] <= saved['mmdet', 80]


def test_activated_maps_are_refused():
    head, _ = make_heads()
    results = [InstanceData(
        bboxes=make_boxes(1), labels=torch.tensor([0]), scores=torch.ones(1))]
    with pytest.raises(ValueError, match='set classwise=False'):
        head.predict_by_feat(
            [np.zeros((1, 6, 10, 10))], results, [dict(
                ori_shape=(9, 9), scale_factor=(1, 1))],
            ConfigDict(mask_thr_binary=0.5), activate_map=True)


def detectors(name, **mask_head):
    """Return a detector with our mask head and mmdet's, same weights."""
    cfg = tiny_cfg(name)
    theirs = build(cfg.copy())
    for head in box_heads(cfg):
        head.type = 'apa_mm.LargeVocabBBoxHead'
    cfg.roi_head.mask_head.update(
        type='apa_mm.ClasswiseFCNMaskHead', **mask_head)
    ours = build(cfg)
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def losses(model, data):
    """Return losses and gradients of one training step."""
    torch.manual_seed(3)
    np.random.seed(3)
    model.train()
    data = model.data_preprocessor(data, True)
    found = model.loss(data['inputs'], data['data_samples'])
    parsed, _ = model.parse_losses(found)
    parsed.backward()
    return found, {n: p.grad for n, p in model.named_parameters()}


@pytest.mark.parametrize('name', ['mask-rcnn', 'cascade-mask-rcnn'])
def test_detectors_train_alike(name):
    results = []
    for model in detectors(name):
        data = demo_mm_inputs(
            2, [(3, 64, 96), (3, 96, 64)], num_classes=7, with_mask=True)
        results.append(losses(model, data))
    (found, grads), (expected, expected_grads) = results
    assert any('loss_mask' in key for key in expected)
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=1e-5, atol=1e-6)
    for key, value in expected_grads.items():
        if value is None:
            assert grads[key] is None
        else:
            torch.testing.assert_close(
                grads[key], value, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize('name, kwargs', [
    ('mask-rcnn', dict()), ('mask-rcnn', dict(classwise=False)),
    ('cascade-mask-rcnn', dict(classwise=False))])
def test_detectors_find_the_same_masks(name, kwargs):
    ours, theirs = detectors(name, **kwargs)
    data = demo_mm_inputs(2, [(3, 64, 96), (3, 96, 64)], num_classes=7)
    for a, b in zip(predict(ours, data), predict(theirs, data), strict=True):
        assert len(b) == 20 and b.masks.any() and not b.masks.all()
        assert torch.equal(a.bboxes, b.bboxes)
        assert (a.masks != b.masks).float().mean() < 1e-4


def test_cascade_says_what_to_do_at_test():
    ours, _ = detectors('cascade-mask-rcnn')
    data = demo_mm_inputs(1, [(3, 64, 96)], num_classes=7)
    with pytest.raises(ValueError, match='set classwise=False in mask_head'):
        predict(ours, data)


def test_resolves_from_mmdets_registry():
    head = MMDET_MODELS.build(dict(
        type='apa_mm.ClasswiseFCNMaskHead', num_convs=0, in_channels=4,
        conv_out_channels=4, num_classes=3,
        predictor_cfg=dict(type='apa_mm.CosineConv2d')))
    assert type(head) is ClasswiseFCNMaskHead
    assert head.conv_logits.scale == 20.0


def test_the_right_spelling_of_mmdets_successor(monkeypatch):
    ours, theirs = make_heads(predictor_cfg=PREDICTORS['normed'])
    for head in (ours, theirs):
        value = head.conv_logits.__dict__.pop(TEMPERATURE)
        head.conv_logits.temperature = value
    if TEMPERATURE == 'tempearture':
        # mmdet's own forward reads its own spelling.
        monkeypatch.setattr(
            NormedConv2d, TEMPERATURE,
            property(lambda self: self.temperature), raising=False)
    check_training(ours, theirs)


def test_mask_scoring_trains_and_predicts_like_mmdets():
    cfg = tiny_cfg('mask-rcnn')
    cfg.type = 'MaskScoringRCNN'
    cfg.roi_head.type = 'MaskScoringRoIHead'
    cfg.roi_head.mask_iou_head = dict(
        type='MaskIoUHead', num_convs=2, num_fcs=1, in_channels=16,
        conv_out_channels=16, fc_out_channels=16, num_classes=7)
    cfg.train_cfg.rcnn.mask_thr_binary = 0.5
    theirs = build(copy.deepcopy(cfg))
    cfg.roi_head.mask_head.type = 'apa_mm.ClasswiseFCNMaskHead'
    ours = build(cfg)
    ours.load_state_dict(theirs.state_dict())
    results = []
    for model in (ours, theirs):
        torch.manual_seed(1)
        np.random.seed(1)
        data = demo_mm_inputs(
            2, image_shapes=[[3, 128, 128]] * 2, num_items=[3, 4],
            num_classes=7, with_mask=True)
        predictions = predict(model, copy.deepcopy(data))
        torch.manual_seed(2)
        losses = model.train().forward(
            **model.data_preprocessor(data, True), mode='loss')
        losses['loss_mask_iou'].backward()
        results.append(
            (predictions, losses['loss_mask_iou'].detach(),
             model.roi_head.mask_head.conv_logits.weight.grad))
    (got, loss, grad), (want, loss0, grad0) = results
    assert loss0 > 0 and grad0.any()
    torch.testing.assert_close(loss, loss0)
    torch.testing.assert_close(grad, grad0)
    for ours, theirs in zip(got, want, strict=True):
        assert len(ours.scores) > 0  # times the IoU of the mask
        torch.testing.assert_close(ours.scores, theirs.scores)
        assert torch.equal(ours.masks, theirs.masks)
