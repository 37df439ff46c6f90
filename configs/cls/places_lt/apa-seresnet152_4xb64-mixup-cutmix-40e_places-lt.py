# APA* gates and AGLU units.
_base_ = '../../_base_/recipes/places-lt_40e.py'
init_cfg = dict(checkpoint='checkpoints/apa-seresnet152_in1k.pth')
model = dict(backbone=dict(init_cfg=init_cfg))
