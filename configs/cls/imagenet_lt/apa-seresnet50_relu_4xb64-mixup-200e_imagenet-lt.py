# APA* gates, ReLU units.
_base_ = '../../_base_/recipes/imagenet-lt_200e.py'
model = dict(backbone=dict(act_cfg=dict(type='ReLU', inplace=True)))
