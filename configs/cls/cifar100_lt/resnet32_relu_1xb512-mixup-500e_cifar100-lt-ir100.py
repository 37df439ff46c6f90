# No attention, ReLU units (Table 9).
_base_ = '../../_base_/recipes/cifar100-lt_500e.py'
model = dict(
    backbone=dict(
        attention_cfg=None, act_cfg=dict(type='ReLU', inplace=True)))
