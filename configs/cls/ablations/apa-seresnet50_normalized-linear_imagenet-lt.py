# Normalised linear classifier, scale 1.
_base_ = '../imagenet_lt/apa-seresnet50_4xb64-mixup-200e_imagenet-lt.py'
model = dict(head=dict(type='apa_mm.NormalizedLinearClsHead'))
