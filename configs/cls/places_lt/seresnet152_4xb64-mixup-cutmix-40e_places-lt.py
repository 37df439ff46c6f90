# SE baseline: sigmoid gates, ReLU units.
_base_ = [
    '../../_base_/recipes/places-lt_40e.py', '../../_base_/models/seresnet.py'
]
init_cfg = dict(checkpoint='checkpoints/seresnet152_in1k.pth')
model = dict(
    backbone=dict(init_cfg=init_cfg, **_base_.seresnet))
