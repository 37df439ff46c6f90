# CRT on APA* gates and ReLU units (Table 4c).
_base_ = '../../_base_/recipes/imagenet-lt_crt.py'
init_cfg = dict(checkpoint='checkpoints/apa-seresnet50_relu_imagenet-lt.pth')
model = dict(
    backbone=dict(
        act_cfg=dict(type='ReLU', inplace=True),
        init_cfg=init_cfg))
