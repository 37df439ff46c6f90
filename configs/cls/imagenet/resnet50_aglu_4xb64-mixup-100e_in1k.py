# No attention, AGLU units.
_base_ = '../../_base_/recipes/imagenet_100e.py'
model = dict(backbone=dict(attention_cfg=None))
