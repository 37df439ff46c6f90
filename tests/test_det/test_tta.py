"""Tests of LargeVocabTTAModel against mmdet's model and by hand."""
import pytest
import torch

pytest.importorskip('mmdet')

from mmdet.models.test_time_augs import DetTTAModel  # noqa: E402
from mmdet.structures import DetDataSample  # noqa: E402
from mmengine.config import ConfigDict  # noqa: E402
from mmengine.structures import InstanceData  # noqa: E402

from apa_mm.det.tta import LargeVocabTTAModel  # noqa: E402
from apa_mm.registry import MODELS  # noqa: E402

SHAPE = (800, 1333)


class Detector(torch.nn.Module):
    """Returns what it was told to."""

    def test_step(self, data):
        return data


def make_model(cls=LargeVocabTTAModel, max_per_img=20, **nms):
    nms = dict(type='nms', iou_threshold=0.5) | nms
    cfg = ConfigDict(nms=nms, max_per_img=max_per_img)
    return cls(tta_cfg=cfg, module=Detector())


def view(boxes, scores, labels, flip=False):
    """Return one view's prediction; the boxes are those before the flip."""
    boxes = boxes.clone()
    if flip:
        boxes[:, 0::2] = SHAPE[1] - boxes[:, 2 - torch.arange(0, 4, 2)]
    sample = DetDataSample(metainfo=dict(
        ori_shape=SHAPE, flip=flip, flip_direction='horizontal'))
    sample.pred_instances = InstanceData(
        bboxes=boxes, scores=scores, labels=labels)
    return sample


def random_views(num_classes=5):
    """Return three views on a grid of quarter pixels, one of them flipped."""
    views = []
    for flip in (False, True, False):
        corner = (torch.rand(30, 2) * 300).round() / 4
        size = (torch.rand(30, 2) * 200).round() / 4 + 1
        views.append(view(
            torch.cat([corner, corner + size], 1), torch.rand(30),
            torch.randint(num_classes, (30, )), flip))
    return views


@pytest.mark.parametrize('nms', [
    dict(), dict(type='soft_nms', iou_threshold=0.3), dict(exact=False)])
def test_merges_like_mmdet(nms):
    views = random_views()
    mmdet_nms = {k: v for k, v in nms.items() if k != 'exact'}
    expected = make_model(DetTTAModel, **mmdet_nms).merge_preds(
        [[v.clone() for v in views]])[0].pred_instances
    merged = make_model(**nms).test_step([views])[0].pred_instances
    assert len(expected) == 20
    for key in ('bboxes', 'scores', 'labels'):
        assert torch.equal(merged[key], expected[key]), key


def test_flipped_view_is_flipped_back():
    box = torch.tensor([[10., 20., 50., 80.]])
    one, label = torch.ones(1), torch.tensor([3])
    merged = make_model().merge_preds(
        [[view(box, one * .5, label), view(box, one * .9, label, flip=True)]])
    assert merged[0].pred_instances.bboxes.tolist() == box.tolist()
    assert merged[0].pred_instances.scores.tolist() == pytest.approx([.9])


@pytest.mark.parametrize('exact, found', [(True, [13203, 13203, 0]),
                                          (False, [13203, 0])])
def test_exact_at_13204_classes_and_switch(exact, found):
    # boxes with an IoU of 1/4 that mmdet's offset merges, see test_nms.py
    views = [
        view(torch.tensor([[101., 101., 107., 109.], [0., 0., 1333., 800.]]),
             torch.tensor([.9, .7]), torch.tensor([13203, 0])),
        view(torch.tensor([[103., 103., 105., 111.]]), torch.tensor([.8]),
             torch.tensor([13203]))
    ]
    merged = make_model(exact=exact).merge_preds([views])
    assert merged[0].pred_instances.labels.tolist() == found


def test_views_without_detections():
    empty = view(torch.zeros(0, 4), torch.zeros(0),
                 torch.zeros(0, dtype=torch.long))
    merged = make_model().merge_preds([[empty, empty.clone()]])
    assert len(merged[0].pred_instances) == 0


@pytest.mark.parametrize('direction, axes', [
    ('horizontal', (2, )), ('vertical', (1, )), ('diagonal', (1, 2))])
def test_masks_follow_their_boxes(direction, axes):
    masks = torch.rand(5, *SHAPE) > 0.5
    boxes = torch.rand(5, 4) * 9
    boxes[:, 2:] += 400 + torch.arange(5.)[:, None] * 20
    plain = view(boxes[:3], torch.tensor([.3, .9, .2]), torch.arange(3))
    plain.pred_instances.masks = masks[:3]
    flipped = view(boxes[3:], torch.tensor([.7, .8]), torch.tensor([3, 1]))
    flipped.set_metainfo(dict(flip=True, flip_direction=direction))
    flipped.pred_instances.masks = masks[3:].flip(axes)
    merged = make_model(max_per_img=4, iou_threshold=.99).merge_preds(
        [[plain, flipped]])[0].pred_instances
    assert merged.scores.tolist() == pytest.approx([.9, .8, .7, .3])
    assert torch.equal(merged.masks, masks[[1, 4, 3, 0]])


def test_no_boxes_have_no_masks():
    empty = view(torch.zeros(0, 4), torch.zeros(0),
                 torch.zeros(0, dtype=torch.long))
    empty.pred_instances.masks = torch.zeros(0, *SHAPE, dtype=torch.bool)
    merged = make_model().merge_preds([[empty, empty.clone()]])
    assert merged[0].pred_instances.masks.shape == (0, *SHAPE)


def test_masks_need_the_exact_nms():
    sample = view(torch.zeros(1, 4), torch.ones(1), torch.tensor([0]))
    sample.pred_instances.masks = torch.zeros(1, 8, 8)
    with pytest.raises(ValueError, match="masks are merged with nms=dict"):
        make_model(exact=False).merge_preds([[sample]])


@pytest.mark.parametrize('cfg, missing', [
    (None, r"\['max_per_img', 'nms'\]"),
    (dict(nms=None), r"\['max_per_img'\]")])
def test_incomplete_settings(cfg, missing):
    with pytest.raises(KeyError, match=f'lacks {missing}'):
        LargeVocabTTAModel(tta_cfg=cfg, module=Detector())


def test_is_registered():
    assert MODELS.get('apa_mm.LargeVocabTTAModel') is LargeVocabTTAModel
