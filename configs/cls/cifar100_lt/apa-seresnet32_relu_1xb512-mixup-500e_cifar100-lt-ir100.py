# APA* gates, ReLU units.
_base_ = '../../_base_/recipes/cifar100-lt_500e.py'
model = dict(backbone=dict(act_cfg=dict(type='ReLU', inplace=True)))
