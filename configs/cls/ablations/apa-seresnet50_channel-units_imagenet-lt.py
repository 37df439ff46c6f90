# One kappa and lambda per channel in the units (Table 13).
_base_ = '../imagenet_lt/apa-seresnet50_4xb64-mixup-200e_imagenet-lt.py'
model = dict(
    backbone=dict(
        act_cfg=dict(type='apa_mm.AGLU', num_parameters='channels')))
