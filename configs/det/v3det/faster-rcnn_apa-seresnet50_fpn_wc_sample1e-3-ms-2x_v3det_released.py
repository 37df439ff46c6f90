# As released: the authors' weights need this form of the classifier.
_base_ = [
    './faster-rcnn_apa-seresnet50_fpn_wc_sample1e-3-ms-2x_v3det.py',
    '../../_base_/models/released_det.py'
]
box_head = dict(cls_predictor_cfg=_base_.released_classifier)
model = dict(
    backbone=_base_.released_backbone, roi_head=dict(bbox_head=box_head))
optim_wrapper = _base_.released_optim_wrapper
