# Channel and spatial attention with sigmoid gates, ReLU units (Table 4b).
_base_ = '../../_base_/recipes/imagenet-lt_200e.py'
gate_cfg = dict(type='Sigmoid')
model = dict(
    backbone=dict(
        act_cfg=dict(type='ReLU', inplace=True),
        attention_cfg=dict(type='apa_mm.CBAM', gate_cfg=gate_cfg)))
