# Channel and spatial attention with APA gates, AGLU units (Table 4b).
_base_ = '../../_base_/recipes/imagenet-lt_200e.py'
model = dict(backbone=dict(attention_cfg=dict(type='apa_mm.CBAM')))
