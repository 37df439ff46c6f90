# No attention, ReLU units.
_base_ = '../../_base_/recipes/digits-lt_ir10.py'
model = dict(
    backbone=dict(attention_cfg=None, act_cfg=dict(type='ReLU')))
