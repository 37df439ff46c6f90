# APA* gates, ReLU units, depth 152 (Table 4d).
_base_ = './apa-seresnet50_relu_4xb64-mixup-200e_imagenet-lt.py'
model = dict(backbone=dict(depth=152))
