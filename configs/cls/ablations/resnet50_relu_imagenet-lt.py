# No attention, ReLU units (Tables 9 and 14).
_base_ = '../../_base_/recipes/imagenet-lt_200e.py'
model = dict(
    backbone=dict(
        attention_cfg=None, act_cfg=dict(type='ReLU', inplace=True)))
