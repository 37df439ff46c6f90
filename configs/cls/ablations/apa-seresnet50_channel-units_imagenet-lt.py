# One kappa and lambda per channel in the units (Table 13).
_base_ = '../../_base_/recipes/imagenet-lt_200e.py'
model = dict(
    backbone=dict(
        act_cfg=dict(type='apa_mm.AGLU', num_parameters='channels')))
