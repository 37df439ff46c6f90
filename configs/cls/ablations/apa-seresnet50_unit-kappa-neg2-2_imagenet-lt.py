# kappa of the units from (-2, 2) (Table 11; the recipe: (1, 1.3)).
_base_ = '../../_base_/recipes/imagenet-lt_200e.py'
model = dict(
    backbone=dict(act_cfg=dict(type='apa_mm.AGLU', kappa_init=(-2., 2.))))
