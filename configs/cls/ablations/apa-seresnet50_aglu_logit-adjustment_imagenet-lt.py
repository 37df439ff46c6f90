# Logit-adjusted loss; with tau = 1 the same as balanced softmax.
_base_ = '../../_base_/recipes/imagenet-lt_200e.py'
model = dict(
    head=dict(
        logit_offset=None,
        loss=dict(type='apa_mm.LogitAdjustedLoss', num_classes=1000, tau=1.0)))
