# APA* gates, ReLU units.
_base_ = '../../_base_/recipes/digits-lt_ir50.py'
model = dict(backbone=dict(act_cfg=dict(type='ReLU')))
