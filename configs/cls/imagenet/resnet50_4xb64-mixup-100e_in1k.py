# Plain ResNet-50: no attention, ReLU units.
_base_ = '../../_base_/recipes/imagenet_100e.py'
model = dict(
    backbone=dict(
        attention_cfg=None, act_cfg=dict(type='ReLU', inplace=True)))
