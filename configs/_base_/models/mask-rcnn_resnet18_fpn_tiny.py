# Mask R-CNN on our ResNet-18 (APA* and AGLU where a config says nothing else),
# small enough to train on two CPU cores.
_base_ = 'mmdet::_base_/models/mask-rcnn_r50_fpn.py'
# Before weights are read: torch refuses mmengine's checkpoints otherwise.
custom_imports = dict(imports=['apa_mm'], allow_failed_imports=False)
num_classes = 30
width = 64
model = dict(
    backbone=dict(
        _delete_=True,
        type='apa_mm.APAResNet',
        depth=18,
        out_indices=(0, 1, 2, 3)),
    neck=dict(in_channels=[64, 128, 256, 512], out_channels=width),
    rpn_head=dict(
        in_channels=width,
        feat_channels=width,
        # Objects are 20 to 48 pixels long: anchors of 16 px and up.
        anchor_generator=dict(scales=[4])),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=width),
        bbox_head=dict(
            in_channels=width, fc_out_channels=256, num_classes=num_classes),
        mask_roi_extractor=dict(out_channels=width),
        mask_head=dict(
            num_convs=2,
            in_channels=width,
            conv_out_channels=width,
            num_classes=num_classes)),
    train_cfg=dict(
        rpn=dict(sampler=dict(num=64)),
        rpn_proposal=dict(nms_pre=200, max_per_img=100),
        rcnn=dict(sampler=dict(num=64))),
    test_cfg=dict(
        rpn=dict(nms_pre=200, max_per_img=50),
        rcnn=dict(score_thr=0.01, max_per_img=50)))
