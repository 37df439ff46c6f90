# No attention, AGLU units.
_base_ = '../../_base_/recipes/digits-lt_ir50.py'
model = dict(backbone=dict(attention_cfg=None))
