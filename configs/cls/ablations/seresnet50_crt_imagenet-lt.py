# CRT on SE-ResNet-50 (Table 4c).
_base_ = [
    '../../_base_/recipes/imagenet-lt_crt.py',
    '../../_base_/models/seresnet.py'
]
init_cfg = dict(checkpoint='checkpoints/seresnet50_imagenet-lt.pth')
model = dict(
    backbone=dict(init_cfg=init_cfg, **_base_.seresnet))
