# APA* gates, ReLU units.
_base_ = './apa-seresnet20_aglu_digits-lt-ir50.py'
model = dict(backbone=dict(act_cfg=dict(type='ReLU')))
