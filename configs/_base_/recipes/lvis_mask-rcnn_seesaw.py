# LVIS v1 with mmdet's Seesaw loss on a cosine classifier.
_base_ = ['./lvis_mask-rcnn.py', '../models/seesaw.py']
model = dict(
    roi_head=dict(
        bbox_head=dict(
            cls_predictor_cfg=_base_.cosine_classifier,
            loss_cls=dict(_base_.seesaw, num_classes=_base_.num_classes))))
