# APA* gates and AGLU units, Faster R-CNN (Table 6b: box AP 29.9).
_base_ = './faster-rcnn_r50_fpn_wc_sample1e-3-ms-2x_v3det.py'
model = dict(
    backbone=dict(
        type='apa_mm.APAResNet',
        init_cfg=dict(checkpoint='checkpoints/apa-seresnet50_in1k.pth')))
