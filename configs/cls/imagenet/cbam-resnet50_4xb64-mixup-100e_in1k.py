# CBAM baseline: sigmoid gates, ReLU units. LayerNorm and dropout of its
# channel part belong to the authors' baseline too.
_base_ = '../../_base_/recipes/imagenet_100e.py'
gate_cfg = dict(type='Sigmoid')
model = dict(
    backbone=dict(
        act_cfg=dict(type='ReLU', inplace=True),
        attention_cfg=dict(type='apa_mm.CBAM', gate_cfg=gate_cfg)))
