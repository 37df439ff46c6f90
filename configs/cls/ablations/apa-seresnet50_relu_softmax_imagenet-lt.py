# Cross entropy without any correction on APA* gates and ReLU units (Table 4c).
_base_ = '../../_base_/recipes/imagenet-lt_softmax.py'
model = dict(backbone=dict(act_cfg=dict(type='ReLU', inplace=True)))
