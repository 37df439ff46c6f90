# No attention, AGLU units (Table 9).
_base_ = '../../_base_/recipes/inat18_500e.py'
model = dict(backbone=dict(attention_cfg=None))
