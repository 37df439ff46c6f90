# APA* gates and AGLU units, Cascade R-CNN (Table 6b: box AP 35.4).
_base_ = './cascade-rcnn_r50_fpn_wc_sample1e-3-ms-2x_v3det.py'
model = dict(
    backbone=dict(
        type='apa_mm.APAResNet',
        init_cfg=dict(checkpoint='checkpoints/apa-seresnet50_in1k.pth')))
