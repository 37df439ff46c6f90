# As released: the authors' weights need this form of the classifiers.
_base_ = [
    './cascade-rcnn_apa-seresnet50_fpn_wc_sample1e-3-ms-2x_v3det.py',
    '../../_base_/models/released_det.py']
model = dict(
    backbone=_base_.released_backbone,
    roi_head=dict(bbox_head=[
        dict(head, cls_predictor_cfg=_base_.released_classifier)
        for head in _base_.model.roi_head.bbox_head]))
optim_wrapper = _base_.released_optim_wrapper
