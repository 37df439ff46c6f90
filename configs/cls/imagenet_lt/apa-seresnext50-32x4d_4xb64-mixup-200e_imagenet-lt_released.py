# The authors' command, ResNeXt-50 32x4d.
_base_ = './apa-seresnet50_4xb64-mixup-200e_imagenet-lt_released.py'
model = dict(backbone=dict(groups=32, base_width=4))
