# APA* gates and AGLU units on ResNet-101, GOL (Table 5).
_base_ = '../../_base_/recipes/lvis_mask-rcnn_gol_ours.py'
init_cfg = dict(checkpoint='checkpoints/apa-seresnet101_in1k.pth')
model = dict(backbone=dict(depth=101, init_cfg=init_cfg))
