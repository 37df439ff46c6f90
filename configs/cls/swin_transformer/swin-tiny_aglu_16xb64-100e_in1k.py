# AGLU in every FFN (Table 10).
_base_ = '../../_base_/recipes/swin-tiny_100e.py'
ffn_cfgs = dict(act_cfg=dict(type='apa_mm.AGLU'))
model = dict(
    backbone=dict(stage_cfgs=dict(block_cfgs=dict(ffn_cfgs=ffn_cfgs))))
