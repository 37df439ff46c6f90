# Squeeze-and-excitation with sigmoid gates, ReLU units.
_base_ = [
    '../../_base_/recipes/digits-lt_ir50.py', '../../_base_/models/seresnet.py'
]
attention_cfg = dict(reduction=4, **_base_.seresnet.attention_cfg)
model = dict(
    backbone=dict(act_cfg=dict(type='ReLU'), attention_cfg=attention_cfg))
