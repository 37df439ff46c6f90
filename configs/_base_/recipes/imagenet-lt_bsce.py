# ImageNet-LT, balanced softmax (Table 4c).
_base_ = './imagenet-lt_200e.py'
model = dict(
    head=dict(
        logit_offset=None,
        loss=dict(type='apa_mm.BalancedSoftmaxLoss', num_classes=1000)))
