# SE baseline on ResNet-101, GOL (Table 5).
_base_ = [
    '../../_base_/recipes/lvis_mask-rcnn_gol_ours.py',
    '../../_base_/models/seresnet.py'
]
init_cfg = dict(checkpoint='checkpoints/seresnet101_in1k.pth')
model = dict(backbone=dict(depth=101, init_cfg=init_cfg, **_base_.seresnet))
