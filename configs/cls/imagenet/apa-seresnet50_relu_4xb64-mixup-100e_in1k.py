# APA* gates, ReLU units.
_base_ = './apa-seresnet50_4xb64-mixup-100e_in1k.py'
model = dict(backbone=dict(act_cfg=dict(type='ReLU', inplace=True)))
