# APA* gates and AGLU units, depth 101.
_base_ = './apa-seresnet50_4xb64-mixup-200e_imagenet-lt.py'
model = dict(backbone=dict(depth=101))
