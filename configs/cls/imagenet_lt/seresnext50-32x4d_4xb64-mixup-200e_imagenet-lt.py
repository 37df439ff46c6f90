# SE baseline, ResNeXt-50 32x4d.
_base_ = './seresnet50_4xb64-mixup-200e_imagenet-lt.py'
model = dict(backbone=dict(groups=32, base_width=4))
