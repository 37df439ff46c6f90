# No attention, ReLU units, no correction (Table 14).
_base_ = '../../_base_/recipes/imagenet-lt_softmax.py'
model = dict(
    backbone=dict(
        attention_cfg=None, act_cfg=dict(type='ReLU', inplace=True)))
