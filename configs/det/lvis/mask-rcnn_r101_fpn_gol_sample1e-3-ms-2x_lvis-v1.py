# GOL on a plain ResNet-101 (Table 5).
_base_ = './mask-rcnn_r50_fpn_gol_sample1e-3-ms-2x_lvis-v1.py'
model = dict(
    backbone=dict(
        depth=101, init_cfg=dict(checkpoint='torchvision://resnet101')))
