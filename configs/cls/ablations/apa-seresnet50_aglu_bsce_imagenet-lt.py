# Balanced softmax (Table 4c).
_base_ = '../imagenet_lt/apa-seresnet50_4xb64-mixup-200e_imagenet-lt.py'
model = dict(
    head=dict(
        logit_offset=None,
        loss=dict(type='apa_mm.BalancedSoftmaxLoss', num_classes=1000)))
