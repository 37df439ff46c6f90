# No attention, AGLU units (Tables 4f and 9).
_base_ = '../imagenet_lt/apa-seresnet50_4xb64-mixup-200e_imagenet-lt.py'
model = dict(backbone=dict(attention_cfg=None))
