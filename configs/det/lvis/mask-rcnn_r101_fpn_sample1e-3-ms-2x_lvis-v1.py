# RFS + softmax baseline of Table 5 on ResNet-101.
_base_ = './mask-rcnn_r50_fpn_sample1e-3-ms-2x_lvis-v1.py'
model = dict(
    backbone=dict(
        depth=101, init_cfg=dict(checkpoint='torchvision://resnet101')))
