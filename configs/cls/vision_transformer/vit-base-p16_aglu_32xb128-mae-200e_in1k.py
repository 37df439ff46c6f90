# AGLU in every FFN (Table 10).
_base_ = '../../_base_/recipes/vit-base_200e.py'
model = dict(
    backbone=dict(layer_cfgs=dict(act_cfg=dict(type='apa_mm.AGLU'))))
