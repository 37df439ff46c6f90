# As the authors released it; each setting stands in released_det.py.
_base_ = [
    './mask-rcnn_apa-seresnet101_fpn_gol_sample1e-3-ms-2x_lvis-v1.py',
    '../../_base_/models/released_det.py'
]
model = dict(
    backbone=_base_.released_backbone,
    roi_head=dict(bbox_head=dict(init_cfg=_base_.gol_init[:1])))
optim_wrapper = _base_.released_optim_wrapper
train_cfg = dict(val_interval=1)
