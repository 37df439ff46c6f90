# APA* gates, GELU units (Table 4f).
_base_ = '../../_base_/recipes/imagenet-lt_200e.py'
model = dict(backbone=dict(act_cfg=dict(type='GELU')))
