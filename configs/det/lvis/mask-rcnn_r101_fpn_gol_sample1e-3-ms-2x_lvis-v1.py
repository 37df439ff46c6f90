# GOL on a plain ResNet-101 (Table 5).
_base_ = '../../_base_/recipes/lvis_mask-rcnn_gol.py'
model = dict(
    backbone=dict(
        depth=101, init_cfg=dict(checkpoint='torchvision://resnet101')))
