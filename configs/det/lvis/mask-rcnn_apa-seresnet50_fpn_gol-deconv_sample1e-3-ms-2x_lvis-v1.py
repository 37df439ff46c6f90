# The R50 recipe with the mask head of the authors' R101: fixed temperature of
# 20 and a transposed convolution. CARAFE has no CPU kernel, this has.
_base_ = './mask-rcnn_r50_fpn_gol_sample1e-3-ms-2x_lvis-v1.py'
model = dict(
    backbone=dict(
        type='apa_mm.APAResNet',
        init_cfg=dict(checkpoint='checkpoints/apa-seresnet50_in1k.pth')))
