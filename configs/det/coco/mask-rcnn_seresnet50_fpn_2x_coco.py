# SE baseline: sigmoid gates, ReLU units (Table 6a).
_base_ = [
    '../../_base_/recipes/coco_mask-rcnn.py', '../../_base_/models/seresnet.py'
]
init_cfg = dict(checkpoint='checkpoints/seresnet50_in1k.pth')
model = dict(
    backbone=dict(
        type='apa_mm.APAResNet', init_cfg=init_cfg, **_base_.seresnet))
