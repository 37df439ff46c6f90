# APA* gates, ReLU units.
_base_ = '../../_base_/recipes/places-lt_40e.py'
init_cfg = dict(checkpoint='checkpoints/apa-seresnet152_relu_in1k.pth')
model = dict(
    backbone=dict(
        act_cfg=dict(type='ReLU', inplace=True),
        init_cfg=init_cfg))
