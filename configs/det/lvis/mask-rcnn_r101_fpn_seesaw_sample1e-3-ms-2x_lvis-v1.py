# Seesaw on a plain ResNet-101.
_base_ = './mask-rcnn_r50_fpn_seesaw_sample1e-3-ms-2x_lvis-v1.py'
init_cfg = dict(checkpoint='torchvision://resnet101')
model = dict(backbone=dict(depth=101, init_cfg=init_cfg))
