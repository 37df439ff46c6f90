# CBAM baseline: sigmoid gates, ReLU units.
_base_ = '../../_base_/recipes/cifar100-lt_500e.py'
gate_cfg = dict(type='Sigmoid')
model = dict(
    backbone=dict(
        act_cfg=dict(type='ReLU', inplace=True),
        attention_cfg=dict(
            type='apa_mm.CBAM', reduction=4, gate_cfg=gate_cfg)))
