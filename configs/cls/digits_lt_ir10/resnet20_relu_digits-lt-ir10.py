# No attention, ReLU units.
_base_ = './apa-seresnet20_aglu_digits-lt-ir10.py'
model = dict(
    backbone=dict(attention_cfg=None, act_cfg=dict(type='ReLU')))
