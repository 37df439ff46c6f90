# Sigmoid gates, AGLU units.
_base_ = [
    '../../_base_/recipes/imagenet-lt_200e.py',
    '../../_base_/models/seresnet.py'
]
model = dict(
    backbone=dict(
        act_cfg=dict(type='apa_mm.AGLU'),
        attention_cfg=_base_.seresnet.attention_cfg))
