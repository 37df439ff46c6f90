# One kappa and lambda per channel in gates and units (Table 13).
_base_ = './apa-seresnet50_channel-gates_imagenet-lt.py'
model = dict(
    backbone=dict(
        act_cfg=dict(type='apa_mm.AGLU', num_parameters='channels')))
