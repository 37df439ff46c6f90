"""Test-time augmentation for detectors with many classes."""
from typing import List

import torch
from mmdet.models.test_time_augs import DetTTAModel
from mmdet.structures import DetDataSample
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from torch import Tensor

from apa_mm.det.nms import HardNMS, exact_batched_nms
from apa_mm.registry import MODELS

#: Axes of a mask (n, H, W) that a flip of the image turns round.
_FLIPPED = dict(horizontal=(2, ), vertical=(1, ), diagonal=(1, 2))


@MODELS.register_module()
class LargeVocabTTAModel(DetTTAModel):
    """mmdet's ``DetTTAModel`` with an NMS that keeps classes apart exactly.

    NMS types other than 'nms' are left to the parent, and with
    ``--cfg-options tta_model.tta_cfg.nms.exact=False`` that one too. Masks,
    which the parent refuses, are those of the view that a kept box comes
    from, turned back; they are not averaged over the views.

    Args:
        tta_cfg (dict): 'nms', see
            :func:`apa_mm.det.nms.exact_multiclass_nms`, and 'max_per_img',
            the detections to keep.

    Raises:
        KeyError: If ``tta_cfg`` lacks 'nms' or 'max_per_img'.
    """

    def __init__(self, tta_cfg: dict, **kwargs) -> None:
        missing = {'nms', 'max_per_img'} - set(tta_cfg or ())
        if missing:
            raise KeyError(
                f'tta_cfg lacks {sorted(missing)}, got {tta_cfg}; write for '
                "example dict(nms=dict(type='nms', iou_threshold=0.6), "
                'max_per_img=300)')
        super().__init__(ConfigDict(tta_cfg), **kwargs)
        self.exact = HardNMS.parse(self.tta_cfg.nms, box_dim=4) is not None
        if self.tta_cfg.nms is not None:
            self.tta_cfg.nms.pop('exact', None)

    def _merge_single_sample(
            self, data_samples: List[DetDataSample]) -> DetDataSample:
        """Put the merged predictions of the views into the first of them."""
        views = [sample.pred_instances for sample in data_samples]
        if not self.exact:
            if any('masks' in view for view in views):
                raise ValueError(
                    "masks are merged with nms=dict(type='nms') alone, but "
                    f'tta_cfg has nms={self.tta_cfg.nms} or exact=False; '
                    'change it, or test without augmentation')
            return super()._merge_single_sample(data_samples)
        boxes, scores = self.merge_aug_bboxes(
            [view.bboxes for view in views], [view.scores for view in views],
            [sample.metainfo for sample in data_samples])
        labels = torch.cat([view.labels for view in views])
        dets, keep = exact_batched_nms(boxes, scores, labels, self.tta_cfg.nms,
                                       self.tta_cfg.max_per_img)
        merged = InstanceData(
            bboxes=dets[:, :-1], scores=dets[:, -1], labels=labels[keep])
        if 'masks' in views[0]:
            merged.masks = _kept_masks(data_samples, keep)
        data_samples[0].pred_instances = merged
        return data_samples[0]


def _kept_masks(data_samples: List[DetDataSample], keep: Tensor) -> Tensor:
    """Return the masks of the kept boxes, in the place of the image.

    Only those are turned back: a mask has as many values as the image.
    """
    first = data_samples[0].pred_instances.masks
    masks = first.new_zeros((len(keep), *first.shape[1:]))
    start = 0
    for sample in data_samples:
        stop = start + len(sample.pred_instances)
        here = (keep >= start) & (keep < stop)
        found = sample.pred_instances.masks[keep[here] - start]
        if sample.get('flip', False):
            found = found.flip(_FLIPPED[sample.flip_direction])
        masks[here] = found
        start = stop
    return masks
