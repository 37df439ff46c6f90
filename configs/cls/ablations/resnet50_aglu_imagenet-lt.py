# No attention, AGLU units (Table 9).
_base_ = '../../_base_/recipes/imagenet-lt_200e.py'
model = dict(backbone=dict(attention_cfg=None))
