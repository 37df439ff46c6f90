# SE baseline, depth 152 (Table 4d).
_base_ = './seresnet50_4xb64-mixup-200e_imagenet-lt.py'
model = dict(backbone=dict(depth=152))
