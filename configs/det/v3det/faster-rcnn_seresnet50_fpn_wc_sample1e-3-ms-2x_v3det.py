# SE baseline: sigmoid gates, ReLU units, Faster R-CNN (Table 6b).
_base_ = [
    '../../_base_/recipes/v3det_faster-rcnn.py',
    '../../_base_/models/seresnet.py'
]
init_cfg = dict(checkpoint='checkpoints/seresnet50_in1k.pth')
model = dict(
    backbone=dict(
        type='apa_mm.APAResNet', init_cfg=init_cfg, **_base_.seresnet))
