# No attention, ReLU units, ResNeXt-50 32x4d (Table 9).
_base_ = './resnext50-32x4d_aglu_4xb64-mixup-200e_imagenet-lt.py'
model = dict(backbone=dict(act_cfg=dict(type='ReLU', inplace=True)))
