# APA* gates and AGLU units on ResNet-101, GOL (Table 5), with the mask head
# of the authors' R101: fixed temperature, transposed convolution.
_base_ = './mask-rcnn_r50_fpn_gol_sample1e-3-ms-2x_lvis-v1.py'
model = dict(
    backbone=dict(
        type='apa_mm.APAResNet',
        depth=101,
        init_cfg=dict(checkpoint='checkpoints/apa-seresnet101_in1k.pth')))
