# APA* gates and AGLU units, GOL (Table 5).
_base_ = '../../_base_/recipes/lvis_mask-rcnn_gol_carafe.py'
init_cfg = dict(checkpoint='checkpoints/apa-seresnet50_in1k.pth')
model = dict(backbone=dict(init_cfg=init_cfg))
