# Logit-adjusted loss (Table 4c); with tau = 1 the same as balanced softmax.
_base_ = '../imagenet_lt/apa-seresnet50_4xb64-mixup-200e_imagenet-lt.py'
model = dict(
    head=dict(
        logit_offset=None,
        loss=dict(type='apa_mm.LogitAdjustedLoss', num_classes=1000, tau=1.0)))
