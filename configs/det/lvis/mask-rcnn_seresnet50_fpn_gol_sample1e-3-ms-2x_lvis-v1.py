# SE baseline: sigmoid gates, ReLU units, GOL (Table 5).
_base_ = [
    '../../_base_/recipes/lvis_mask-rcnn_gol_carafe.py',
    '../../_base_/models/seresnet.py'
]
init_cfg = dict(checkpoint='checkpoints/seresnet50_in1k.pth')
model = dict(backbone=dict(init_cfg=init_cfg, **_base_.seresnet))
