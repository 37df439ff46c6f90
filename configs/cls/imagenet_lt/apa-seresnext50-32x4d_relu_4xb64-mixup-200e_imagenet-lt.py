# APA* gates, ReLU units, ResNeXt-50 32x4d.
_base_ = './apa-seresnet50_relu_4xb64-mixup-200e_imagenet-lt.py'
model = dict(backbone=dict(groups=32, base_width=4))
