# Sigmoid gates, AGLU units.
_base_ = '../imagenet_lt/seresnet50_4xb64-mixup-200e_imagenet-lt.py'
model = dict(
    backbone=dict(act_cfg=dict(_delete_=True, type='apa_mm.AGLU')))
