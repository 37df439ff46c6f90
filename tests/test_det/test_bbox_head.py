"""Tests of LargeVocabBBoxHead against mmdet's head, alone and in detectors."""
import pytest
import torch

pytest.importorskip('mmdet')

from mmdet.models.roi_heads.bbox_heads import Shared2FCBBoxHead  # noqa: E402
from mmdet.registry import MODELS as MMDET_MODELS  # noqa: E402
from mmdet.testing import demo_mm_inputs  # noqa: E402
from mmengine.config import ConfigDict  # noqa: E402
from support.tiny_detectors import box_heads, build, predict, tiny_cfg  # noqa: E402

from apa_mm.det.bbox_head import LargeVocabBBoxHead  # noqa: E402

NUM_CLASSES = 9
META = dict(img_shape=(90, 120), scale_factor=(0.5, 0.75))
TEST_CFG = ConfigDict(
    score_thr=0.02, nms=dict(type='nms', iou_threshold=0.4), max_per_img=12)


def make_heads(**kwargs):
    """Return our head and mmdet's with the same weights."""
    kwargs = dict(
        in_channels=4, roi_feat_size=2, fc_out_channels=8,
        num_classes=NUM_CLASSES) | kwargs
    ours, theirs = LargeVocabBBoxHead(**kwargs), Shared2FCBBoxHead(**kwargs)
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def make_rois(*counts):
    """Return RoIs (n, 5) of each image, clustered."""
    rois = []
    for index, count in enumerate(counts):
        centre = torch.tensor([60., 45.]) + torch.randn(count, 2) * 8
        size = 20 + torch.rand(count, 2) * 20
        rois.append(torch.cat([torch.full((count, 1), float(index)),
                               centre - size / 2, centre + size / 2], 1))
    return rois


def run(head, rois, test_cfg=TEST_CFG, rescale=False):
    """Run the head as mmdet's RoI heads do."""
    counts = [len(r) for r in rois]
    feats = torch.randn(
        sum(counts), 4, 2, 2, generator=torch.Generator().manual_seed(7))
    cls_score, bbox_pred = head(feats)
    bbox_preds = ([None] * len(rois) if bbox_pred is None else
                  bbox_pred.split(counts))
    return head.predict_by_feat(
        rois, cls_score.split(counts), bbox_preds, [dict(META) for _ in rois],
        test_cfg, rescale)


def assert_same(ours, theirs):
    """Compare the detections of each image bit for bit."""
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert sorted(a.keys()) == sorted(b.keys())
        for key in b.keys():
            assert torch.equal(a[key], b[key]), key


@pytest.mark.parametrize('rescale', [False, True])
@pytest.mark.parametrize('kwargs', [
    dict(),
    dict(reg_class_agnostic=True),
    dict(with_reg=False),
    dict(loss_cls=dict(type='SeesawLoss', num_classes=NUM_CLASSES)),
], ids=['plain', 'agnostic', 'no_boxes', 'custom_activation'])
def test_equals_mmdet(kwargs, rescale):
    ours, theirs = make_heads(**kwargs)
    rois = make_rois(40, 25)
    expected = run(theirs, rois, rescale=rescale)
    assert [len(e) for e in expected] == [12, 12]
    assert_same(run(ours, rois, rescale=rescale), expected)


def test_without_test_cfg_gives_raw_boxes_and_scores():
    ours, theirs = make_heads()
    rois = make_rois(6, 3)
    results = run(ours, rois, test_cfg=None)
    assert results[0].bboxes.shape == (6, NUM_CLASSES * 4)
    assert results[0].scores.shape == (6, NUM_CLASSES + 1)
    assert_same(results, run(theirs, rois, test_cfg=None))


@pytest.mark.parametrize('test_cfg', [TEST_CFG, None])
def test_image_without_rois(test_cfg):
    ours, theirs = make_heads()
    rois = make_rois(5, 0)
    results = run(ours, rois, test_cfg=test_cfg)
    assert len(results[1]) == 0
    assert_same(results, run(theirs, rois, test_cfg=test_cfg))


def test_image_without_detections():
    ours, theirs = make_heads()
    cfg = ConfigDict(TEST_CFG, score_thr=1.1)
    results = run(ours, make_rois(5), test_cfg=cfg)
    assert results[0].bboxes.shape == (0, 4)
    assert results[0].labels.dtype == torch.long


def test_other_nms_and_switch_are_mmdets():
    ours, theirs = make_heads()
    rois = make_rois(30)
    soft = ConfigDict(TEST_CFG, nms=dict(type='soft_nms', iou_threshold=0.3))
    assert_same(run(ours, rois, soft), run(theirs, rois, soft))
    off = ConfigDict(
        TEST_CFG, nms=dict(type='nms', iou_threshold=0.4, exact=False))
    assert_same(run(ours, rois, off), run(theirs, rois))


def test_exact_at_13204_classes_and_switch():
    # Two boxes of class 13,203 with an IoU of 1/4, which mmdet's float32
    # offset of 13,203 * 1,334 turns into one box (see test_nms.py).
    head = LargeVocabBBoxHead(
        in_channels=1, roi_feat_size=1, fc_out_channels=1, num_classes=13204,
        reg_class_agnostic=True)
    rois = torch.tensor([[0., 101., 101., 107., 109.],
                         [0., 103., 103., 105., 111.],
                         [0., 0., 0., 1333., 800.]])
    logits = torch.zeros(3, 13205)
    logits[0, 13203], logits[1, 13203], logits[2, 0] = 30., 29., 28.
    found = {}
    for exact in (True, False):
        cfg = ConfigDict(
            score_thr=0.05, max_per_img=300,
            nms=dict(type='nms', iou_threshold=0.5, exact=exact))
        results = head.predict_by_feat(
            [rois], [logits], [torch.zeros(3, 4)],
            [dict(img_shape=(800, 1333))], cfg)
        found[exact] = results[0].labels.tolist()
    assert found == {True: [13203, 13203, 0], False: [13203, 0]}


def test_training_and_state_dict_are_the_parents():
    ours, theirs = make_heads()
    assert list(ours.state_dict()) == list(theirs.state_dict())
    x = torch.randn(3, 4, 2, 2)
    for a, b in zip(ours(x), theirs(x), strict=True):
        assert torch.equal(a, b)
    theirs.load_state_dict(ours.state_dict())


def test_resolves_from_mmdets_registry():
    cfg = dict(
        type='apa_mm.LargeVocabBBoxHead', in_channels=4, num_classes=3,
        cls_predictor_cfg=dict(type='apa_mm.CosineLinear', temperature=16.0))
    head = MMDET_MODELS.build(cfg)
    assert type(head) is LargeVocabBBoxHead
    assert head.fc_cls.scale == 16.0 and head.fc_cls.out_features == 4


@pytest.mark.parametrize(
    'name', ['faster-rcnn', 'mask-rcnn', 'cascade-rcnn', 'cascade-mask-rcnn'])
def test_detectors_find_what_mmdets_find(name):
    cfg = tiny_cfg(name)
    theirs = build(cfg.copy())
    for head in box_heads(cfg):
        head.type = 'apa_mm.LargeVocabBBoxHead'
    ours = build(cfg)
    ours.load_state_dict(theirs.state_dict())
    data = demo_mm_inputs(2, [(3, 64, 96), (3, 96, 64)], num_classes=7)
    expected = predict(theirs, data)
    assert all(len(e) == 20 for e in expected)
    assert_same(predict(ours, data), expected)
