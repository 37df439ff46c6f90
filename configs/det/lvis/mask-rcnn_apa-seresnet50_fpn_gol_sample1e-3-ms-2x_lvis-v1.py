# APA* gates and AGLU units, GOL (Table 5: mask AP 29.1 in the paper), with
# the mask head of the authors' R50: learnable temperature, CARAFE.
_base_ = './mask-rcnn_r50_fpn_gol_sample1e-3-ms-2x_lvis-v1.py'
model = dict(
    backbone=dict(
        type='apa_mm.APAResNet',
        init_cfg=dict(checkpoint='checkpoints/apa-seresnet50_in1k.pth')),
    roi_head=dict(
        mask_head=dict(
            upsample_cfg=dict(
                type='carafe',
                scale_factor=2,
                up_kernel=5,
                up_group=1,
                encoder_kernel=3,
                compressed_channels=64),
            predictor_cfg=dict(
                _delete_=True,
                type='apa_mm.CosineConv2d',
                learnable_temperature=True))))
