"""Box head that keeps its post-processing cheap with many classes."""
from typing import Any, Optional

import torch
from mmdet.models.roi_heads.bbox_heads import Shared2FCBBoxHead
from mmdet.structures.bbox import get_box_type
from mmengine.structures import InstanceData
from torch import Tensor

from apa_mm.det.nms import exact_multiclass_nms
from apa_mm.registry import MODELS


@MODELS.register_module()
class LargeVocabBBoxHead(Shared2FCBBoxHead):
    """mmdet's ``Shared2FCBBoxHead`` with NMS that is exact and does not loop.

    Arguments, parameters, training and state dict are the parent's; only the
    final NMS differs, see :func:`apa_mm.det.nms.exact_multiclass_nms`. For
    test-time augmentation, :class:`~apa_mm.det.tta.LargeVocabTTAModel` merges
    the views. Back to mmdet's own NMS::

        --cfg-options model.test_cfg.rcnn.nms.exact=False

    Args:
        score_calibration (dict, optional): Config of a
            :class:`apa_mm.ScoreCalibration` of the scores before the NMS.

    Raises:
        ValueError: If it comes with a loss whose scores do not sum to 1.
    """

    def __init__(self, *args: Any, score_calibration: Optional[dict] = None,
                 **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.score_calibration = None
        if score_calibration is None:
            return
        if not getattr(self.loss_cls, 'scores_sum_to_one', True):
            raise ValueError(
                'score_calibration needs scores that sum to 1 with the '
                f"background's, but those of {type(self.loss_cls).__name__} "
                'do not; use a softmax or SeesawLoss')
        self.score_calibration = MODELS.build(
            dict(score_calibration, num_classes=self.num_classes))

    def predict_by_feat(self, *args: Any, **kwargs: Any) -> Any:
        """Predict as the parent does; exporters replace what that calls."""
        if self.score_calibration is not None and torch.jit.is_tracing():
            raise ValueError(
                'score_calibration would be missing in the exported detector; '
                'set it to None and calibrate the scores behind the export')
        return super().predict_by_feat(*args, **kwargs)

    def _predict_by_feat_single(
            self, roi: Tensor, cls_score: Tensor, bbox_pred: Optional[Tensor],
            img_meta: dict, rescale: bool = False,
            rcnn_test_cfg: Optional[dict] = None) -> InstanceData:
        # Without a config the parent stops before the NMS.
        results = super()._predict_by_feat_single(
            roi, cls_score, bbox_pred, img_meta, rescale, rcnn_test_cfg=None)
        if self.score_calibration is not None:
            results.scores = self.score_calibration(results.scores)
        if rcnn_test_cfg is None:
            return results
        cfg, box_type = rcnn_test_cfg, get_box_type(self.predict_box_type)[1]
        dets, labels = exact_multiclass_nms(
            results.bboxes, results.scores, cfg['score_thr'], cfg['nms'],
            cfg['max_per_img'], box_dim=box_type.box_dim)
        return InstanceData(
            bboxes=dets[:, :-1], scores=dets[:, -1], labels=labels)
