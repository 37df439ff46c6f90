# No attention, AGLU units, ResNeXt-50 32x4d (Table 9).
_base_ = './apa-seresnext50-32x4d_4xb64-mixup-200e_imagenet-lt.py'
model = dict(backbone=dict(attention_cfg=None))
