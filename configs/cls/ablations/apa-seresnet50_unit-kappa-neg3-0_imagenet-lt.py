# kappa of the units from (-3, 0) (Table 11; the recipe: (1, 1.3)).
_base_ = '../../_base_/recipes/imagenet-lt_200e.py'
model = dict(
    backbone=dict(act_cfg=dict(type='apa_mm.AGLU', kappa_init=(-3., 0.))))
