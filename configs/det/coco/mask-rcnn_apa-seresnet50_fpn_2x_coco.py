# APA* gates and AGLU units (Table 6a). As the paper says, kappa and lambda
# come from the ImageNet checkpoint; the released config starts from
# torchvision's ResNet-50 and leaves them random, some of them frozen.
_base_ = './mask-rcnn_r50_fpn_2x_coco.py'
model = dict(
    backbone=dict(
        type='apa_mm.APAResNet',
        init_cfg=dict(checkpoint='checkpoints/apa-seresnet50_in1k.pth')))
