# LVIS v1 with GOL and the mask head of the authors' R50: learnable
# temperature, CARAFE. CARAFE has no CPU kernel.
_base_ = './lvis_mask-rcnn_gol_ours.py'
model = dict(
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
