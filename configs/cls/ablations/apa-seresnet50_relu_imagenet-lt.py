# APA* gates (LayerNorm too), ReLU units (Table 4e, last row).
_base_ = '../imagenet_lt/apa-seresnet50_4xb64-mixup-200e_imagenet-lt.py'
model = dict(backbone=dict(act_cfg=dict(type='ReLU', inplace=True)))
