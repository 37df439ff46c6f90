# CBAM with APA gates in both parts, AGLU units.
_base_ = '../../_base_/recipes/cifar100-lt_500e.py'
model = dict(
    backbone=dict(attention_cfg=dict(type='apa_mm.CBAM', reduction=4)))
