# LVIS v1 with mmdet's EQLv2, sigmoids of the classes and of the background.
_base_ = ['./lvis_mask-rcnn.py', '../models/eqlv2.py']
model = dict(
    roi_head=dict(
        bbox_head=dict(
            loss_cls=dict(_base_.eqlv2, num_classes=_base_.num_classes),
            init_cfg=_base_.eqlv2_init)))
