# APA* gates and AGLU units on ResNet-101, Seesaw.
_base_ = './mask-rcnn_apa-seresnet50_fpn_seesaw_sample1e-3-ms-2x_lvis-v1.py'
init_cfg = dict(checkpoint='checkpoints/apa-seresnet101_in1k.pth')
model = dict(backbone=dict(depth=101, init_cfg=init_cfg))
